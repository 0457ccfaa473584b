//! The packet path allocates nothing once its buffers have grown, and who only listens takes little memory: the benchmarks of
//! the heart count, and this holds them to it.

use std::process::Command;

#[test]
fn nothing_is_allocated_per_forwarded_packet() {
    for burst in ["1", "8"] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(["forward", "--subscribers", "20", "--frames", "50", "--rounds", "2", "--burst", burst])
            .output()
            .expect("the benchmark starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("(0 allocations, 0 bytes)"), "{said}");
    }
}

/// The heart's part of what a listener takes, kB. Each has a microphone, a camera of three layers and a screen described, as
/// browsers do; a part of the publisher's history and of the buffers is in it.
const KB_OF_A_LISTENER_MAX: f64 = 25.0;

#[test]
fn who_only_listens_takes_little_memory() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["listeners", "--listeners", "60", "--seconds", "1"])
        .output()
        .expect("the benchmark starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kb = said.lines().find_map(|line| line.strip_prefix("memory: ")?.split_once(" kB")?.0.parse().ok());
    let kb: f64 = kb.unwrap_or_else(|| panic!("{said}"));
    assert!(kb > 0.0 && kb <= KB_OF_A_LISTENER_MAX, "{said}");
}
