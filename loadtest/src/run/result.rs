//! What a run of a row came to, and what several of them say together.

use super::storm::Storm;
use super::witness::Testimony;
use crate::bot::secure::Cipher;
use crate::place::{self, SHARDS};
use crate::scenario::{Limits, Scenario};
use crate::traffic::ledger::Summary;
use serde::Serialize;

/// Figures of CPU time in a sample.
pub(crate) const CPU_PARTS: usize = 4 + SHARDS;

/// One run of one row with one server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// The window in seconds.
    pub(crate) seconds: f64,
    /// What arrived.
    pub(crate) summary: Summary,
    /// CPU time of all server processes within the window, in ns: all, user, system, and of all that of threads
    /// that only carry signaling, and that of each forwarding thread with a number.
    pub(crate) cpu_ns: [u64; CPU_PARTS],
    /// Share of its core that the driver's thread used itself.
    pub(crate) driver_own: f64,
    /// Busy share of the driver's core and of the server's, whoever used them.
    pub(crate) driver_busy: f64,
    /// See `driver_busy`.
    pub(crate) server_core_busy: f64,
    /// How late packets left: 99th percentile and maximum in ns.
    pub(crate) slip_ns: [u64; 2],
    /// Packets that the kernel did not take from the driver.
    pub(crate) unsent: u64,
    /// Memory of the server in bytes (resident, less what it shares): before the first bot and at the window's end.
    pub(crate) memory_bytes: [u64; 2],
    /// Connections of bots, and how many of them have transport-wide feedback on what they receive.
    pub(crate) connections: u32,
    /// See `connections`.
    pub(crate) with_feedback: u32,
    /// What was negotiated.
    pub(crate) cipher: Option<Cipher>,
    /// From asking to the end of the first key frame, in ms: median and maximum over subscriptions.
    pub(crate) first_frame_ms: [f64; 2],
    /// Key frames that the server asked for, packets that it asked for again, that bots asked it for again.
    pub(crate) key_frames_asked: u64,
    /// See `key_frames_asked`.
    pub(crate) resends_answered: u64,
    /// See `key_frames_asked`.
    pub(crate) resends_asked: u64,
    /// Media without a stamp: probes and padding.
    pub(crate) unstamped: u64,
    /// Media that could not be opened.
    pub(crate) undecryptable: u64,
    /// Packets that contradicted how those that were not opened had been named.
    pub(crate) contradictions: u64,
    /// What became of those who joined while it ran.
    pub(crate) storm: Option<Storm>,
    /// What a witness saw, and a sentence that puts it beside what the bots did.
    pub(crate) witness: Option<(Testimony, String)>,
}

impl Sample {
    /// Server CPU for each forwarded packet.
    pub(crate) fn cpu_ns_per_packet(&self) -> f64 {
        self.cpu_ns[0] as f64 / self.summary.received.max(1) as f64
    }

    /// CPU time of each forwarding thread for each packet that anyone was sent, in ns; 0 for one that is not there.
    pub(crate) fn shard_ns_per_packet(&self) -> [f64; SHARDS] {
        std::array::from_fn(|shard| {
            self.cpu_ns[CPU_PARTS - SHARDS + shard] as f64 / self.summary.received.max(1) as f64
        })
    }

    /// Packets each second at which the busiest forwarding thread would fill its core, if each had one.
    pub(crate) fn packets_per_second_at_full(&self) -> f64 {
        let busiest = self.shard_ns_per_packet().into_iter().fold(0.0, f64::max);
        if busiest > 0.0 { 1e9 / busiest } else { f64::NAN }
    }

    /// Forwarded packets each second.
    pub(crate) fn packets_per_second(&self) -> f64 {
        self.summary.received as f64 / self.seconds
    }

    /// Share of packets that did not arrive.
    pub(crate) fn loss(&self) -> f64 {
        1.0 - self.summary.received as f64 / self.summary.expected.max(1) as f64
    }

    /// Server memory for each connection.
    pub(crate) fn memory_bytes_per_connection(&self) -> f64 {
        self.memory_bytes[1].saturating_sub(self.memory_bytes[0]) as f64 / f64::from(self.connections.max(1))
    }

    /// Why it does not count; empty if it does. With injected loss only packets that were not repaired are lost.
    pub(crate) fn voids(&self, limits: &Limits) -> Vec<String> {
        let mut why = Vec::new();
        let percent = |share: f64| format!("{:.3} %", share * 100.0);
        // The core's clock looks at ticks only, and what runs between two of them it does not see.
        if self.driver_busy.max(self.driver_own) > limits.driver_busy {
            let (all, own) = (self.driver_busy * 100.0, self.driver_own * 100.0);
            why.push(format!("the driver's core is {all:.0} % busy, {own:.0} % with the driver"));
        }
        if self.slip_ns[0] as f64 / 1e6 > limits.send_slip_ms {
            why.push(format!("packets leave {:.2} ms late (p99)", self.slip_ns[0] as f64 / 1e6));
        }
        if self.unsent > 0 {
            why.push(format!("{} packets did not leave", self.unsent));
        }
        if self.loss() > limits.loss {
            why.push(format!("{} of packets are lost", percent(self.loss())));
        }
        if self.summary.silent_flows > 0 {
            why.push(format!("{} subscriptions got nothing", self.summary.silent_flows));
        }
        if self.contradictions > 0 || self.summary.strangers > 0 || self.undecryptable > 0 {
            why.push("packets came that nobody had sent so".into());
        }
        if let Some(storm) = &self.storm {
            why.extend(storm.voids(limits));
        }
        why
    }
}

/// What became of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It counts.
    Counts(Sample),
    /// It does not, for these reasons.
    Void(Vec<String>, Sample),
    /// It did not come to a result.
    Failed(String),
}

/// One entry of the results.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    /// Index of the scenario's row.
    pub(crate) row: usize,
    pub(crate) peer: String,
    /// Counts from 0; servers with the same number ran one after the other.
    pub(crate) round: u32,
    pub(crate) outcome: Outcome,
}

/// Everything that a run found, and what it was asked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) scenario_name: String,
    pub(crate) scenario: Scenario,
    /// What servers say of themselves.
    pub(crate) versions: Vec<(String, String)>,
    /// The machine: processor and kernel.
    pub(crate) machine: String,
    /// In the order in which they were run.
    pub(crate) entries: Vec<Entry>,
}

impl Results {
    pub(crate) fn new(scenario: &Scenario, scenario_name: String) -> Self {
        let scenario = scenario.clone();
        Self { scenario_name, scenario, versions: Vec::new(), machine: machine(), entries: Vec::new() }
    }

    /// Whoever has runs: no server first, then the servers in their order.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &str> {
        std::iter::once(super::NULL).chain(self.scenario.peers.iter().map(String::as_str))
    }

    /// The runs of one server in one row that count, with their rounds.
    pub(crate) fn samples(&self, row: usize, peer: &str) -> impl Iterator<Item = (u32, &Sample)> {
        let of_it = self.entries.iter().filter(move |entry| entry.row == row && entry.peer == peer);
        of_it.filter_map(|entry| match &entry.outcome {
            Outcome::Counts(sample) => Some((entry.round, sample)),
            Outcome::Void(..) | Outcome::Failed(_) => None,
        })
    }

    /// A figure of one server in one row.
    pub(crate) fn figure(&self, row: usize, peer: &str, of: impl Fn(&Sample) -> f64) -> Option<Estimate> {
        estimate(&self.samples(row, peer).map(|(_, sample)| of(sample)).collect::<Vec<_>>())
    }

    /// That figure as a ratio to the first server's, round by round.
    pub(crate) fn ratio(&self, row: usize, peer: &str, of: impl Fn(&Sample) -> f64) -> Option<Estimate> {
        let first = self.scenario.peers.first()?;
        let ratio = |(round, sample): (u32, &Sample)| {
            let (_, other) = self.samples(row, first).find(|(other, _)| *other == round)?;
            Some(of(sample) / of(other))
        };
        estimate(&self.samples(row, peer).filter_map(ratio).collect::<Vec<_>>())
    }
}

/// What the figures were measured on.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim()));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let priority = if place::has_priority() { "real-time" } else { "usual" };
    let model = model.unwrap_or("unknown processor");
    let delivery = if place::delivers_apart() { "driver's" } else { "sender's" };
    format!(
        "{model}, {cores} cores usable, Linux {}, driver at {priority} priority, packets delivered on the {delivery} core",
        kernel.trim()
    )
}

/// A value with an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// How surely the median of all runs that could be made lies between: from order statistics, which suppose
    /// nothing of how runs scatter.
    pub(crate) coverage: f64,
    pub(crate) count: usize,
}

/// The median with the narrowest symmetric interval of order statistics that covers it at 95 %, or the whole range
/// where there are too few values for that.
pub(crate) fn estimate(values: &[f64]) -> Option<Estimate> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    if count == 0 {
        return None;
    }
    let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
    // The k lowest and k highest are left out: the median is missed with twice P(Binomial(n, 1/2) <= k).
    let coverage = |left_out: usize| {
        let (mut term, mut sum) = (0.5_f64.powi(count as i32), 0.0);
        for k in 0..=left_out {
            sum += term;
            term *= (count - k) as f64 / (k + 1) as f64;
        }
        1.0 - 2.0 * sum
    };
    let mut left_out = 0;
    while left_out + 1 < count.div_ceil(2) && coverage(left_out + 1) >= 0.95 {
        left_out += 1;
    }
    let (low, high) = (sorted[left_out], sorted[count - 1 - left_out]);
    Some(Estimate { median, low, high, coverage: coverage(left_out).max(0.0), count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_values_are_covered_by_their_range_and_twenty_by_less() {
        let seven: Vec<f64> = (1..=7).map(f64::from).collect();
        let found = estimate(&seven).unwrap();
        assert_eq!((found.median, found.low, found.high), (4.0, 1.0, 7.0));
        assert!((found.coverage - (1.0 - 2.0 / 128.0)).abs() < 1e-12);
        let twenty: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        let found = estimate(&twenty).unwrap();
        // Tables of the sign test: 6th to 15th of 20 cover 95.9 %.
        assert_eq!((found.median, found.low, found.high), (10.5, 6.0, 15.0));
        assert!((found.coverage - 0.9586).abs() < 1e-3);
    }

    #[test]
    fn few_values_have_a_range_that_says_how_little_it_covers() {
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[3.0]).unwrap().coverage, 0.0);
        assert_eq!(estimate(&[3.0, f64::NAN, 1.0]).unwrap().coverage, 0.5);
    }
}
