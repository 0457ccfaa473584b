//! Independent clients for testing the bridge: what a browser does on the wire, written without the bridge's code.

pub mod bot;
mod keys;
pub mod netem;
pub mod peer;
pub mod stamp;
pub mod turn;
pub mod world;
