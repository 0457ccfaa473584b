//! What a run leaves behind: a table for people, everything as JSON, plots of cost and latency against size.

mod growth;
mod plot;
mod shards;
pub(crate) mod table;

use crate::run::result::{Results, Sample};
use anyhow::Context;
use std::path::Path;

/// A figure that is plotted, in its unit.
struct Figure {
    file: &'static str,
    title: &'static str,
    unit: &'static str,
    of: fn(&Sample) -> f64,
}

const FIGURES: [Figure; 4] = [
    Figure {
        file: "cost",
        title: "Server CPU for each forwarded packet",
        unit: "µs",
        of: |sample| sample.cpu_ns_per_packet() / 1e3,
    },
    Figure {
        file: "latency",
        title: "From due to arrival, 99th percentile",
        unit: "ms",
        of: |sample| sample.summary.latency_ns[1] as f64 / 1e6,
    },
    Figure {
        file: "spread",
        title: "Last behind first subscriber, 99th percentile",
        unit: "ms",
        of: |sample| sample.summary.spread_ns[1] as f64 / 1e6,
    },
    Figure {
        file: "memory",
        title: "Server memory for each connection",
        unit: "kB",
        of: |sample| sample.memory_bytes_per_connection() / 1e3,
    },
];

/// Writes all files of a run into a folder, which is made.
///
/// # Errors
/// What the file system said.
pub(crate) fn write(results: &Results, folder: &Path) -> anyhow::Result<()> {
    let context = || format!("writing to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(context)?;
    let json = serde_json::to_string_pretty(results)?;
    std::fs::write(folder.join("results.json"), json).with_context(context)?;
    std::fs::write(folder.join("table.txt"), table::text(results)).with_context(context)?;
    for figure in &FIGURES {
        // What no run that counts has is no picture.
        if let Some(svg) = plot::svg(results, figure) {
            std::fs::write(folder.join(format!("{}.svg", figure.file)), svg).with_context(context)?;
        }
    }
    Ok(())
}
