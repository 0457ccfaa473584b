//! What a bot writes down of what it was told and sent.

use crate::peer::Received;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What a bot has seen so far.
#[derive(Default)]
pub struct Seen {
    /// Its own member id.
    pub member: u64,
    /// How often it was welcomed, and whether the last time as the same membership with its media.
    pub welcomes: usize,
    /// See `welcomes`.
    pub is_resumed: bool,
    /// How often a fresh resume token came.
    pub renewals: usize,
    /// Why the bridge ended sockets, in order.
    pub byes: Vec<String>,
    /// Whether its media transport is up.
    pub is_connected: bool,
    /// How often the transport came up and went down.
    pub transport_changes: usize,
    /// Everyone in the meeting as the bridge told it last, by member id.
    pub members: BTreeMap<u64, Value>,
    /// What its slots carry by mid: a member and a kind.
    pub slots: BTreeMap<String, Option<(u64, String)>>,
    /// The mids of slots whose picture is held back.
    pub paused: BTreeSet<String>,
    /// Stamped packets, in order of arrival.
    pub received: Vec<(Instant, Received)>,
    /// Stamped packets by sender and kind (0 microphone, 1 camera, 2 screen).
    pub counts: BTreeMap<(u32, u8), u64>,
    /// Error codes the bridge answered with, in order.
    pub errors: Vec<String>,
    /// Key frames that were asked of it.
    pub key_frames_wanted: usize,
    /// The media line to the bridge: where from and where to.
    pub path: Option<(SocketAddr, SocketAddr)>,
    /// The newest datagrams that it sent to the bridge, oldest first.
    pub sent: std::collections::VecDeque<Vec<u8>>,
    /// The newest answer.
    pub answer: String,
    /// Whether the socket has ended.
    pub is_over: bool,
}

impl Seen {
    /// Numbers of the senders whose voice came.
    pub fn heard(&self) -> BTreeSet<u32> {
        self.counts.keys().filter(|(_, kind)| *kind == 0).map(|(sender, _)| *sender).collect()
    }

    /// Numbers of the senders whose camera came.
    pub fn seen(&self) -> BTreeSet<u32> {
        self.counts.keys().filter(|(_, kind)| *kind == 1).map(|(sender, _)| *sender).collect()
    }

    /// When the first packet of a kind (0 microphone, 1 camera) of one sender came after a moment.
    pub fn first_after(&self, sender: u32, kind: u8, after: Instant) -> Option<Instant> {
        let is_it = |(at, packet): &&(Instant, Received)| {
            packet.stamp.sender == sender && packet.stamp.kind == kind && *at > after
        };
        self.received.iter().find(is_it).map(|(at, _)| *at)
    }

    /// The longest time without a packet of one voice since a moment, up to now.
    pub fn longest_gap(&self, sender: u32, since: Instant) -> Duration {
        let times = self
            .received
            .iter()
            .filter(|(at, packet)| packet.stamp.sender == sender && packet.stamp.kind == 0 && *at >= since)
            .map(|(at, _)| *at);
        let mut last = since;
        let mut longest = Duration::ZERO;
        for at in times.chain([Instant::now()]) {
            longest = longest.max(at - last);
            last = at;
        }
        longest
    }
}
