//! A witness: another program's client that watches the same stream of the same run as the bots, to tell whether what
//! they saw is what was there. It costs CPU on the driver's core, so runs with one are no measurements.
//!
//! It is told in its environment what to watch and when, and says in one line what it saw:
//!
//! | variable | what |
//! |---|---|
//! | `LOADTEST_SERVER` | where the bridge's signaling is: an address and a port |
//! | `LOADTEST_ROOM` | the meeting's name |
//! | `LOADTEST_MEMBER` | who publishes |
//! | `LOADTEST_EPOCH_US` | the moment from which due times count, in µs since 1970 |
//! | `LOADTEST_FROM_NS`, `LOADTEST_TO_NS` | the window of due times |
//!
//! `witness {"name":"str0m","packets":1000,"lost":0,"latency_ms":[0.6,1.2]}`: media packets of the window, those of
//! them that never came, median and 99th percentile from due to arrival.

use crate::driver::Driver;
use crate::peers::{FeedId, Running};
use crate::place::{Place, Process, Scratch};
use crate::traffic::ledger::Summary;
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between its start and the window: a browser on a busy machine takes some seconds.
pub(super) const LEAD: Duration = Duration::from_secs(12);

/// How long after the window it may take to say what it saw.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// What a witness says.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Testimony {
    /// Who it is.
    pub(crate) name: String,
    /// Media packets of the window, each once.
    pub(crate) packets: u64,
    /// Those of the window that never came.
    pub(crate) lost: u64,
    /// From due to arrival, in ms: median and 99th percentile.
    pub(crate) latency_ms: [f64; 2],
}

impl Testimony {
    fn read(line: &str) -> Option<anyhow::Result<Self>> {
        let json = line.strip_prefix("witness ")?;
        Some(serde_json::from_str(json).with_context(|| format!("the witness says {json}")))
    }

    /// Beside what each bot saw on average.
    pub(crate) fn beside(&self, summary: &Summary, flows: u32) -> String {
        let each = |count: u64| count as f64 / f64::from(flows.max(1));
        let [p50, p99] = self.latency_ms;
        let [bots_p50, bots_p99, _] = summary.latency_ns.map(|ns| ns as f64 / 1e6);
        format!(
            "{} saw {} packets and missed {}, latency p50 {p50:.2} p99 {p99:.2} ms; each bot {:.1} and {:.1}, p50 \
             {bots_p50:.2} p99 {bots_p99:.2} ms",
            self.name,
            self.packets,
            self.lost,
            each(summary.received),
            each(summary.expected - summary.received),
        )
    }
}

/// A started witness; ended when dropped.
pub(super) struct Witness {
    process: Process,
    _folder: Scratch,
}

impl Witness {
    /// Starts one that watches the first feed in the window `from_ns..to_ns`.
    ///
    /// # Errors
    /// When it does not start, or the feed is none of the bridge's.
    pub(super) fn start(
        command: &str,
        place: &Place,
        server: &dyn Running,
        feed: &FeedId,
        driver: &Driver,
        (from_ns, to_ns): (u64, u64),
    ) -> anyhow::Result<Self> {
        let address = server.address();
        ensure!(address.ip().is_loopback(), "a witness watches on loopback: place = \"loopback\"");
        let member = feed.0.split('/').next().filter(|it| it.parse::<u64>().is_ok());
        let member = member.context("a witness speaks the bridge's protocol only: --peers asamblea")?;
        let since_epoch = Duration::from_nanos(driver.now_ns());
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_sub(since_epoch);
        let mut words = command.split_whitespace();
        let mut command = Command::new(words.next().context("the witness has no name")?);
        command
            .args(words)
            .env("LOADTEST_SERVER", address.to_string())
            .env("LOADTEST_ROOM", super::row::room_name(0))
            .env("LOADTEST_MEMBER", member)
            .env("LOADTEST_EPOCH_US", epoch.as_micros().to_string())
            .env("LOADTEST_FROM_NS", from_ns.to_string())
            .env("LOADTEST_TO_NS", to_ns.to_string());
        let folder = Scratch::new()?;
        let process = place.spawn(super::DRIVER_CORE, command, &folder.path().join("witness.log"))?;
        Ok(Self { process, _folder: folder })
    }

    /// What it saw, once the window is over.
    ///
    /// # Errors
    /// With its last words where it says nothing that can be read.
    pub(super) fn hear(&self) -> anyhow::Result<Testimony> {
        self.process.wait_for(ANSWER_LIMIT, Testimony::read)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_many_is_a_testimony() {
        let line = r#"witness {"name":"x","packets":10,"lost":1,"latency_ms":[0.5,2.0]}"#;
        let testimony = Testimony::read(line).unwrap().unwrap();
        assert_eq!((testimony.packets, testimony.lost), (10, 1));
        assert!(Testimony::read("listening").is_none());
        assert!(Testimony::read("witness {}").unwrap().is_err());
        let summary =
            Summary { received: 100, expected: 110, latency_ns: [400_000; 3], ..Summary::default() };
        let said = testimony.beside(&summary, 10);
        assert!(
            said.contains("saw 10 packets and missed 1") && said.contains("each bot 10.0 and 1.0"),
            "{said}"
        );
    }
}
