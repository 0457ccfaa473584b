//! One run of one row: a fresh server, bots that join it, media until all flow, a window, the end.

use super::SERVER_CORE;
use super::result::{CPU_PARTS, Sample};
use super::stage::{CONNECT_MAX, Muted, Stage};
use super::storm;
use super::window::{SECOND_NS, Window};
use super::witness::{self, Witness};
use crate::bot::connection::Connection;
use crate::driver::Driver;
use crate::peers::check::PORTS;
use crate::peers::{FeedId, Peer, Running, ServerOptions, Session, Track};
use crate::place::Place;
use crate::scenario::{Row, Scenario, Transport};
use crate::traffic::Kind;
use anyhow::{Context, bail};
use std::time::{Duration, Instant};

/// Between the end of setting up and the first packet.
pub(super) const LEAD_NS: u64 = 100_000_000;

/// After the window, for what is still under way.
pub(super) const DRAIN_NS: u64 = 500_000_000;

/// How long it may take until everyone gets what they asked for, beyond the warm-up.
const FLOW_MAX: Duration = Duration::from_secs(20);

/// Runs a row.
///
/// # Errors
/// What kept it from coming to a result, with the server's or the bots' own words.
pub(crate) fn run(
    scenario: &Scenario,
    row: &Row,
    peer: &mut dyn Peer,
    place: &Place,
    witness: Option<&str>,
) -> anyhow::Result<Sample> {
    let Transport { feedback, repair, .. } = scenario.transport;
    let options = ServerOptions { feedback, repair, ports: PORTS };
    let server = peer.start(place, SERVER_CORE, &options)?;
    run_with(scenario, row, server.as_ref(), place, witness).map_err(|error| {
        match server.processes().first() {
            Some(process) => process.explain(&format!("{error:#}")),
            None => error,
        }
    })
}

fn run_with(
    scenario: &Scenario,
    row: &Row,
    server: &dyn Running,
    place: &Place,
    witness: Option<&str>,
) -> anyhow::Result<Sample> {
    let stage = Stage::new(scenario, row);
    let epoch = Instant::now();
    let addresses = (place.driver_address(), place.server_address());
    let mut driver = stage.driver(scenario, addresses, epoch)?;
    let before = memory(server)?;
    let mut meeting = Meeting::default();
    meeting.publish(&stage, server, &mut driver)?;
    meeting.mute(&stage, server, &mut driver)?;
    meeting.subscribe(scenario, &stage, server, &mut driver)?;
    connect(&mut driver)?;

    let start_ns = driver.now_ns() + LEAD_NS;
    driver.start_sending(start_ns);
    wait_for_flow(scenario, &stage, &mut driver, start_ns)?;

    let lead_ns = witness.map_or(LEAD_NS, |_| witness::LEAD.as_nanos() as u64);
    let from_ns = driver.now_ns() + lead_ns;
    let to_ns = Window::end_ns(from_ns, scenario.measure_s);
    let watched = meeting.feeds.first().and_then(|feeds| feeds.last()).context("a stream to watch")?;
    let witness = witness
        .map(|command| Witness::start(command, place, server, watched, &driver, (from_ns, to_ns)))
        .transpose()?;
    let window = Window::pass(&mut driver, from_ns, scenario.measure_s, || cpu(server))?;
    let after = memory(server)?;
    driver.run_until(window.to_ns + DRAIN_NS, |_| false)?;

    let is_whole = scenario.traffic.layers == 1;
    let due = |stream: u32| window.due(&driver, stream);
    let summary = driver.ledger.summary(due, is_whole, stage.flows());
    let heard = witness.map(|witness| witness.hear()).transpose()?;
    let heard = heard.map(|heard| {
        let said = heard.beside(&summary, stage.flows() as u32);
        (heard, said)
    });
    let first_frame_ms = meeting.first_frames_ms(&driver, start_ns);
    let storm = match row.joins {
        0 => None,
        _ => Some(storm::run(scenario, row, &stage, server, &mut driver, &mut meeting)?),
    };
    let counters = driver.counters();
    let residents = driver.bots[..stage.bots].iter();
    let connections: Vec<&Connection> = residents.flat_map(|bot| bot.connections()).collect();
    let sample = Sample {
        seconds: window.seconds,
        summary,
        cpu_ns: window.cpu_ns,
        driver_own: window.driver_own,
        driver_busy: window.driver_busy,
        server_core_busy: window.server_core_busy,
        slip_ns: window.slip_ns,
        unsent: window.unsent,
        memory_bytes: [before, after],
        connections: connections.len() as u32,
        with_feedback: connections.iter().filter(|connection| connection.has_feedback()).count() as u32,
        cipher: connections.iter().find_map(|connection| connection.cipher()),
        first_frame_ms,
        key_frames_asked: counters.key_frames_asked,
        resends_answered: counters.resends_answered,
        resends_asked: counters.resends_asked,
        unstamped: counters.unstamped,
        undecryptable: counters.undecryptable,
        contradictions: match scenario.transport.open_one_in {
            // Everything was opened, so nothing was named wrongly by a slot that carries another stream now.
            1 => 0,
            _ => connections.iter().map(|connection| connection.contradictions()).sum(),
        },
        storm,
        witness: heard,
    };
    driver.close();
    Ok(sample)
}

/// The bots' memberships, kept while the row lasts.
#[derive(Default)]
pub(super) struct Meeting {
    pub(super) sessions: Vec<(usize, Box<dyn Session>)>,
    /// What each publisher's lines are called.
    pub(super) feeds: Vec<Vec<FeedId>>,
    /// When each subscriber had asked, by bot.
    asked_ns: Vec<(usize, u64)>,
}

impl Meeting {
    fn publish(&mut self, stage: &Stage, server: &dyn Running, driver: &mut Driver) -> anyhow::Result<()> {
        for publisher in &stage.publishers {
            let feeds =
                self.publish_one(server, driver, (publisher.bot, publisher.room), &publisher.lines, true)?;
            self.feeds.push(feeds);
        }
        Ok(())
    }

    /// Those who have published and send nothing.
    fn mute(&mut self, stage: &Stage, server: &dyn Running, driver: &mut Driver) -> anyhow::Result<()> {
        for muted in &stage.muted {
            self.publish_one(server, driver, (muted.bot, muted.room), &Muted::lines(), false)?;
        }
        Ok(())
    }

    fn publish_one(
        &mut self,
        server: &dyn Running,
        driver: &mut Driver,
        (bot, room): (usize, usize),
        lines: &[(Kind, Vec<usize>)],
        is_active: bool,
    ) -> anyhow::Result<Vec<FeedId>> {
        let mut session = server.session().context("a publisher's session")?;
        let offer = driver.bots[bot].offer(lines, 0, 0)?;
        let track = |(kind, streams): &(Kind, Vec<usize>)| Track {
            kind: *kind,
            layers: streams.len() as u8,
            is_active,
        };
        let tracks: Vec<Track> = lines.iter().map(track).collect();
        let published = session.publish(&room_name(room), &offer, &tracks).context("publishing")?;
        driver.accept_answer(bot, &published.answer).context("the server's answer")?;
        self.sessions.push((bot, session));
        driver.run_for(Duration::ZERO)?;
        Ok(published.feeds)
    }

    fn subscribe(
        &mut self,
        scenario: &Scenario,
        stage: &Stage,
        server: &dyn Running,
        driver: &mut Driver,
    ) -> anyhow::Result<()> {
        connect(driver).context("publishers")?;
        for subscriber in &stage.subscribers {
            let known = self.sessions.iter().position(|(bot, _)| *bot == subscriber.bot);
            let at = match known {
                Some(at) => at,
                None => {
                    self.sessions.push((subscriber.bot, server.session().context("a subscriber's session")?));
                    self.sessions.len() - 1
                }
            };
            let feeds: Vec<FeedId> =
                subscriber.of.iter().flat_map(|publisher| self.feeds[*publisher].iter().cloned()).collect();
            let session = &mut self.sessions[at].1;
            self.asked_ns.push((subscriber.bot, driver.now_ns()));
            let room = room_name(subscriber.room);
            session.subscribe(&room, &feeds, &mut driver.bots[subscriber.bot]).context("subscribing")?;
            if let Some(layer) = scenario.traffic.prefer {
                let videos = subscriber.of.iter().filter_map(|publisher| self.feeds[*publisher].last());
                for feed in videos {
                    session.prefer(feed, layer).context("asking for a layer")?;
                }
            }
            driver.run_for(Duration::ZERO)?;
        }
        Ok(())
    }

    /// From asking, or from the first packet where that came later, to the first decodable frame: median and maximum.
    fn first_frames_ms(&self, driver: &Driver, start_ns: u64) -> [f64; 2] {
        let asked = |bot: usize| self.asked_ns.iter().find(|(known, _)| *known == bot).map(|(_, ns)| *ns);
        let wait = |(bot, _, at_ns): (usize, u32, u64)| Some(at_ns.saturating_sub(asked(bot)?.max(start_ns)));
        let mut waits: Vec<u64> = driver.ledger.first_decodable_ns().filter_map(wait).collect();
        waits.sort_unstable();
        let at = |index: usize| waits.get(index).map_or(f64::NAN, |ns| *ns as f64 / 1e6);
        [at(waits.len() / 2), at(waits.len().saturating_sub(1))]
    }
}

pub(super) fn room_name(room: usize) -> String {
    format!("room-{room}")
}

/// Waits until all bots so far have their keys.
fn connect(driver: &mut Driver) -> anyhow::Result<()> {
    let is_there =
        |driver: &mut Driver| driver.bots.iter().filter(|bot| bot.is_open()).all(|bot| bot.is_connected());
    let end_ns = driver.now_ns() + CONNECT_MAX.as_nanos() as u64;
    let mut failure = None;
    let is_done = |driver: &mut Driver| {
        failure = driver.bots.iter().find_map(|bot| bot.failure().map(str::to_owned));
        failure.is_some() || is_there(driver)
    };
    let is_done = driver.run_until(end_ns, is_done)?;
    if let Some(failure) = failure {
        bail!("a bot does not connect: {failure}");
    }
    if !is_done {
        let missing = driver.bots.iter().filter(|bot| bot.is_open() && !bot.is_connected()).count();
        bail!("{missing} bots have no connection after {} s", CONNECT_MAX.as_secs());
    }
    Ok(())
}

/// Lets media flow for the warm-up, and on until every subscription has a frame that can be decoded.
fn wait_for_flow(
    scenario: &Scenario,
    stage: &Stage,
    driver: &mut Driver,
    start_ns: u64,
) -> anyhow::Result<()> {
    driver.run_until(start_ns + u64::from(scenario.warm_up_s) * SECOND_NS, |_| false)?;
    let wanted = stage.flows();
    let end_ns = driver.now_ns() + FLOW_MAX.as_nanos() as u64;
    let is_done = driver.run_until(end_ns, |driver| driver.ledger.flowing().1 >= wanted)?;
    if !is_done {
        let (flowing, decodable) = driver.ledger.flowing();
        bail!(
            "of {wanted} subscriptions {flowing} get something and {decodable} had a key frame, {} s after the first packet",
            (driver.now_ns() - start_ns) / SECOND_NS
        );
    }
    Ok(())
}

/// CPU time of all processes, as [`Sample::cpu_ns`].
pub(super) fn cpu(server: &dyn Running) -> anyhow::Result<[u64; CPU_PARTS]> {
    let mut sum = [0; CPU_PARTS];
    for process in server.processes() {
        let time = process.cpu()?;
        let [first, second] = time.shards_ns;
        let parts = [time.total_ns, time.user_ns, time.system_ns, time.signaling_ns, first, second];
        for (sum, part) in sum.iter_mut().zip(parts) {
            *sum += part;
        }
    }
    Ok(sum)
}

fn memory(server: &dyn Running) -> anyhow::Result<u64> {
    let each = server.processes().iter().map(|process| Ok(process.memory()?.private_bytes));
    each.sum::<anyhow::Result<u64>>()
}
