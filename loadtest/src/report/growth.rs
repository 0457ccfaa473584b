//! What rows of different size say together: how a server's cost grows, and what those cost who are merely there.

use super::table::{columns, with_interval};
use crate::run::result::{Estimate, Results, Sample, estimate};
use crate::scenario::Row;

/// Rows that a line is drawn through, at the least: two would always lie on one.
const ROWS_MIN: usize = 3;

/// Everything that can be said; nothing where rows are not made for it.
pub(super) fn text(results: &Results) -> String {
    let mut out = String::new();
    let exponents: Vec<(&str, Option<Estimate>)> =
        results.scenario.peers.iter().map(|peer| (peer.as_str(), exponent(results, peer))).collect();
    if exponents.iter().any(|(_, exponent)| exponent.is_some()) {
        let mut lines = vec![vec!["server".to_owned(), "exponent of all CPU over subscribers".to_owned()]];
        lines.extend(exponents.iter().map(|(peer, it)| vec![(*peer).to_owned(), with_interval(*it)]));
        out += &format!("\n{}", columns(&lines));
    }
    let growths = growths(results);
    if growths.len() > 1 {
        out += &format!(
            "\n{}CPU of a packet as a ratio to the first row's, at the same rate.\n",
            columns(&growths)
        );
    }
    let muted = muted(results);
    if muted.len() > 1 {
        out += &format!(
            "\n{}What the row without them costs is taken off; active ones are those who send and those who watch.\n",
            columns(&muted)
        );
    }
    out
}

/// Whether two rows are the same but for how many watch.
fn differ_in_subscribers(one: &Row, other: &Row) -> bool {
    let rest = |row: &Row| Row { subscribers: 0, ..*row };
    rest(one) == rest(other) && one.subscribers != other.subscribers
}

/// The exponent of the power law that a server's whole CPU follows over the number of subscribers, where rows differ in
/// nothing else: the slope of logarithms by least squares, round by round.
fn exponent(results: &Results, peer: &str) -> Option<Estimate> {
    let rows = &results.scenario.rows;
    let (first, others) = rows.split_first()?;
    if rows.len() < ROWS_MIN || !others.iter().all(|row| differ_in_subscribers(first, row)) {
        return None;
    }
    let of_round = |round: u32| {
        let point = |(at, row): (usize, &Row)| {
            let (_, sample) = results.samples(at, peer).find(|(other, _)| *other == round)?;
            Some((f64::from(row.subscribers), cpu_share(sample)))
        };
        let points: Vec<(f64, f64)> = rows.iter().enumerate().filter_map(point).collect();
        (points.len() >= ROWS_MIN).then(|| slope(&points))
    };
    estimate(&(0..results.scenario.pairs).filter_map(of_round).collect::<Vec<_>>())
}

/// The slope of a line through the logarithms, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let logs = || points.iter().map(|(x, y)| (x.ln(), y.ln()));
    let count = points.len() as f64;
    let (mean_x, mean_y) =
        (logs().map(|(x, _)| x).sum::<f64>() / count, logs().map(|(_, y)| y).sum::<f64>() / count);
    let with_y: f64 = logs().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let with_x: f64 = logs().map(|(x, _)| (x - mean_x).powi(2)).sum();
    with_y / with_x
}

/// CPU of all server processes as a share of a core.
fn cpu_share(sample: &Sample) -> f64 {
    sample.cpu_ns[0] as f64 / 1e9 / sample.seconds
}

/// Packets that a row has forwarded each second by design.
fn rate(results: &Results, row: &Row) -> f64 {
    let traffic = results.scenario.traffic.of(row);
    let flows = f64::from(row.rooms) * f64::from(row.publishers) * f64::from(row.watchers());
    flows * traffic.frames_per_second * f64::from(traffic.packets_per_frame)
}

/// How far rates may differ that count as the same: whole frames do not divide every rate.
const SAME_RATE: f64 = 0.02;

/// For rows of the same rate and rising size: the cost of a packet as a ratio to that in the first row.
fn growths(results: &Results) -> Vec<Vec<String>> {
    let mut lines = vec![["row", "server", "growth"].map(str::to_owned).to_vec()];
    let Some((first, others)) = results.scenario.rows.split_first() else { return lines };
    for (at, row) in others.iter().enumerate() {
        let is_same = (rate(results, row) / rate(results, first) - 1.0).abs() < SAME_RATE;
        if !is_same || row.bots() <= first.bots() || row.muted != first.muted || row.joins > 0 {
            continue;
        }
        for peer in results.servers() {
            let growth = over(results, peer, (0, at + 1), |small, large| {
                large.cpu_ns_per_packet() / small.cpu_ns_per_packet()
            });
            lines.push(vec![row.name(), peer.to_owned(), with_interval(growth)]);
        }
    }
    lines
}

/// For rows that have muted people and a row without that is the same otherwise: CPU of a muted one in µs a second, and as
/// a share of an active one's in percent.
fn muted(results: &Results) -> Vec<Vec<String>> {
    let mut lines =
        vec![["row", "server", "a muted one's CPU µs/s", "% of an active one's"].map(str::to_owned).to_vec()];
    let rows = &results.scenario.rows;
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| row.muted > 0) {
        let Some(without) = rows.iter().position(|other| *other == Row { muted: 0, ..*row }) else {
            continue;
        };
        let count = f64::from(row.rooms * row.muted);
        let active = f64::from(rows[without].bots());
        let each = |before: &Sample, after: &Sample| (cpu_share(after) - cpu_share(before)) / count;
        for peer in &results.scenario.peers {
            let cost = over(results, peer, (without, at), |before, after| each(before, after) * 1e6);
            let share = over(results, peer, (without, at), |before, after| {
                each(before, after) / (cpu_share(before) / active) * 100.0
            });
            lines.push(vec![row.name(), peer.clone(), with_interval(cost), with_interval(share)]);
        }
    }
    lines
}

/// A figure of two rows together, round by round.
fn over(
    results: &Results,
    peer: &str,
    (one, other): (usize, usize),
    of: impl Fn(&Sample, &Sample) -> f64,
) -> Option<Estimate> {
    let pair = |(round, first): (u32, &Sample)| {
        let (_, second) = results.samples(other, peer).find(|(it, _)| *it == round)?;
        Some(of(first, second))
    };
    estimate(&results.samples(one, peer).filter_map(pair).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::sample;
    use super::*;
    use crate::run::result::{Entry, Outcome};
    use crate::scenario::Scenario;

    /// Results of one round; `cpu_ns` of each row in a second, for 1,000 packets.
    fn results(rows: &str, cpu_ns: &[u64]) -> Results {
        let scenario = Scenario::parse(&format!(
            "title = \"t\"\npeers = [\"asamblea\"]\npairs = 1\n[traffic]\npace = \"even\"\npackets_per_frame = 8\n\
             frames_per_second = 25\n{rows}"
        ));
        let mut results = Results::new(&scenario.unwrap(), "t".into());
        assert_eq!(results.scenario.rows.len(), cpu_ns.len());
        for (row, cpu_ns) in cpu_ns.iter().enumerate() {
            let outcome = Outcome::Counts(sample(1_000, cpu_ns / 1_000));
            results.entries.push(Entry { row, peer: "asamblea".into(), round: 0, outcome });
        }
        results
    }

    #[test]
    fn the_slope_is_that_of_least_squares() {
        let law: Vec<(f64, f64)> = [10.0, 30.0, 1_000.0].map(|x: f64| (x, 3.0 * x.powf(0.9))).to_vec();
        assert!((slope(&law) - 0.9).abs() < 1e-9);
        // By hand: logs (0, 0), (1, 2), (2, 1) have slope 1/2.
        let e = std::f64::consts::E;
        assert!((slope(&[(1.0, 1.0), (e, e * e), (e * e, e)]) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn an_exponent_is_given_where_only_subscribers_differ() {
        let rows = "[[rows]]\nsubscribers = 10\n[[rows]]\nsubscribers = 100\n[[rows]]\nsubscribers = 1000";
        let found = results(rows, &[1_000_000, 10_000_000, 100_000_000]);
        assert!(text(&found).contains("asamblea  1.00"), "{}", text(&found));
        let mixed = rows.replace("subscribers = 100\n", "subscribers = 100\nframes_per_second = 5\n");
        assert_eq!(text(&results(&mixed, &[1_000_000, 10_000_000, 100_000_000])), "");
    }

    #[test]
    fn the_cost_of_a_packet_is_compared_at_the_same_rate() {
        let rows = "[[rows]]\nsubscribers = 10\nframes_per_second = 100\n[[rows]]\nsubscribers = 100\n\
                    frames_per_second = 10\n[[rows]]\nsubscribers = 200\nframes_per_second = 10";
        let said = text(&results(rows, &[4_000_000, 5_000_000, 9_000_000]));
        assert!(said.contains("1 to 100  asamblea  1.25"), "{said}");
        assert!(!said.contains("1 to 200"), "twice the rate: {said}");
    }

    #[test]
    fn a_muted_ones_cost_is_what_they_add() {
        let rows =
            "[[rows]]\npublishers = 10\nmutual = true\n[[rows]]\npublishers = 10\nmutual = true\nmuted = 100";
        // Ten active ones cost 50 ms a second, 5 each; a hundred muted ones add 5 ms, 50 µs each.
        let said = text(&results(rows, &[50_000_000, 55_000_000]));
        assert!(said.contains("asamblea  50.00                   1.00"), "{said}");
    }
}
