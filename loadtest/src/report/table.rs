//! The results as a table of text: a line for each row and server, medians with their intervals, and why runs do not
//! count.

use super::{growth, shards};
use crate::run::NULL;
use crate::run::result::{Estimate, Outcome, Results, Sample};
use crate::run::storm::{STEPS, Storm};
use std::fmt::Write;

/// Reasons that are told for each row and server; the JSON has all.
const REASONS_MAX: usize = 3;

const HEAD: [&str; 11] = [
    "row",
    "server",
    "runs",
    "packets/s",
    "µs/packet",
    "ratio",
    "signaling µs",
    "latency p50",
    "p99 ms",
    "spread p99",
    "kB/conn",
];

/// The table with everything that is needed to read it.
pub(crate) fn text(results: &Results) -> String {
    let mut out = String::new();
    // Writing to a String never fails.
    let _ = writeln!(out, "{}\n{}", results.scenario.title, results.machine);
    for (name, version) in &results.versions {
        let _ = writeln!(out, "{name}: {version}");
    }
    let first = results.scenario.peers.first().map_or("", String::as_str);
    let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
    let mut notes = Vec::new();
    for (row, described) in results.scenario.rows.iter().enumerate() {
        for server in results.servers() {
            lines.push(line(results, row, &described.name(), server, first));
            let reasons = reasons(results, row, server);
            let more = reasons.len().saturating_sub(REASONS_MAX);
            for reason in reasons.into_iter().take(REASONS_MAX) {
                notes.push(format!("{}, {server}: {reason}", described.name()));
            }
            if more > 0 {
                notes.push(format!("{}, {server}: and {more} more", described.name()));
            }
        }
    }
    out.push_str(&columns(&lines));
    for note in notes {
        let _ = writeln!(out, "- {note}");
    }
    let _ = writeln!(
        out,
        "Median [interval] of the runs that count; the ratio is to {first}, round by round. \"{NULL}\" is no \
         server: a thread that opens and keeps what comes, seals it for each subscriber and sends it, and nothing else."
    );
    out.push_str(&storms(results, first));
    out.push_str(&growth::text(results));
    out.push_str(&shards::text(results));
    out
}

const STORM_HEAD: [&str; 11] = [
    "row",
    "server",
    "runs",
    "joins/s a core",
    "ratio",
    "without forwarding",
    "wait p50",
    "p99 ms",
    "ratio",
    "room's p99 before, meanwhile, afterwards ms",
    "meanwhile to before",
];

/// Rows in which people joined; nothing where there are none.
fn storms(results: &Results, first: &str) -> String {
    let rows: Vec<usize> =
        (0..results.scenario.rows.len()).filter(|row| results.scenario.rows[*row].joins > 0).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut lines = vec![STORM_HEAD.map(str::to_owned).to_vec()];
    let mut steps = vec![["row", "server"].iter().chain(&STEPS).map(|head| (*head).to_owned()).collect()];
    for row in rows {
        for server in &results.scenario.peers {
            lines.push(storm_line(results, row, server, first));
            steps.push(steps_line(results, row, server));
        }
    }
    format!(
        "\n{}Joins a second that one core of the server takes, all of its processes and forwarding counted; the wait is \
         from due to the end of a key frame.\n\n{}What of the wait each step took, in ms: median, 99th percentile.\n",
        columns(&lines),
        columns(&steps)
    )
}

fn steps_line(results: &Results, row: usize, server: &str) -> Vec<String> {
    let step = |step: usize| {
        let of = |at: usize| {
            let of =
                move |sample: &Sample| sample.storm.as_ref().map_or(f64::NAN, |it| it.steps_ms[step][at]);
            results.figure(row, server, of).map_or("-".into(), |it| format!("{:.2}", it.median))
        };
        format!("{}, {}", of(0), of(1))
    };
    let named = [results.scenario.rows[row].name(), server.to_owned()];
    named.into_iter().chain((0..STEPS.len()).map(step)).collect()
}

fn storm_line(results: &Results, row: usize, server: &str, first: &str) -> Vec<String> {
    let all = results.entries.iter().filter(|entry| entry.row == row && entry.peer == server).count();
    // A row of this kind has a storm in each of its samples.
    let of = |of: fn(&Storm) -> f64| move |sample: &Sample| sample.storm.as_ref().map_or(f64::NAN, of);
    let figure = |value: fn(&Storm) -> f64| results.figure(row, server, of(value));
    let ratio =
        |value: fn(&Storm) -> f64| if server == first { None } else { results.ratio(row, server, of(value)) };
    let plain = |value: fn(&Storm) -> f64| figure(value).map_or("-".into(), |it| format!("{:.2}", it.median));
    vec![
        results.scenario.rows[row].name(),
        server.to_owned(),
        format!("{}/{all}", results.samples(row, server).count()),
        with_interval(figure(Storm::joins_per_core)),
        with_interval(ratio(Storm::joins_per_core)),
        plain(Storm::net_joins_per_core),
        plain(|storm| storm.wait_ms[0]),
        with_interval(figure(|storm| storm.wait_ms[1])),
        with_interval(ratio(|storm| storm.wait_ms[1])),
        format!(
            "{}, {}, {}",
            plain(|storm| storm.room_p99_ms[0]),
            plain(|storm| storm.room_p99_ms[1]),
            plain(|storm| storm.room_p99_ms[2])
        ),
        with_interval(figure(Storm::slowdown)),
    ]
}

fn line(results: &Results, row: usize, name: &str, server: &str, first: &str) -> Vec<String> {
    let all = results.entries.iter().filter(|entry| entry.row == row && entry.peer == server).count();
    let figure = |of: fn(&Sample) -> f64| results.figure(row, server, of);
    let plain = |of: fn(&Sample) -> f64, digits| {
        figure(of).map_or("-".into(), |it| format!("{:.digits$}", it.median))
    };
    let ratio = if server == first { None } else { results.ratio(row, server, Sample::cpu_ns_per_packet) };
    vec![
        name.to_owned(),
        server.to_owned(),
        format!("{}/{all}", results.samples(row, server).count()),
        plain(Sample::packets_per_second, 0),
        with_interval(figure(|sample| sample.cpu_ns_per_packet() / 1e3)),
        with_interval(ratio),
        plain(|sample| sample.cpu_ns[3] as f64 / sample.summary.received.max(1) as f64 / 1e3, 2),
        plain(|sample| sample.summary.latency_ns[0] as f64 / 1e6, 2),
        with_interval(figure(|sample| sample.summary.latency_ns[1] as f64 / 1e6)),
        plain(|sample| sample.summary.spread_ns[1] as f64 / 1e6, 2),
        plain(|sample| sample.memory_bytes_per_connection() / 1e3, 0),
    ]
}

pub(super) fn with_interval(estimate: Option<Estimate>) -> String {
    match estimate {
        None => "-".into(),
        Some(it) if it.count == 1 => format!("{:.2}", it.median),
        Some(it) => format!("{:.2} [{:.2}, {:.2}]", it.median, it.low, it.high),
    }
}

/// Why runs do not count, each with how often.
fn reasons(results: &Results, row: usize, server: &str) -> Vec<String> {
    let of_it = results.entries.iter().filter(|entry| entry.row == row && entry.peer == server);
    let why = of_it.filter_map(|entry| match &entry.outcome {
        Outcome::Counts(_) => None,
        Outcome::Void(why, _) => Some(format!("round {} void: {}", entry.round + 1, why.join(", "))),
        Outcome::Failed(why) => Some(format!("round {} failed: {why}", entry.round + 1)),
    });
    why.collect()
}

pub(super) fn columns(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines.first().map_or(0, Vec::len)).map(width).collect();
    let mut out = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::run::result::Entry;
    use crate::run::storm::tests::storm;
    use crate::scenario::Scenario;
    use crate::traffic::ledger::Summary;

    /// Two rows and two servers; the second costs a quarter of the first.
    pub(crate) fn results() -> Results {
        let scenario = Scenario::parse(
            "title = \"Two & two\"\npeers = [\"mediasoup\", \"asamblea\"]\npairs = 2\n[traffic]\npace = \"even\"\n\
             packets_per_frame = 8\nframes_per_second = 25\n[[rows]]\nsubscribers = 10\n[[rows]]\nsubscribers = 50",
        );
        let mut results = Results::new(&scenario.unwrap(), "two".into());
        for row in 0..2 {
            for (peer, ns) in [("mediasoup", 16_000), ("asamblea", 4_000)] {
                for round in 0..2 {
                    let outcome = Outcome::Counts(sample(1_000, ns * (1 + u64::from(round))));
                    results.entries.push(Entry { row, peer: peer.into(), round, outcome });
                }
            }
        }
        results
    }

    pub(crate) fn sample(received: u64, ns_each: u64) -> Sample {
        Sample {
            seconds: 1.0,
            summary: Summary {
                received,
                expected: received,
                latency_ns: [1_000_000; 3],
                ..Summary::default()
            },
            cpu_ns: [received * ns_each, 0, 0, 0, received * ns_each, 0],
            driver_own: 0.1,
            driver_busy: 0.1,
            server_core_busy: 0.1,
            slip_ns: [0; 2],
            unsent: 0,
            memory_bytes: [0, 1_000],
            connections: 1,
            with_feedback: 1,
            cipher: None,
            first_frame_ms: [1.0; 2],
            key_frames_asked: 0,
            resends_answered: 0,
            resends_asked: 0,
            unstamped: 0,
            undecryptable: 0,
            contradictions: 0,
            storm: None,
            witness: None,
        }
    }

    #[test]
    fn a_storm_has_a_line_of_its_own() {
        let mut results = results();
        assert!(!text(&results).contains("joins/s"));
        results.scenario.rows[1].joins = 500;
        for entry in &mut results.entries {
            let Outcome::Counts(sample) = &mut entry.outcome else { continue };
            let cpu_ns = if entry.peer == "mediasoup" { 6_000_000_000 } else { 2_000_000_000 };
            sample.storm = (entry.row == 1).then(|| Storm { cpu_ns, ..storm() });
        }
        let text = text(&results);
        for part in [
            "250.00 [250.00, 250.00]",
            "3.00 [3.00, 3.00]",
            "500.00",
            "0.50, 0.60, 0.70",
            "1.20 [1.20",
            "5.00, 9.00",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_ratio_is_that_of_each_round() {
        let text = text(&results());
        assert!(text.contains("0.25 [0.25, 0.25]"), "{text}");
        assert!(text.contains("24.00 [16.00, 32.00]"), "{text}");
    }

    #[test]
    fn a_run_that_does_not_count_is_not_in_the_median_and_says_why() {
        let mut results = results();
        let limits = results.scenario.limits;
        let mut bad = sample(900, 1);
        bad.summary.expected = 1_000;
        bad.driver_busy = 0.9;
        bad.slip_ns = [2_000_000, 3_000_000];
        let why = bad.voids(&limits);
        assert_eq!(why.len(), 3);
        results.entries[3].outcome = Outcome::Void(why, bad);
        let text = text(&results);
        assert!(text.contains("1/2"), "{text}");
        assert!(text.contains("90 % busy") && text.contains("10.000 % of packets are lost"), "{text}");
    }
}
