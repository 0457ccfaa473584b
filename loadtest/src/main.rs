//! Benchmarks of the media heart. `cargo run --release -p loadtest -- --help` lists them.
//!
//! Nothing here sends a packet: the heart is driven in memory. What the kernel adds is measured elsewhere.

mod client;
mod heart;
mod peers;
mod place;

use clap::{Parser, Subcommand};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;

/// Counts what is allocated, so that "nothing per packet" is a figure and not a hope.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Parser)]
#[command(about = "Benchmarks of the media heart")]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// CPU time, allocations and packets per GSO run for each forwarded packet.
    Forward {
        /// How many people watch the one who sends.
        #[arg(long, default_value_t = 50)]
        subscribers: u16,
        /// Packets of one frame, which arrive in one batch.
        #[arg(long, default_value_t = 8)]
        burst: u16,
        /// Bytes of each RTP packet before sealing.
        #[arg(long, default_value_t = 1_100)]
        packet_bytes: usize,
        /// Frames of one round.
        #[arg(long, default_value_t = 400)]
        frames: u16,
        /// Rounds; minimum, median and maximum are given.
        #[arg(long, default_value_t = 15)]
        rounds: u16,
    },
    /// Heap bytes of each participant in a meeting where everyone sends and watches.
    Memory {
        /// How many people are in it.
        #[arg(long, default_value_t = 12)]
        people: u16,
    },
    /// A look at a server to compare with: starts it in a network namespace, publishes to it, says what it costs.
    #[command(hide = true)]
    Peer {
        /// janus or mediasoup.
        name: String,
        /// The core that it gets.
        #[arg(long, default_value_t = 0)]
        core: usize,
        /// Install what it needs and is not there.
        #[arg(long)]
        install: bool,
        /// On loopback instead of in a namespace.
        #[arg(long)]
        loopback: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().benchmark {
        Benchmark::Forward { subscribers, burst, packet_bytes, frames, rounds } => {
            heart::forward(&heart::Forward { subscribers, burst, packet_bytes, frames, rounds })
        }
        Benchmark::Memory { people } => heart::memory(people),
        Benchmark::Peer { name, core, install, loopback } => peers::check::run(&peers::check::Check {
            name,
            core,
            may_install: install,
            is_on_loopback: loopback,
        }),
    }
}
