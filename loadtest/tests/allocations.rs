//! The packet path allocates nothing once its buffers have grown: the benchmark of the heart counts, and this holds it
//! to zero.

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
