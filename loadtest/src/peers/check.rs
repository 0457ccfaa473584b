//! A look at one server: is it there, does it start, does it take a publisher and a subscriber, does all of it end.
//!
//! Only signaling: what is offered and answered is written beforehand, and nobody connects to the candidates.

use super::{FeedId, Kind, Negotiate, Running, ServerOptions, Track, by_name};
use crate::place::{self, Place};
use anyhow::bail;
use std::ops::RangeInclusive;
use std::time::Instant;

/// Away from the ports that Linux hands out by itself.
pub(crate) const PORTS: RangeInclusive<u16> = 20_000..=29_999;

/// An offer as browsers make them, cut down to what servers read: a microphone, and a camera in three sizes.
const OFFER: &str = include_str!("check.sdp");
const TRACKS: [Track; 2] = [
    Track { kind: Kind::Audio, layers: 1, is_active: true },
    Track { kind: Kind::Video, layers: 3, is_active: true },
];
const ROOM: &str = "check";
const TRANSPORT_CC: &str = "transport-wide-cc";

/// What is looked at, and where.
pub(crate) struct Check {
    /// As scenarios call the server.
    pub(crate) name: String,
    /// The core that it gets.
    pub(crate) core: usize,
    /// Whether what is missing is installed.
    pub(crate) may_install: bool,
    /// On loopback instead of in a namespace.
    pub(crate) is_on_loopback: bool,
}

/// Prints what the server is and what it costs to have it with one publisher.
pub(crate) fn run(check: &Check) -> anyhow::Result<()> {
    let mut peer = by_name(&check.name)?;
    peer.prepare(check.may_install)?;
    if !check.is_on_loopback {
        place::enter()?;
    }
    place::end_on_signals()?;
    println!("{}: {}", peer.name(), peer.version()?);
    let place = if check.is_on_loopback { Place::loopback()? } else { Place::namespace()? };
    println!("Servers have {}, bots {}.", place.server_address(), place.driver_address());
    for feedback in [true, false] {
        let began = Instant::now();
        let running =
            peer.start(&place, check.core, &ServerOptions { feedback, repair: true, ports: PORTS })?;
        let word = if feedback { "on" } else { "off" };
        println!("Started in {} ms, transport-wide feedback {word}.", began.elapsed().as_millis());
        let address = place.server_address().to_string();
        // Janus gives feeds only of those whose connection is up.
        let may_subscribe = check.name != "janus";
        if let Err(error) = negotiate(running.as_ref(), feedback, &address, may_subscribe) {
            bail!(running.processes()[0].explain(&format!("fails: {error:#}")));
        }
        print_costs(running.as_ref(), check.core)?;
    }
    Ok(())
}

fn negotiate(
    running: &dyn Running,
    feedback: bool,
    address: &str,
    may_subscribe: bool,
) -> anyhow::Result<()> {
    let mut session = running.session()?;
    let published = session.publish(ROOM, &OFFER.replace('\n', "\r\n"), &TRACKS)?;
    expect(&published.answer, feedback, address)?;
    if !published.answer.contains("a=simulcast:recv ") {
        bail!("it takes no simulcast:\n{}", published.answer);
    }
    println!("It takes a publisher; feeds are called {:?} and the like.", published.feeds[0].0);
    let mut bot = Canned { feedback, address: address.to_owned() };
    if may_subscribe {
        let mut subscriber = running.session()?;
        subscriber.subscribe(ROOM, &published.feeds, &mut bot)?;
        subscriber.prefer(&published.feeds[1], 0)?;
        println!("It takes a subscriber.");
    }
    let unknown = FeedId("nobody/0".to_owned());
    if running.session()?.subscribe(ROOM, &[unknown], &mut bot).is_ok() {
        bail!("it gives a feed that nobody publishes");
    }
    Ok(())
}

fn expect(description: &str, feedback: bool, address: &str) -> anyhow::Result<()> {
    if description.contains(TRANSPORT_CC) != feedback {
        bail!("transport-wide feedback is not as it was told:\n{description}");
    }
    let is_candidate =
        |line: &str| line.starts_with("a=candidate:") && line.contains(&format!(" {address} "));
    if !description.lines().any(is_candidate) {
        bail!("there is no candidate with {address}:\n{description}");
    }
    Ok(())
}

/// Answers offers with the names of nobody.
struct Canned {
    feedback: bool,
    address: String,
}

impl Negotiate for Canned {
    fn create_offer(&mut self, _receive_audio: usize, _receive_video: usize) -> anyhow::Result<String> {
        bail!("there is no offer at hand; write one where a server needs it")
    }

    fn accept_answer(&mut self, _answer: &str) -> anyhow::Result<()> {
        bail!("nothing was offered")
    }

    /// The offer turned round: what it sends is received, by someone else.
    fn answer_offer(&mut self, offer: &str) -> anyhow::Result<String> {
        expect(offer, self.feedback, &self.address)?;
        let own: Vec<&str> = OFFER.lines().collect();
        let own_line =
            |name: &str| own.iter().find(|line| line.starts_with(name)).copied().unwrap_or_default();
        let lines = offer.lines().filter_map(|line| {
            let name = line.split_inclusive(':').next().unwrap_or(line);
            match name {
                "a=sendonly" => Some("a=recvonly"),
                "a=ice-ufrag:" | "a=ice-pwd:" | "a=fingerprint:" => Some(own_line(name)),
                "a=setup:" => Some("a=setup:active"),
                "a=candidate:" | "a=ssrc:" | "a=ssrc-group:" | "a=msid:" | "a=ice-lite" => None,
                "a=end-of-candidates" => None,
                _ => Some(line),
            }
        });
        Ok(lines.map(|line| format!("{line}\r\n")).collect())
    }
}

fn print_costs(running: &dyn Running, core: usize) -> anyhow::Result<()> {
    for process in running.processes() {
        let (cpu, memory) = (process.cpu()?, process.memory()?);
        let ms = |ns: u64| ns as f64 / 1e6;
        let (total, signaling) = (ms(cpu.total_ns), ms(cpu.signaling_ns));
        let (user, system) = (ms(cpu.user_ns), ms(cpu.system_ns));
        println!(
            "Process {}: {total:.1} ms on core {core}, {signaling:.1} of them signaling; by ticks {user:.0} user, \
             {system:.0} system.",
            process.pid()
        );
        let kib = |bytes: u64| bytes / 1_024;
        let (private, pss, rss) = (kib(memory.private_bytes), kib(memory.pss_bytes), kib(memory.rss_bytes));
        println!("Memory: {private} KiB private, {pss} KiB proportional, {rss} KiB resident.");
    }
    Ok(())
}
