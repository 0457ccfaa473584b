//! The binary: see [`asamblea::run`].

fn main() -> std::process::ExitCode {
    asamblea::run()
}
