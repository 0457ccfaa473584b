//! A figure against the size of the rows, as SVG: a line for each server through its medians, a bar for the interval.
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

struct Curve<'a> {
    name: &'a str,
    points: Vec<(f64, Estimate)>,
}

/// The picture; `None` where no server has two rows.
pub(super) fn svg(results: &Results, figure: &Figure) -> Option<String> {
    let curves: Vec<Curve<'_>> = results
        .scenario
        .peers
        .iter()
        .map(|peer| {
            let point = |row: usize| Some((size(results, row), results.figure(row, peer, figure.of)?));
            let mut points: Vec<_> = (0..results.scenario.rows.len()).filter_map(point).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Curve { name: peer, points }
        })
        .collect();
    if curves.iter().all(|curve| curve.points.len() < 2) {
        return None;
    }
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let x_max = all().map(|(x, _)| *x).fold(1.0, f64::max);
    let step = round_step(all().map(|(_, y)| y.high).fold(f64::MIN_POSITIVE, f64::max) / 5.0);
    let y_max = step * 5.0;
    let x = |value: f64| FRAME[0] + value / x_max * (FRAME[2] - FRAME[0]);
    let y = |value: f64| FRAME[3] - value / y_max * (FRAME[3] - FRAME[1]);

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
    let mut sizes: Vec<f64> = all().map(|(x, _)| *x).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let mut written_at = f64::NEG_INFINITY;
    for size in sizes {
        // Labels that would lie on each other are left out.
        if x(size) - written_at > 34.0 {
            text(&mut out, x(size), FRAME[3] + 18.0, "middle", &short(size));
            written_at = x(size);
        }
    }
    text(&mut out, (FRAME[0] + FRAME[2]) / 2.0, FRAME[3] + 40.0, "middle", axis(results));
    for (index, curve) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<String> =
            curve.points.iter().map(|(at, it)| format!("{:.1},{:.1}", x(*at), y(it.median))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        for (at, it) in &curve.points {
            let _ = writeln!(
                out,
                "<line x1=\"{0:.1}\" y1=\"{1:.1}\" x2=\"{0:.1}\" y2=\"{2:.1}\" stroke=\"{colour}\"/>\
                 <circle cx=\"{0:.1}\" cy=\"{3:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(*at),
                y(it.low),
                y(it.high),
                y(it.median)
            );
        }
        let at = FRAME[1] + 18.0 * index as f64;
        let _ = writeln!(
            out,
            "<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>",
            FRAME[2] + 16.0,
            at - 10.0
        );
        text(&mut out, FRAME[2] + 34.0, at, "start", curve.name);
    }
    out.push_str("</svg>\n");
    Some(out)
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
    let traffic = &results.scenario.traffic;
    let frames = described.frames_per_second.unwrap_or(traffic.frames_per_second);
    let flows = described.rooms * described.publishers * described.watchers();
    f64::from(frames * traffic.packets_per_frame) * f64::from(flows)
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
    fn one_row_is_no_curve() {
        let mut results = results();
        results.scenario.rows.pop();
        results.entries.retain(|entry| entry.row == 0);
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
