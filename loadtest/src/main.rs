//! The load tester: `cargo run --release -p loadtest -- SCENARIO` runs servers and bots side by side and says what
//! each forwarded packet costs and how late it comes. It also has benchmarks of the media heart that send nothing.
//!
//! Follow **a run**: [`scenario`] says what is wanted, [`run`] takes its rows in turn, [`place`] and [`peers`] have
//! the servers, [`bot`] and [`driver`] the other end, [`traffic`] what is sent and what became of it, [`report`] the
//! results. Nothing is ever sent beyond loopback or the tool's own network namespace.

mod bot;
mod client;
mod driver;
mod heart;
mod peers;
mod place;
mod report;
mod run;
mod scenario;
mod traffic;

use clap::{Args, Parser, Subcommand};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::path::PathBuf;

/// Counts what is allocated, so that "nothing per packet" is a figure and not a hope.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Parser)]
#[command(
    about = "Load tester, and benchmarks of the media heart",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Option<Benchmark>,
    #[command(flatten)]
    run: Run,
}

#[derive(Args)]
struct Run {
    /// A scenario file, or the name of one in loadtest/scenarios.
    #[arg(required = true)]
    scenario: Option<String>,
    /// Folder for the results [default: target/loadtest/SCENARIO-TIME]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Rounds, in place of the scenario's `pairs`.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: Option<u32>,
    /// Servers, in place of the scenario's; may be repeated or separated by commas.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Install what servers need and is not there: Debian packages, npm modules.
    #[arg(long)]
    install: bool,
    /// A program that watches the first stream beside the bots, with its arguments: whether both see the same.
    #[arg(long, value_name = "COMMAND")]
    witness: Option<String>,
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
    /// What people cost the heart who are sent little, feedback and the room's own ticks included.
    Listeners {
        /// How many people watch the one who sends.
        #[arg(long, default_value_t = 999)]
        listeners: u16,
        /// How many more are there, watch nobody and have their microphones and cameras off.
        #[arg(long, default_value_t = 0)]
        muted: u16,
        /// Packets a second to all of them together.
        #[arg(long, default_value_t = 10_000)]
        packets_per_second: u32,
        /// Packets of one frame, which arrive in one batch.
        #[arg(long, default_value_t = 8)]
        burst: u16,
        /// Seconds of virtual time that are counted.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
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
    let Arguments { benchmark, run } = Arguments::parse();
    let Some(benchmark) = benchmark else {
        let Run { scenario, out, pairs, peers, install, witness } = run;
        let options = run::Options { out, pairs, peers, may_install: install, witness };
        return run::run(&scenario.unwrap_or_default(), &options);
    };
    match benchmark {
        Benchmark::Forward { subscribers, burst, packet_bytes, frames, rounds } => {
            heart::forward(&heart::Forward { subscribers, burst, packet_bytes, frames, rounds })
        }
        Benchmark::Listeners { listeners, muted, packets_per_second, burst, seconds } => {
            heart::listeners(&heart::Listeners { listeners, muted, packets_per_second, burst, seconds })
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
