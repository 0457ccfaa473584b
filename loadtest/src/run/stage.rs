//! Who sends what to whom in a row: streams, their subscribers and their schedules, the same for every server.

use crate::bot::sdp::Features;
use crate::bot::secure::Identity;
use crate::bot::{Bot, BotConfig};
use crate::driver::Driver;
use crate::scenario::{Pacing, Row, Scenario, Traffic};
use crate::traffic::Kind;
use crate::traffic::ledger::Ledger;
use crate::traffic::schedule::{Pace, Schedule};
use crate::traffic::source::{Sources, StreamPlan, splitmix};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECOND_NS: u64 = 1_000_000_000;

/// The tallest layer's picture; each one below has half its width and height.
const WIDTH_PX: u16 = 1_280;
const HEIGHT_PX: u16 = 720;

/// What a bot's header takes of a packet: 12 bytes, the extensions' head of 4, mid (2), rid (2), transport-wide number
/// (3), rounded up to words.
const HEADER_BYTES: usize = 12 + 4 + 8;

/// Opus packets each second, and their RTP packets' bytes at 24 to 48 kbit/s with the header.
const AUDIO_PER_SECOND: u64 = 50;
const AUDIO_BYTES: (usize, usize) = (80, 160);

/// A bot that sends.
pub(crate) struct Publisher {
    pub(crate) bot: usize,
    pub(crate) room: usize,
    /// For each of its lines a kind and the streams in it, smallest layer first.
    pub(crate) lines: Vec<(Kind, Vec<usize>)>,
}

/// A bot that receives from these publishers.
pub(crate) struct Subscriber {
    pub(crate) bot: usize,
    pub(crate) room: usize,
    pub(crate) of: Vec<usize>,
}

/// A bot that has published a microphone and a camera, both off.
pub(crate) struct Muted {
    pub(crate) bot: usize,
    pub(crate) room: usize,
}

impl Muted {
    /// Its lines: streams that nothing of the run is sent on.
    pub(crate) fn lines() -> [(Kind, Vec<usize>); 2] {
        [(Kind::Audio, vec![NO_STREAM]), (Kind::Video, vec![NO_STREAM])]
    }
}

/// A number that no stream of a run has.
const NO_STREAM: usize = usize::MAX;

/// See the module.
pub(crate) struct Stage {
    pub(crate) publishers: Vec<Publisher>,
    pub(crate) subscribers: Vec<Subscriber>,
    pub(crate) muted: Vec<Muted>,
    /// Bots in all; those that publish come first in each room.
    pub(crate) bots: usize,
    /// What each stream is; due times count from when sending starts.
    plans: Vec<StreamPlan>,
    watchers: u32,
}

impl Stage {
    /// Who is there in a row.
    pub(crate) fn new(scenario: &Scenario, row: &Row) -> Self {
        let traffic = scenario.traffic.of(row);
        let mut muted = Vec::new();
        let (mut publishers, mut subscribers, mut plans) = (Vec::new(), Vec::new(), Vec::new());
        let mut bots = 0;
        for room in 0..row.rooms as usize {
            let first = publishers.len();
            for _ in 0..row.publishers {
                let mut random = splitmix(scenario.seed ^ splitmix(publishers.len() as u64));
                let lines = lines(&traffic, bots, &mut plans, &mut random);
                publishers.push(Publisher { bot: bots, room, lines });
                bots += 1;
            }
            let all: Vec<usize> = (first..publishers.len()).collect();
            if row.mutual {
                for publisher in &all {
                    let of = all.iter().copied().filter(|other| other != publisher).collect();
                    subscribers.push(Subscriber { bot: publishers[*publisher].bot, room, of });
                }
            }
            for _ in 0..row.subscribers {
                subscribers.push(Subscriber { bot: bots, room, of: all.clone() });
                bots += 1;
            }
            for _ in 0..row.muted {
                muted.push(Muted { bot: bots, room });
                bots += 1;
            }
        }
        Self { publishers, subscribers, muted, bots, plans, watchers: row.watchers() }
    }

    /// The same with pictures' packets all of one length, the longest.
    pub(super) fn with_equal_sizes(mut self) -> Self {
        for plan in self.plans.iter_mut().filter(|plan| plan.kind == Kind::Video) {
            plan.payload_bytes.0 = plan.payload_bytes.1;
        }
        self
    }

    /// What subscribers should get: one stream of each line.
    pub(crate) fn flows(&self) -> usize {
        let of = |subscriber: &Subscriber| -> usize {
            subscriber.of.iter().map(|publisher| self.publishers[*publisher].lines.len()).sum()
        };
        self.subscribers.iter().map(of).sum()
    }

    /// How many bots watch each stream.
    pub(crate) fn watchers(&self) -> u32 {
        self.watchers
    }

    /// As [`Stage::flows`], where everyone gets all layers.
    pub(crate) fn flows_of_all_layers(&self) -> usize {
        let lines = |publisher: &usize| self.publishers[*publisher].lines.iter();
        let streams = |subscriber: &Subscriber| -> usize {
            subscriber.of.iter().flat_map(lines).map(|(_, streams)| streams.len()).sum()
        };
        self.subscribers.iter().map(streams).sum()
    }

    /// A driver with all bots, none of which is anywhere yet.
    pub(crate) fn driver(
        &self,
        scenario: &Scenario,
        (local, server): (IpAddr, IpAddr),
        epoch: Instant,
    ) -> anyhow::Result<Driver> {
        let config = BotConfig {
            identity: Arc::new(Identity::generate(scenario.transport.cipher)?),
            features: Features { feedback: scenario.transport.feedback, repair: scenario.transport.repair },
            local,
            server,
            epoch,
            coalesce: scenario.transport.receive_offload,
        };
        let sources = Sources::new(self.plans.clone(), scenario.seed);
        let ledger = Ledger::new(&vec![self.watchers; self.plans.len()]);
        let mut driver = Driver::new(config.clone(), scenario.transport, sources, ledger)?;
        driver.bots.extend((0..self.bots).map(|number| Bot::new(config.clone(), number)));
        Ok(driver)
    }
}

fn lines(
    traffic: &Traffic,
    publisher: usize,
    plans: &mut Vec<StreamPlan>,
    random: &mut u64,
) -> Vec<(Kind, Vec<usize>)> {
    let mut lines = Vec::new();
    let mut phase = |period_ns: u64| {
        *random = splitmix(*random);
        *random % period_ns
    };
    if traffic.audio {
        let schedule = Schedule {
            start_ns: phase(SECOND_NS / AUDIO_PER_SECOND),
            packets_per_frame: 1,
            frames: AUDIO_PER_SECOND,
            per_ns: SECOND_NS,
            pace: Pace::Even,
        };
        let payload_bytes = (AUDIO_BYTES.0 - HEADER_BYTES, AUDIO_BYTES.1 - HEADER_BYTES);
        let (kind, width_px, height_px) = (Kind::Audio, 0, 0);
        lines.push((kind, vec![plans.len()]));
        plans.push(StreamPlan { publisher, kind, width_px, height_px, schedule, payload_bytes });
    }
    if traffic.packets_per_frame > 0 {
        // Thousandths of a frame in thousands of seconds, so that no rate is rounded away.
        let frames = (traffic.frames_per_second * 1e3).round() as u64;
        let per_ns = SECOND_NS * 1_000;
        // All layers of a frame leave together, as they leave an encoder.
        let start_ns = phase(per_ns / frames);
        let longest = traffic.packet_bytes as usize - HEADER_BYTES;
        let mut streams = Vec::new();
        for layer in 0..traffic.layers {
            let halvings = traffic.layers - 1 - layer;
            let schedule = Schedule {
                start_ns,
                packets_per_frame: traffic.layer_packets(layer),
                frames,
                per_ns,
                pace: if traffic.pace == Pacing::Even { Pace::Even } else { Pace::Burst },
            };
            streams.push(plans.len());
            plans.push(StreamPlan {
                publisher,
                kind: Kind::Video,
                width_px: WIDTH_PX >> halvings,
                height_px: HEIGHT_PX >> halvings,
                schedule,
                payload_bytes: (longest - 1, longest),
            });
        }
        lines.push((Kind::Video, streams));
    }
    lines
}

/// How long bots may take to connect: a thousand handshakes on a busy core.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(extra: &str, row: &str) -> Scenario {
        let text = format!(
            "title = \"t\"\npeers = [\"asamblea\"]\n[traffic]\npace = \"bursts\"\npackets_per_frame = 9\n\
             frames_per_second = 25\n{extra}\n[[rows]]\n{row}\n"
        );
        Scenario::parse(&text).unwrap()
    }

    #[test]
    fn publishers_among_each_other_get_all_but_themselves() {
        let scenario = scenario("layers = 3\naudio = true", "rooms = 2\npublishers = 3\nmutual = true");
        let stage = Stage::new(&scenario, &scenario.rows[0]);
        assert_eq!((stage.bots, stage.publishers.len(), stage.subscribers.len()), (6, 6, 6));
        assert_eq!(stage.subscribers[4].of, [3, 5]);
        assert_eq!(stage.plans.len(), 6 * 4);
        assert_eq!(stage.publishers[1].lines, [(Kind::Audio, vec![4]), (Kind::Video, vec![5, 6, 7])]);
        let packets: Vec<u32> =
            stage.plans[1..4].iter().map(|plan| plan.schedule.packets_per_frame).collect();
        assert_eq!(packets, [1, 3, 9]);
        assert_eq!(stage.flows(), 6 * 2 * 2);
        assert_eq!(stage.flows_of_all_layers(), 6 * 2 * 4);
    }

    #[test]
    fn who_is_muted_is_there_and_no_part_of_what_flows() {
        let scenario = scenario("", "rooms = 2\nsubscribers = 3\nmuted = 2");
        let stage = Stage::new(&scenario, &scenario.rows[0]);
        assert_eq!((stage.bots, stage.flows(), stage.plans.len()), (12, 6, 2));
        let muted: Vec<_> = stage.muted.iter().map(|muted| (muted.bot, muted.room)).collect();
        assert_eq!(muted, [(4, 0), (5, 0), (10, 1), (11, 1)]);
    }

    #[test]
    fn a_rate_of_less_than_a_frame_a_second_is_kept() {
        let scenario = scenario("", "subscribers = 3\nframes_per_second = 0.8");
        let stage = Stage::new(&scenario, &scenario.rows[0]);
        let schedule = &stage.plans[0].schedule;
        assert_eq!(schedule.due_ns(9 * 4) - schedule.due_ns(0), 5 * SECOND_NS);
    }

    #[test]
    fn who_only_watches_is_a_bot_of_their_own() {
        let scenario = scenario("", "subscribers = 50");
        let stage = Stage::new(&scenario, &scenario.rows[0]);
        assert_eq!((stage.bots, stage.flows()), (51, 50));
        assert_eq!(stage.subscribers[49].bot, 50);
    }
}
