//! A look at one server: is it there, does it start, does it take a publisher, does all of it end.

use super::{Kind, ServerOptions, Track, by_name};
use crate::place::{self, Place};
use std::ops::RangeInclusive;
use std::time::Instant;

/// Away from the ports that Linux hands out by itself.
pub(crate) const PORTS: RangeInclusive<u16> = 20_000..=29_999;

/// An offer as browsers make them, cut down to what servers read: a microphone, and a camera in three sizes.
const OFFER: &str = include_str!("check.sdp");
const TRACKS: [Track; 2] = [Track { kind: Kind::Audio, layers: 1 }, Track { kind: Kind::Video, layers: 3 }];

/// Prints what the server is and what it costs to have it with one publisher.
pub(crate) fn run(name: &str, core: usize, may_install: bool) -> anyhow::Result<()> {
    let mut peer = by_name(name)?;
    peer.prepare(may_install)?;
    place::enter()?;
    place::end_on_signals()?;
    println!("{}", peer.version()?);
    let place = Place::namespace()?;
    println!("Servers have {}, bots {}.", place.server_address(), place.driver_address());
    for feedback in [true, false] {
        let began = Instant::now();
        let mut running = peer.start(&place, core, &ServerOptions { feedback, ports: PORTS })?;
        println!(
            "Started in {} ms, feedback {}.",
            began.elapsed().as_millis(),
            if feedback { "on" } else { "off" }
        );
        let mut session = running.session()?;
        let published = session
            .publish("check", &OFFER.replace('\n', "\r\n"), &TRACKS)
            .map_err(|error| running.processes()[0].explain(&format!("{error:#}")))?;
        let has_feedback = published.answer.contains("transport-wide-cc");
        println!(
            "Publishes {:?}; the answer {} transport-wide feedback.",
            published.feeds,
            if has_feedback { "has" } else { "has no" }
        );
        if has_feedback != feedback {
            anyhow::bail!("the answer does not do as it was told:\n{}", published.answer);
        }
        for process in running.processes() {
            let (cpu, memory) = (process.cpu()?, process.memory()?);
            println!(
                "Process {}: {:.1} ms on core {core}, {:.1} of them signaling ({:.0} user, {:.0} system); {} kB private, {} kB in all.",
                process.pid(),
                cpu.total_ns as f64 / 1e6,
                cpu.signaling_ns as f64 / 1e6,
                cpu.user_ns as f64 / 1e6,
                cpu.system_ns as f64 / 1e6,
                memory.private_bytes / 1_024,
                memory.rss_bytes / 1_024,
            );
        }
    }
    Ok(())
}
