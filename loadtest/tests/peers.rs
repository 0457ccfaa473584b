//! Each server to compare with starts, negotiates and ends, where it is installed. Nothing is installed for it.

use std::process::Command;

/// Runs `loadtest peer NAME`; gives what it printed, or nothing where the server or a namespace is not to be had.
fn check(name: &str) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["peer", name])
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("the load tester starts");
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // What it says before it starts anything.
    let is_refused = ["--install", "MEDIASOUP_WORKER_BIN", "may not make one", "is missing"];
    if said.is_empty() && is_refused.iter().any(|words| complained.contains(words)) {
        println!("Left out: {complained}");
        return None;
    }
    assert!(output.status.success(), "{said}{complained}");
    Some(said.into_owned())
}

/// With feedback and without, by what each says.
fn assert_both(said: &str, subscribers: usize) {
    assert_eq!(said.matches("It takes a publisher").count(), 2, "{said}");
    assert_eq!(said.matches("It takes a subscriber").count(), subscribers, "{said}");
    assert_eq!(said.matches("KiB private").count(), 2, "{said}");
}

#[test]
fn janus_negotiates_with_feedback_and_without() {
    if let Some(said) = check("janus") {
        assert_both(&said, 0);
    }
}

#[test]
fn mediasoup_negotiates_with_feedback_and_without() {
    if let Some(said) = check("mediasoup") {
        assert_both(&said, 2);
    }
}
