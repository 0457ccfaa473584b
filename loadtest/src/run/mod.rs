//! A scenario from its first server to its results: rows in turn, the servers of each interleaved, so that what the
//! machine does meanwhile meets all of them alike.

mod null;
pub(crate) mod result;
mod row;
mod stage;
pub(crate) mod storm;
mod window;
pub(crate) mod witness;

use crate::peers;
use crate::place::{self, Place};
use crate::report;
use crate::scenario::{Scenario, Where};
use result::{Entry, Outcome, Results, Sample};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Servers have the first core, the driver the second.
pub(crate) const SERVER_CORE: usize = 0;
pub(crate) const DRIVER_CORE: usize = 1;

/// The name under which a run without a server is noted.
pub(crate) const NULL: &str = "null";

/// What the command line may change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Where results go.
    pub(crate) out: Option<PathBuf>,
    /// In place of the scenario's.
    pub(crate) pairs: Option<u32>,
    /// In place of the scenario's.
    pub(crate) peers: Vec<String>,
    /// May Debian packages and npm modules be installed.
    pub(crate) may_install: bool,
    /// A program that watches beside the bots.
    pub(crate) witness: Option<String>,
}

/// Runs a scenario.
///
/// # Errors
/// Why it could not be run at all; a row that fails is noted and does not end the run.
pub(crate) fn run(name: &str, options: &Options) -> anyhow::Result<()> {
    let (mut scenario, path) = Scenario::load(name)?;
    if let Some(pairs) = options.pairs {
        scenario.pairs = pairs;
    }
    if !options.peers.is_empty() {
        scenario.peers.clone_from(&options.peers);
    }
    scenario.check_files(asamblea_sfu_io::batch::raise_descriptor_limit()?)?;
    let mut servers = Vec::new();
    for name in &scenario.peers {
        let mut peer = peers::by_name(name)?;
        peer.prepare(options.may_install)?;
        servers.push(peer);
    }
    let place = match scenario.place {
        Where::Loopback => Place::loopback()?,
        Where::Namespace => {
            place::enter()?;
            Place::namespace()?
        }
    };
    place::end_on_signals()?;
    let mut results = Results::new(&scenario, path.file_stem().unwrap_or_default().to_string_lossy().into());
    crate::driver::pin(DRIVER_CORE)?;
    for peer in &servers {
        results.versions.push((peer.name().to_owned(), peer.version()?));
    }
    let mut progress = Progress::new(&scenario);
    for (index, row) in scenario.rows.iter().enumerate() {
        for round in 0..scenario.pairs {
            progress.say(&row.name(), NULL, round + 1);
            let null = outcome(&scenario, null::run(&scenario, row, &place));
            progress.note(&null);
            results.entries.push(Entry { row: index, peer: NULL.into(), round, outcome: null });
            let count = servers.len();
            for turn in 0..count {
                // Each second round goes the other way, so that no server always comes after the same one.
                let peer = &mut servers[if round % 2 == 0 { turn } else { count - 1 - turn }];
                progress.say(&row.name(), peer.name(), round + 1);
                let outcome = outcome(
                    &scenario,
                    row::run(&scenario, row, peer.as_mut(), &place, options.witness.as_deref()),
                );
                progress.note(&outcome);
                results.entries.push(Entry { row: index, peer: peer.name().into(), round, outcome });
            }
        }
    }
    drop(place);
    let out = options.out.clone().unwrap_or_else(|| default_folder(&results.scenario_name));
    report::write(&results, &out)?;
    println!("{}", report::table::text(&results));
    println!("Written to {}.", out.display());
    Ok(())
}

fn outcome(scenario: &Scenario, sample: anyhow::Result<Sample>) -> Outcome {
    match sample {
        Ok(sample) => {
            let why = sample.voids(&scenario.limits);
            if why.is_empty() { Outcome::Counts(sample) } else { Outcome::Void(why, sample) }
        }
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

fn default_folder(name: &str) -> PathBuf {
    let seconds = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    Path::new("target/loadtest").join(format!("{name}-{seconds}"))
}

/// Says how far it is: one line that changes on a terminal, lines otherwise.
struct Progress {
    runs: u32,
    done: u32,
    start: Instant,
    each: Duration,
    is_terminal: bool,
}

impl Progress {
    fn new(scenario: &Scenario) -> Self {
        let rows = scenario.rows.len() as u32;
        let runs = rows * scenario.pairs * (scenario.peers.len() as u32 + 1);
        let each = Duration::from_secs(u64::from(scenario.warm_up_s + scenario.measure_s) + 4);
        Self { runs, done: 0, start: Instant::now(), each, is_terminal: std::io::stderr().is_terminal() }
    }

    fn say(&mut self, row: &str, peer: &str, pair: u32) {
        let each = match self.done {
            0 => self.each,
            done => self.start.elapsed() / done,
        };
        let minutes = (each * (self.runs - self.done)).as_secs().div_ceil(60);
        let pair = if pair > 0 { format!(", round {pair}") } else { String::new() };
        self.done += 1;
        let line = format!(
            "{}/{} {row}: {peer}{pair}; about {minutes} min left, Ctrl-C ends it",
            self.done, self.runs
        );
        match self.is_terminal {
            true => eprint!("\r\x1b[2K{line}"),
            false => eprintln!("{line}"),
        }
        if self.is_terminal && self.done == self.runs {
            eprintln!();
        }
    }

    fn note(&self, outcome: &Outcome) {
        let line = match outcome {
            Outcome::Counts(sample) => format!("    {}", brief(sample)),
            Outcome::Void(why, sample) => format!("    void, {}; {}", why.join(", "), brief(sample)),
            Outcome::Failed(why) => format!("    failed: {why}"),
        };
        let witness = match outcome {
            Outcome::Counts(sample) | Outcome::Void(_, sample) => sample.witness.as_ref(),
            Outcome::Failed(_) => None,
        };
        let line = match witness {
            Some((_, said)) => format!("{line}\n    {said}"),
            None => line,
        };
        match self.is_terminal {
            true => eprintln!("\r\x1b[2K{line}"),
            false => eprintln!("{line}"),
        }
    }
}

fn brief(sample: &Sample) -> String {
    format!(
        "{:.2} µs/packet, {:.0} packets/s, latency p50 {:.2} p99 {:.2} ms, driver's core {:.0} % busy, {:.0} % with it",
        sample.cpu_ns_per_packet() / 1e3,
        sample.packets_per_second(),
        sample.summary.latency_ns[0] as f64 / 1e6,
        sample.summary.latency_ns[1] as f64 / 1e6,
        sample.driver_busy * 100.0,
        sample.driver_own * 100.0
    )
}
