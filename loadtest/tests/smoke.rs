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

/// Runs a scenario and returns its results.
fn run(name: &str) -> (PathBuf, Value) {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("smoke-{}", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .arg(name)
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
    let (out, results) = run("smoke");
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
