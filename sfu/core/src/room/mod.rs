//! One meeting.

use crate::{egress::Egress, negotiate::MediaDescription, stats::RoomCounters};
use asamblea_seam::{Event, PeerId, RoomId, SlotWish, UpState};
use std::time::Instant;

slotmap::new_key_type! {
    /// A peer's place in its room. Unique for the room's life.
    pub struct PeerKey;
}

/// Ties the monotonic clock that the heart is told to the wall clock that RTCP sender reports need.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// A moment,
    pub at: Instant,
    /// and the same moment as an NTP timestamp (RFC 5905: 32 bits of seconds since 1900, 32 of fraction).
    pub ntp: u64,
}

/// What a room is told once.
#[derive(Clone, Copy, Debug)]
pub struct RoomConfig {
    /// The wall clock.
    pub wall_clock: WallClock,
    /// Whether packets of one frame that are one byte shorter than its longest are padded to the same length, so that
    /// one GSO send carries more of them.
    pub pad_runs: bool,
}

/// One meeting: who is in it, who sends what, who receives what.
#[derive(Debug)]
pub struct Room {}

#[allow(unused_variables, missing_docs)]
impl Room {
    pub fn new(id: RoomId, seed: u64, config: RoomConfig) -> Self {
        Self {}
    }
    pub fn id(&self) -> RoomId {
        RoomId(0)
    }
    pub fn join(&mut self, now: Instant, peer: PeerId) -> PeerKey {
        PeerKey::default()
    }
    pub fn leave(&mut self, now: Instant, key: PeerKey) {}
    pub fn is_empty(&self) -> bool {
        true
    }
    pub fn describe(&mut self, now: Instant, key: PeerKey, description: &MediaDescription) {}
    pub fn publish(&mut self, now: Instant, key: PeerKey, ups: &[UpState]) {}
    pub fn view(&mut self, now: Instant, key: PeerKey, slots: &[SlotWish]) {}
    pub fn set_connected(&mut self, now: Instant, key: PeerKey, is_connected: bool) {}
    pub fn handle_rtp(&mut self, now: Instant, key: PeerKey, packet: &[u8]) {}
    pub fn handle_rtcp(&mut self, now: Instant, key: PeerKey, compound: &[u8]) {}
    pub fn handle_timeout(&mut self, now: Instant) {}
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }
    pub fn poll_dirty(&mut self) -> Option<PeerKey> {
        None
    }
    pub fn flush<E: Egress>(&mut self, now: Instant, key: PeerKey, egress: &mut E) {}
    pub fn counters(&self) -> RoomCounters {
        RoomCounters::default()
    }
}
