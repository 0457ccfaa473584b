//! The media plane's shell: sockets, threads, the clock and the random source around the heart of
//! `asamblea-sfu-core`.
#![deny(unsafe_code)] // but for batch.rs and slice.rs

pub mod batch;
pub mod carrier;
pub mod crossing;
pub mod listener;
pub mod path;
pub mod plane;
pub mod port;
pub mod shard;
mod slice;
pub mod stats;
pub mod turn;
