//! A figure against the size of the rows, as SVG: a line for each server through its medians, a bar for the interval. Where
//! rows do not differ in size, or there is one, a bar for each server in each row.
//!
//! Written by hand, since a plotting crate would cost more to compile than this has lines.

use super::Figure;
use crate::run::result::{Estimate, Results};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
/// Left, top, right, bottom of the plot within the picture.
const FRAME: [f64; 4] = [70.0, 50.0, 590.0, 380.0];

/// Okabe and Ito's colours, which people who see few colours tell apart.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"];

/// The picture; `None` where there is no figure.
pub(super) fn svg(results: &Results, figure: &Figure) -> Option<String> {
    let rows = 0..results.scenario.rows.len();
    let curve = |peer: &'_ String| {
        let point = |row: usize| Some((row, results.figure(row, peer, figure.of)?));
        rows.clone().filter_map(point).collect::<Vec<_>>()
    };
    let estimates: Vec<Vec<(usize, Estimate)>> = results.scenario.peers.iter().map(curve).collect();
    let highest = estimates.iter().flatten().map(|(_, it)| it.high).reduce(f64::max)?;
    let step = round_step(highest.max(f64::MIN_POSITIVE) / 5.0);
    let y = |value: f64| FRAME[3] - value / (step * 5.0) * (FRAME[3] - FRAME[1]);

    let mut out = String::new();
    // Writing to a String never fails.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let title = format!("{}: {} ({})", results.scenario.title, figure.title, figure.unit);
    text(&mut out, FRAME[0], 24.0, "start", &title);
    for index in 0..=5 {
        let value = step * f64::from(index);
        let at = y(value);
        let _ = writeln!(
            out,
            "<line x1=\"{}\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>",
            FRAME[0], FRAME[2]
        );
        text(&mut out, FRAME[0] - 8.0, at + 4.0, "end", &short(value));
    }
    for (index, peer) in results.scenario.peers.iter().enumerate() {
        let at = FRAME[1] + 18.0 * index as f64;
        let _ = writeln!(
            out,
            "<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{}\"/>",
            FRAME[2] + 16.0,
            at - 10.0,
            colour(index)
        );
        text(&mut out, FRAME[2] + 34.0, at, "start", peer);
    }
    let mut sizes: Vec<f64> = rows.map(|row| size(results, row)).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    match sizes.len() == results.scenario.rows.len() && sizes.len() > 1 {
        true => curves(&mut out, results, &estimates, &sizes, y),
        false => bars(&mut out, results, &estimates, y),
    }
    out.push_str("</svg>\n");
    Some(out)
}

fn colour(server: usize) -> &'static str {
    COLOURS[server % COLOURS.len()]
}

/// The interval of a figure, as a line from its low to its high end.
fn interval(out: &mut String, x: f64, it: &Estimate, y: impl Fn(f64) -> f64, colour: &str) {
    let (low, high) = (y(it.low), y(it.high));
    // Writing to a String never fails.
    let _ = writeln!(
        out,
        "<line x1=\"{x:.1}\" y1=\"{low:.1}\" x2=\"{x:.1}\" y2=\"{high:.1}\" stroke=\"{colour}\"/>"
    );
}

fn curves(
    out: &mut String,
    results: &Results,
    estimates: &[Vec<(usize, Estimate)>],
    sizes: &[f64],
    y: impl Fn(f64) -> f64 + Copy,
) {
    let x_max = sizes.last().copied().unwrap_or(1.0).max(1.0);
    let x = |value: f64| FRAME[0] + value / x_max * (FRAME[2] - FRAME[0]);
    let mut written_at = f64::NEG_INFINITY;
    for size in sizes {
        // Labels that would lie on each other are left out.
        if x(*size) - written_at > 34.0 {
            text(out, x(*size), FRAME[3] + 18.0, "middle", &short(*size));
            written_at = x(*size);
        }
    }
    text(out, (FRAME[0] + FRAME[2]) / 2.0, FRAME[3] + 40.0, "middle", axis(results));
    for (index, estimates) in estimates.iter().enumerate() {
        let mut points: Vec<(f64, &Estimate)> =
            estimates.iter().map(|(row, it)| (x(size(results, *row)), it)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let line: Vec<String> =
            points.iter().map(|(at, it)| format!("{at:.1},{:.1}", y(it.median))).collect();
        let colour = colour(index);
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        for (at, it) in points {
            interval(out, at, it, y, colour);
            let _ = writeln!(
                out,
                "<circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                y(it.median)
            );
        }
    }
}

fn bars(
    out: &mut String,
    results: &Results,
    estimates: &[Vec<(usize, Estimate)>],
    y: impl Fn(f64) -> f64 + Copy,
) {
    let place = (FRAME[2] - FRAME[0]) / results.scenario.rows.len() as f64;
    // Half a bar's width between rows.
    let width = place / (estimates.len() as f64 + 0.5);
    for (row, described) in results.scenario.rows.iter().enumerate() {
        let left = FRAME[0] + place * row as f64 + width / 4.0;
        // Names of many rows would lie on each other: every second one stands lower.
        let at = FRAME[3] + 18.0 + 16.0 * f64::from(row as u32 % 2);
        text(out, left + place / 2.0 - width / 4.0, at, "middle", &described.name());
        for (server, estimates) in estimates.iter().enumerate() {
            let Some((_, it)) = estimates.iter().find(|(other, _)| *other == row) else { continue };
            let (at, top) = (left + width * server as f64, y(it.median));
            let _ = writeln!(
                out,
                "<rect x=\"{at:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
                width * 0.9,
                FRAME[3] - top,
                colour(server)
            );
            interval(out, at + width * 0.45, it, y, "#000000");
        }
    }
}

/// What rows differ in: packets out where all have as many connections, else connections.
fn varies_in_rate(results: &Results) -> bool {
    let mut bots = results.scenario.rows.iter().map(|row| row.bots());
    let first = bots.next();
    bots.all(|count| Some(count) == first)
}

fn axis(results: &Results) -> &'static str {
    if varies_in_rate(results) { "packets/s out" } else { "bots" }
}

fn size(results: &Results, row: usize) -> f64 {
    let described = &results.scenario.rows[row];
    if !varies_in_rate(results) {
        return f64::from(described.bots());
    }
    let traffic = results.scenario.traffic.of(described);
    let flows = described.rooms * described.publishers * described.watchers();
    traffic.frames_per_second * f64::from(traffic.packets_per_frame) * f64::from(flows)
}

/// The next of 1, 2, 2.5, 5 times a power of ten.
fn round_step(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|step| step * power >= value * 0.999_999);
    step.unwrap_or(10.0) * power
}

fn short(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{} k", value / 1_000.0),
        value if value == value.round() => format!("{value:.0}"),
        value if value >= 0.1 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::super::FIGURES;
    use super::super::table::tests::results;
    use super::*;

    #[test]
    fn a_curve_for_each_server_within_the_frame() {
        let svg = svg(&results(), &FIGURES[0]).unwrap();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("Two &amp; two"));
        // 51 of 51 bots at the right, 32 of 50 µs: the second server's intervals lie a quarter as high.
        assert!(svg.contains("590.0,221.6"), "{svg}");
        assert!(svg.contains("590.0,340.4"), "{svg}");
    }

    #[test]
    fn one_row_has_a_bar_for_each_server() {
        let mut results = results();
        results.scenario.rows.pop();
        results.entries.retain(|entry| entry.row == 0);
        let svg = svg(&results, &FIGURES[0]).unwrap();
        assert!(!svg.contains("<polyline"));
        // Two servers share 520 points, each 208 with the gaps of a quarter of that at either end: 24 of 50 µs, then 6.
        for bar in ["x=\"122.0\" y=\"221.6\" width=\"187.2\" height=\"158.4\"", "height=\"39.6\""] {
            assert!(svg.contains(bar), "{bar}: {svg}");
        }
        assert!(svg.contains("1 to 10"));
    }

    #[test]
    fn rows_of_the_same_size_have_bars_too_and_what_has_no_figure_no_picture() {
        let mut results = results();
        results.scenario.rows[1].subscribers = 10;
        assert!(!svg(&results, &FIGURES[0]).unwrap().contains("<polyline"));
        results.entries.clear();
        assert!(svg(&results, &FIGURES[0]).is_none());
    }

    #[test]
    fn steps_are_round() {
        for (value, step) in
            [(0.9, 1.0), (1.1, 2.0), (2.2, 2.5), (3.0, 5.0), (5.0, 5.0), (7.0, 10.0), (0.03, 0.05)]
        {
            assert!((round_step(value) - step).abs() < 1e-9, "{value}");
        }
    }
}
