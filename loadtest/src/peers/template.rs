//! How another server is added.
//!
//! 1. A file beside this one, with three types: what implements [`Peer`](super::Peer) (what is to be installed, its
//!    version, how it starts), [`Running`](super::Running) (its processes, a connection to its API for each bot) and
//!    [`Session`](super::Session) (publish, subscribe, prefer). `mediasoup.rs` is the shorter example.
//! 2. A line in [`by_name`](super::by_name).
//! 3. `cargo run -p loadtest -- peer NAME` until it prints what the server costs and ends with nothing left.
//!
//! What it has to hold to, so that its row can stand beside the others:
//!
//! - **Started through [`Place::spawn`](crate::place::Place::spawn)**, which pins it to the core, keeps its output
//!   and ends it with all its descendants. No daemon: what it forks away is not counted and may outlive the run.
//! - **Announces [`Place::server_address`](crate::place::Place::server_address)** and no other, over UDP in the range
//!   of [`ServerOptions`](super::ServerOptions), with no STUN or TURN server: there is no way out of the namespace.
//! - **Ready when `start` returns**: wait for a line of its output
//!   ([`Process::wait_for`](crate::place::Process::wait_for)) or for its API to take a connection, with
//!   `START_LIMIT`, not for a time to pass.
//! - **Opus and VP8**, no recording, no transcoding, no key frames that nobody asked for, no limit on bit rates, and
//!   transport-wide feedback exactly as `ServerOptions::feedback` says: a test of the answer is part of `peer NAME`.
//! - **Configured as its makers advise for one core**; whatever else is changed from its defaults stands in the file
//!   with its reason, and in the report.
//! - **Says which threads only carry signaling**
//!   ([`Process::with_signaling`](crate::place::Process::with_signaling)) if it names them.
//! - **Refuses with a sentence** that says what to do: [`install`](super::install) does for packages of Debian and npm.
//!
//! Who offers is the server's choice. Where bots offer to receive (WHEP and its like), `subscribe` asks
//! [`Negotiate::create_offer`](super::Negotiate::create_offer) for as many m-lines as there are feeds and hands the
//! answer to [`Negotiate::accept_answer`](super::Negotiate::accept_answer); where the server offers, as both present
//! ones do, it calls [`Negotiate::answer_offer`](super::Negotiate::answer_offer).
