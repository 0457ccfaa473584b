//! The tool as it is called, against the bridge as it is built: a tiny scenario on loopback, from the first process to
//! the files it leaves. Nothing is asserted of times: machines that build at the same time are slow.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn bridge() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("asamblea");
    assert!(path.is_file(), "{} is missing: `cargo build -p asamblea` makes it", path.display());
    path
}

/// A folder for one test.
fn folder(test: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()))
}

/// Runs a scenario and returns its results.
fn run(name: &str, more: &[&str], out: PathBuf) -> (PathBuf, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .arg(name)
        .args(more)
        .arg("--out")
        .arg(&out)
        .env("ASAMBLEA_BINARY", bridge())
        .output()
        .expect("the tool starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    println!("{said}{}", String::from_utf8_lossy(&output.stdout));
    let text = std::fs::read_to_string(out.join("results.json")).expect("results");
    (out, serde_json::from_str(&text).expect("JSON"))
}

/// What was measured. Whether it counts is a question of time: a machine that stands still for a second voids it.
fn sample(entry: &Value) -> &Value {
    let outcome = &entry["outcome"];
    let sample = if outcome["counts"].is_object() { &outcome["counts"] } else { &outcome["void"][1] };
    assert!(sample.is_object(), "it came to a result: {outcome}");
    sample
}

#[test]
fn everyone_gets_every_voice_and_picture_and_the_books_say_so() {
    let (out, results) = run("smoke", &[], folder("smoke"));
    let entries = results["entries"].as_array().expect("entries");
    assert_eq!(entries.len(), 2, "a run without a server and one with ours");
    for entry in entries {
        let sample = sample(entry);
        let number = |name: &str| sample[name].as_u64().unwrap_or_else(|| panic!("{name} is a number"));
        assert_eq!(sample["summary"]["strangers"], 0);
        assert_eq!(number("undecryptable"), 0);
        assert_eq!(number("contradictions"), 0);
        assert_eq!(sample["cipher"], "aes-128-gcm");
        assert!(sample["cpu_ns"][0].as_u64() > Some(0), "work was booked: {sample}");
    }
    let ours = sample(&entries[1]);
    // A run fails unless every subscription had a frame that can be decoded.
    assert!(ours["first_frame_ms"][1].as_f64().is_some(), "everyone saw and heard everyone: {ours}");
    assert_eq!(ours["connections"], 4, "one connection a bot");
    assert_eq!(ours["with_feedback"], 4);
    assert!(ours["key_frames_asked"].as_u64() > Some(0), "a picture begins with a key frame");
    assert!(ours["memory_bytes"][0].as_u64() > Some(0));
    let table = std::fs::read_to_string(out.join("table.txt")).expect("a table");
    assert!(table.contains("2 among each other and 2 more") && table.contains("asamblea"), "{table}");
    std::fs::remove_dir_all(out).expect("what the test made");
}

/// A scenario of a second on loopback, whose figures are not the point of it.
const SECOND: &str = "title = \"A second\"\npeers = [\"asamblea\"]\nplace = \"loopback\"\npairs = 1\nwarm_up_s = 0\n\
                      measure_s = 1\n[limits]\ndriver_busy = 1.0\nsend_slip_ms = 10000\nloss = 1.0\n[traffic]\n\
                      pace = \"bursts\"\npackets_per_frame = 4\nframes_per_second = 20\n[[rows]]\nsubscribers = 2\n";

fn run_text(test: &str, text: &str, more: &[&str]) -> Value {
    let folder = folder(test);
    std::fs::create_dir_all(&folder).expect("a folder");
    let scenario = folder.join("scenario.toml");
    std::fs::write(&scenario, text).expect("a scenario");
    let (out, results) = run(scenario.to_str().expect("a path of letters"), more, folder);
    std::fs::remove_dir_all(out).expect("what the test made");
    results
}

#[test]
fn people_join_a_running_room_and_all_of_them_see_a_picture() {
    let results = run_text("storm", &format!("{SECOND}joins = 8\njoins_per_second = 20\n"), &[]);
    let sample = sample(&results["entries"][1]);
    let storm = &sample["storm"];
    for count in ["joins", "joined", "seen"] {
        assert_eq!(storm[count], 8, "{storm}");
    }
    assert!(storm["wait_ms"][0].as_f64() > Some(0.0), "nobody sees a picture at once: {storm}");
    assert!(storm["cpu_ns"].as_u64() > Some(0), "{storm}");
    assert_eq!(sample["connections"], 3, "those who were there before");
}

#[test]
fn who_is_merely_there_has_a_place_with_a_server_and_without() {
    let results = run_text("muted", &format!("{SECOND}muted = 1\n"), &[]);
    for entry in results["entries"].as_array().expect("entries") {
        assert_eq!(sample(entry)["connections"], 4, "who sends, two who watch, and one who does neither");
    }
}

/// Looks that a test takes at what a busy machine may spoil.
const LOOKS_MAX: i32 = 4;

#[test]
fn a_client_that_shares_no_code_with_the_bots_sees_what_they_see() {
    let witness = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("examples").join("str0m-witness");
    assert!(
        witness.is_file(),
        "{} is missing: `cargo build -p loadtest --examples` makes it",
        witness.display()
    );
    let command = witness.to_str().expect("a path of letters");
    // A second of 20 frames of 4 packets to each of two, and to the witness. On a machine that stands still for a moment
    // the bridge takes the line for a narrow one and holds pictures back, so it may take more than one look.
    let is_alike = || {
        let results = run_text("witness", SECOND, &["--witness", command]);
        let sample = sample(&results["entries"][1]);
        let seen = &sample["witness"][0];
        sample["summary"]["received"] == 160 && seen["packets"] == 80 && seen["lost"] == 0
    };
    assert!((0..LOOKS_MAX).any(|_| is_alike()), "the witness and the bots see the same");
}

#[test]
fn a_machine_with_too_few_files_is_told_which_limit_and_how_to_raise_it() {
    let line = format!("ulimit -n 60 && exec {} smoke", env!("CARGO_BIN_EXE_loadtest"));
    let output = Command::new("sh").args(["-c", &line]).output().expect("a shell");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("140 open files"), "{error}");
    assert!(error.contains("RLIMIT_NOFILE") && error.contains("ulimit -n 140"), "{error}");
}

#[test]
fn a_scenario_that_is_none_is_refused_with_a_sentence() {
    for (name, said) in
        [("no-such-scenario", "there is no scenario no-such-scenario"), ("Cargo.toml", "unknown field")]
    {
        let output =
            Command::new(env!("CARGO_BIN_EXE_loadtest")).arg(name).output().expect("the tool starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(said), "{error}");
    }
}
