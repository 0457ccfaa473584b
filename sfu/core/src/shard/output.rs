//! Giving things out: what the shell has to do, what other shards and signaling are to hear, in what order members are
//! flushed.

use super::{
    Control, Output, Owner, Shard, ShardCounters, Wake, WakeReason,
    runs::{Run, Runs},
};
use crate::egress::Egress;
use crate::relay::{Batch, Carried};
use crate::stats::RoomCounters;
use crate::transport::srtp::Srtp;
use asamblea_seam::Event;

impl Shard {
    /// The next thing the shell has to do, in the order in which it has to be done.
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        if let Some(control) = self.control.pop_front() {
            return Some(match control {
                Control::Open { path, remote } => Output::OpenPath { path, remote },
                Control::Close { path } => Output::ClosePath { path },
                Control::Transmit { path, datagram } => {
                    self.control_datagram = datagram;
                    let segment_bytes = self.control_datagram.len();
                    Output::Transmit { path, contents: &self.control_datagram, segment_bytes }
                }
            });
        }
        let run = self.next_run()?;
        Some(Output::Transmit {
            path: run.path,
            contents: self.runs.contents(run),
            segment_bytes: run.segment_bytes,
        })
    }

    /// Hands what waits for other shards to `carry`, with the index of each. To be called after anything was taken in,
    /// and after [`Shard::poll_output`] has answered `None`.
    pub fn relay(&mut self, carry: &mut dyn FnMut(u16, Batch) -> Carried) {
        let (rooms, now) = (&mut self.rooms, self.now);
        self.relaying_rooms.retain(|&key| {
            let Some(entry) = rooms.get_mut(key) else { return false };
            entry.room.relay(now, carry);
            entry.is_relaying = entry.room.has_relays();
            entry.is_relaying
        });
    }

    /// The next thing signaling should hear.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Shard::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Wake> {
        if self.handshakes.is_waiting() {
            return Some(Wake { at: self.now, reason: WakeReason::Transport });
        }
        let (at, owner) = self.timers.earliest()?;
        let reason = match owner {
            Owner::Transport(_) => WakeReason::Transport,
            Owner::Room(_) => WakeReason::Room,
        };
        Some(Wake { at, reason })
    }

    /// What has been counted so far.
    pub fn counters(&self) -> ShardCounters {
        self.counters
    }

    /// What its rooms have counted so far, those that have ended among them. Walks all rooms: for now and then.
    pub fn room_counters(&self) -> RoomCounters {
        let mut sum = self.ended;
        for entry in self.rooms.values() {
            sum += *entry.room.counters();
        }
        sum
    }

    /// How many peers are joined.
    pub fn peer_count(&self) -> usize {
        self.members.len()
    }

    /// The next run of the batch.
    fn next_run(&mut self) -> Option<Run> {
        loop {
            if let Some(run) = self.runs.take_next() {
                self.counters.runs_out += 1;
                self.counters.packets_out += run.segments as u64;
                return Some(run);
            }
            self.runs.clear();
            if !self.gather() {
                self.runs.rest();
                self.handshakes.begin_turn();
                return None;
            }
            self.runs.grow();
        }
    }

    /// Flushes those who have something to send, one after another, until the batch has its fill. False if nobody had.
    fn gather(&mut self) -> bool {
        let mut has_flushed = false;
        while !self.runs.is_full()
            && let Some(&room_key) = self.dirty_rooms.last()
        {
            let Some(entry) = self.rooms.get_mut(room_key) else {
                self.dirty_rooms.pop();
                continue;
            };
            let Some(peer) = entry.room.poll_dirty() else {
                // What a full line held back has a time to leave at, and who was handed something may have news.
                self.after_room(room_key);
                self.rooms[room_key].dirty = false;
                self.dirty_rooms.pop();
                continue;
            };
            has_flushed = true;
            let member = entry.members.get(peer).and_then(|&key| self.members.get_mut(key));
            let way = member.and_then(|member| {
                let path = member.transport.send_path()?;
                Some((path, member.transport.srtp()?))
            });
            match way {
                Some((path, srtp)) => {
                    self.runs.turn_to(path);
                    entry.room.flush(self.now, peer, &mut Sealer { srtp, runs: &mut self.runs });
                }
                // Flushed all the same: the room counts on it before it names the peer again.
                None => entry.room.flush(self.now, peer, &mut Nowhere),
            }
        }
        has_flushed
    }
}

/// Seals what a room sends to one subscriber.
struct Sealer<'a> {
    srtp: &'a mut Srtp,
    runs: &'a mut Runs,
}

impl Egress for Sealer<'_> {
    fn rtp(&mut self, extended_sequence: u64, write: impl FnOnce(&mut [u8]) -> usize) {
        self.runs.push(|buffer| {
            let plaintext_bytes = write(buffer);
            self.srtp.seal_rtp(buffer, plaintext_bytes, extended_sequence)
        });
    }

    fn rtcp(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        self.runs.push(|buffer| {
            let plaintext_bytes = write(buffer);
            self.srtp.seal_rtcp(buffer, plaintext_bytes)
        });
    }
}

/// Takes what a room sends to a subscriber that has no path at the moment: lost, as on any broken line.
struct Nowhere;

impl Egress for Nowhere {
    fn rtp(&mut self, _extended_sequence: u64, _write: impl FnOnce(&mut [u8]) -> usize) {}
    fn rtcp(&mut self, _write: impl FnOnce(&mut [u8]) -> usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::negotiate::{
        ExtensionIds, Fingerprint, IceCredentials, MediaDescription, SlotDescription, UpDescription,
    };
    use crate::room::{RoomConfig, WallClock};
    use crate::rtp::time::Ntp;
    use crate::shard::{ShardCommand, ShardConfig};
    use crate::transport::Identity;
    use asamblea_seam::{Mid, PeerId, RoomId, SlotState, SlotWish, Up, UpKind, UpState};
    use std::sync::Arc;

    #[test]
    fn what_a_slot_has_begun_to_carry_is_told_as_soon_as_all_has_been_sent() {
        let now = crate::up::test_epoch();
        let room = RoomConfig::new(WallClock { at: now, ntp: Ntp(0) });
        let mut shard =
            Shard::new(ShardConfig { identity: Arc::new(Identity::generate()), seed: 1, room }, now);
        let (sender, watcher) = (PeerId(1), PeerId(2));
        let camera = UpKind::Camera;
        let up = Up { peer: sender, kind: camera };
        let mid = Mid::new("1").unwrap();
        for peer in [sender, watcher] {
            let ice = IceCredentials { ufrag: peer.0.to_string(), pwd: "22-chars-of-a-password".into() };
            let description = Box::new(MediaDescription {
                remote_ice: ice.clone(),
                fingerprint: Fingerprint([4; 32]),
                extensions: ExtensionIds::default(),
                ups: vec![UpDescription {
                    mid: Mid::new("0").unwrap(),
                    kind: camera,
                    payload_type: 96,
                    rtx_payload_type: None,
                    red_payload_type: None,
                    rids: Default::default(),
                    ssrcs: Default::default(),
                }],
                slots: vec![SlotDescription {
                    mid: mid.clone(),
                    is_audio: false,
                    ssrc: 7,
                    rtx_ssrc: None,
                    payload_type: 96,
                    rtx_payload_type: None,
                    has_transport_cc: false,
                }],
            });
            let ups = vec![UpState { kind: camera, active: true, height_px: 720 }];
            let slots = match peer == watcher {
                true => vec![SlotWish { mid: mid.clone(), up: Some(up), height_px: 720 }],
                false => Vec::new(),
            };
            shard.handle_command(now, ShardCommand::Join { room: RoomId(1), peer, ice });
            shard.handle_command(now, ShardCommand::Describe { peer, description, restart: None });
            shard.handle_command(now, ShardCommand::Publish { peer, ups });
            shard.handle_command(now, ShardCommand::View { peer, slots });
            shard.with_room_of(peer, |room, key| room.set_connected(now, key, true));
        }
        let poll = |shard: &mut Shard| {
            while shard.poll_output().is_some() {}
            std::iter::from_fn(|| shard.poll_event()).collect::<Vec<_>>()
        };
        // The first packets of a VP8 frame that is no key frame, and of one that is (RFC 7741 sections 4.2 and 4.3).
        let packet = |number, p| [0x80, 96, 0, number, 0, 0, 0, 0, 0, 0, 0, 9, 0x10, p];
        shard.with_room_of(sender, |room, key| room.handle_rtp(now, key, &packet(1, 1)));
        poll(&mut shard);
        shard.with_room_of(sender, |room, key| room.handle_rtp(now, key, &packet(2, 0)));
        let slots = vec![SlotState { mid, up: Some(up), paused: false }];
        assert_eq!(poll(&mut shard), [Event::Slots { peer: watcher, slots }]);
    }
}
