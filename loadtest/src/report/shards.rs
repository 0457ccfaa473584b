//! What forwarding threads do one by one, where a server has several: how evenly they share the work, and at which rate the
//! busiest would fill its core.

use super::table::{columns, with_interval};
use crate::run::result::{Results, Sample};

const HEAD: [&str; 6] =
    ["row", "server", "first thread µs/packet", "second", "packets/s at which the busier is full", "ratio"];

/// A line for each row and server; nothing where no server has a second thread.
pub(super) fn text(results: &Results) -> String {
    let has_second = |(_, sample): (u32, &Sample)| sample.shard_ns_per_packet()[1] > 0.0;
    let rows = 0..results.scenario.rows.len();
    let rows: Vec<usize> = rows
        .filter(|row| results.scenario.peers.iter().any(|peer| results.samples(*row, peer).any(has_second)))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let first = results.scenario.peers.first().map_or("", String::as_str);
    let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
    for row in rows {
        for server in &results.scenario.peers {
            let figure = |of: fn(&Sample) -> f64| with_interval(results.figure(row, server, of));
            let ratio = if server == first {
                None
            } else {
                results.ratio(row, server, Sample::packets_per_second_at_full)
            };
            lines.push(vec![
                results.scenario.rows[row].name(),
                server.clone(),
                figure(|sample| sample.shard_ns_per_packet()[0] / 1e3),
                figure(|sample| sample.shard_ns_per_packet()[1] / 1e3),
                figure(Sample::packets_per_second_at_full),
                with_interval(ratio),
            ]);
        }
    }
    format!(
        "\n{}Packets are all that anyone was sent. The rate is worked out of CPU time: no core was full.\n",
        columns(&lines)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::table::tests::results;
    use crate::run::result::Outcome;

    #[test]
    fn the_busier_of_two_threads_decides() {
        let mut results = results();
        assert_eq!(text(&results), "", "one thread each");
        for entry in &mut results.entries {
            let Outcome::Counts(sample) = &mut entry.outcome else { continue };
            // 10 µs with one thread; 4 and 5 with two.
            let each = if entry.peer == "mediasoup" { [10_000, 0] } else { [4_000, 5_000] };
            sample.cpu_ns[4..].copy_from_slice(&each.map(|ns| ns * sample.summary.received));
        }
        let text = text(&results);
        assert!(text.contains("2.00 [2.00, 2.00]"), "{text}");
        assert!(text.contains("200000.00 [") && text.contains("5.00 [5.00, 5.00]"), "{text}");
    }
}
