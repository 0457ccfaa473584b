//! The one envelope that carries a meeting's streams to another shard: what the parts of a room say to each other.
//!
//! Plain values, gathered in batches for one room and one receiver. All but packets are whole states, told again and
//! again and forgotten when they are not: nothing is acknowledged, and what is lost heals. No moment of any clock is in
//! them, so that a batch may cross nodes. Who says what, and what follows from it, is decided in [`crate::room`].

use crate::{
    bwe::allocate::Price,
    rtp::{sequence::Sequence, time::Ntp},
    up::LAYERS_MAX,
};
use arrayvec::ArrayVec;
use asamblea_seam::{PeerId, RoomId, UpKind};
use std::time::Duration;

/// How often a state is told that has not changed.
pub const TOLD_EVERY: Duration = Duration::from_secs(1);

/// A state that was not told for this long is no longer true: several times [`TOLD_EVERY`], so that a machine that stood
/// still for a moment forgets nothing.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

/// Most bytes of packets that wait for one part: a fifth of a second of 25 cameras with 1.2 Mbit/s each. What would wait
/// longer is late for a conversation.
pub const BYTES_MAX: usize = 768 * 1024;

/// Most packets that wait for one part: [`BYTES_MAX`] in packets of 192 bytes.
pub const PACKETS_MAX: usize = 4_096;

/// Most envelopes that wait for one part: there is room for states behind packets, and what has none is told later.
pub const ENVELOPES_MAX: usize = 2 * PACKETS_MAX;

/// What an emptied batch keeps of its memory: what a few frames take. The rest was a burst.
const KEPT_BYTES_MAX: usize = 128 * 1024;

/// See [`KEPT_BYTES_MAX`].
const KEPT_ENVELOPES_MAX: usize = 1_024;

/// Envelopes for one part of one room, in order.
#[derive(Debug)]
pub struct Batch {
    room: RoomId,
    envelopes: Vec<Envelope>,
    /// Payloads, back to back.
    bytes: Vec<u8>,
}

/// What one part says to another.
#[derive(Clone, Debug)]
pub enum Envelope {
    /// A packet of a layer that the other part takes.
    Packet(Head),
    /// What is known of a member who lives here; with no ups it is nothing (any more).
    Member(Box<MemberFacts>),
    /// What is asked of a member who lives there.
    Ask(Box<Ask>),
    /// A key frame is wanted of a member who lives there.
    KeyFrame {
        /// Whose.
        peer: PeerId,
        /// Of which up.
        kind: UpKind,
        /// Of which layer.
        layer: u8,
    },
    /// Who says this knows nothing yet.
    Hello,
}

/// All of a packet but its payload.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Who sent it.
    pub peer: PeerId,
    /// Of which up.
    pub kind: UpKind,
    /// Of which layer.
    pub layer: u8,
    /// Its marker bit.
    pub marker: bool,
    /// See [`crate::up::reception::Reception::epoch`].
    pub epoch: u32,
    /// Its sequence number without wraparound. Of one layer no number comes twice.
    pub sequence: Sequence,
    /// Its timestamp as its publisher wrote it.
    pub timestamp: u32,
    /// How loud its publisher is with it, in 1/256 dB above silence; 0 for pictures.
    pub loudness_256: i32,
    /// Where its payload lies in the batch, and how long it is.
    start: u32,
    length: u16,
}

/// What is known of a member.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberFacts {
    /// Who.
    pub peer: PeerId,
    /// Differs from stay to stay of the same peer.
    pub life: u64,
    /// The wall clock of the part less that of the publisher, in units of 2^-32 s.
    pub clock_offset: Option<i64>,
    /// What it publishes.
    pub ups: ArrayVec<UpFacts, { UpKind::ALL.len() }>,
}

/// What is known of an up that is active.
#[derive(Clone, Debug, PartialEq)]
pub struct UpFacts {
    /// What.
    pub kind: UpKind,
    /// Differs from one description of its layers to the next.
    pub generation: u32,
    /// The height of its tallest layer in pixels; 0 if unknown.
    pub height_px: u16,
    /// How loud it is, in 1/256 dB above silence.
    pub loudness_256: i32,
    /// Whether that is speech.
    pub is_speaking: bool,
    /// Its layers, smallest first.
    pub layers: ArrayVec<LayerFacts, LAYERS_MAX>,
}

/// What is known of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerFacts {
    /// Whether packets came lately.
    pub is_live: bool,
    /// Whether it makes sense to ask for it.
    pub may_come: bool,
    /// Whether it did not come when it was last waited for.
    pub is_missing: bool,
    /// Whether a layer that is had is to be asked for less rather than given up.
    pub is_trusted: bool,
    /// Whether there is a cap on it.
    pub is_capped: bool,
    /// What it costs a line.
    pub price: Price,
    /// The most that anyone elsewhere can carry of it, bit/s; infinite for all that it takes.
    pub others_bps: Option<f64>,
    /// The sender's clock out of its last report: its wall clock and the stream's.
    pub clock: Option<(Ntp, u32)>,
}

/// What one part asks of one up of a member of another.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Whose.
    pub peer: PeerId,
    /// See [`MemberFacts::life`].
    pub life: u64,
    /// Of which up.
    pub kind: UpKind,
    /// See [`UpFacts::generation`].
    pub generation: u32,
    /// What of each layer.
    pub layers: [LayerAsk; LAYERS_MAX],
    /// The loss that those who listen suffer after all repair, in 1/256.
    pub suffered: u8,
}

/// What is asked of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerAsk {
    /// Whether its packets are to be relayed.
    pub is_taken: bool,
    /// Whether somebody receives it or waits for it.
    pub is_wanted: bool,
    /// The most that anyone there can carry of it, bit/s; infinite for all that it takes.
    pub most_bps: Option<f64>,
}

/// What became of a batch that was to be carried.
#[derive(Debug)]
pub enum Carried {
    /// It is on its way; here is an empty one in exchange.
    Taken(Batch),
    /// There is no room now.
    Refused(Batch),
}

impl Default for Batch {
    fn default() -> Self {
        Self { room: RoomId(0), envelopes: Vec::new(), bytes: Vec::new() }
    }
}

impl Batch {
    /// Which room's.
    pub fn room(&self) -> RoomId {
        self.room
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.envelopes.is_empty()
    }

    /// How many envelopes are in it.
    pub fn len(&self) -> usize {
        self.envelopes.len()
    }

    /// Empties it; of its memory it keeps as much as it usually needs.
    pub fn clear(&mut self) {
        self.envelopes.clear();
        self.bytes.clear();
        self.envelopes.shrink_to(KEPT_ENVELOPES_MAX);
        self.bytes.shrink_to(KEPT_BYTES_MAX);
    }

    /// Empties it for another room.
    pub(crate) fn begin(&mut self, room: RoomId) {
        self.clear();
        self.room = room;
    }

    /// Adds a packet. False if enough wait already.
    pub(crate) fn push_packet(&mut self, mut head: Head, payload: &[u8]) -> bool {
        let has_room = self.bytes.len() + payload.len() <= BYTES_MAX && self.envelopes.len() < PACKETS_MAX;
        if has_room {
            (head.start, head.length) = (self.bytes.len() as u32, payload.len() as u16);
            self.bytes.extend_from_slice(payload);
            self.envelopes.push(Envelope::Packet(head));
        }
        has_room
    }

    /// Adds anything else. False if enough wait already.
    pub(crate) fn push(&mut self, envelope: Envelope) -> bool {
        let has_room = self.envelopes.len() < ENVELOPES_MAX;
        if has_room {
            self.envelopes.push(envelope);
        }
        has_room
    }

    /// What is in it, each with its payload if it is a packet.
    pub fn iter(&self) -> impl Iterator<Item = (&Envelope, &[u8])> {
        self.envelopes.iter().map(|envelope| {
            let payload = match envelope {
                Envelope::Packet(head) => {
                    let start = head.start as usize;
                    self.bytes.get(start..start + usize::from(head.length)).unwrap_or_default()
                }
                _ => &[],
            };
            (envelope, payload)
        })
    }
}

impl Head {
    /// Of a packet that is not in a batch yet.
    pub(crate) fn new(
        (peer, kind, layer): (PeerId, UpKind, u8),
        (marker, epoch, sequence, timestamp): (bool, u32, Sequence, u32),
        loudness_256: i32,
    ) -> Self {
        Self { peer, kind, layer, marker, epoch, sequence, timestamp, loudness_256, start: 0, length: 0 }
    }
}

impl Ask {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.layers == [LayerAsk::default(); LAYERS_MAX]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(layer: u8) -> Head {
        Head::new((PeerId(1), UpKind::Camera, layer), (false, 0, Sequence(7), 0), 0)
    }

    #[test]
    fn packets_come_out_in_order_with_their_payloads_between_states() {
        let mut batch = Batch::default();
        batch.begin(RoomId(3));
        assert!(batch.push_packet(head(0), b"one"));
        assert!(batch.push(Envelope::Hello));
        assert!(batch.push_packet(head(1), b""));
        assert!(batch.push_packet(head(2), b"three"));
        let seen: Vec<_> = batch
            .iter()
            .map(|(envelope, payload)| match envelope {
                Envelope::Packet(head) => (head.layer, payload),
                _ => (9, payload),
            })
            .collect();
        assert_eq!(seen, [(0, &b"one"[..]), (9, b""), (1, b""), (2, b"three")]);
        assert_eq!(batch.room(), RoomId(3));
        batch.clear();
        assert!(batch.is_empty() && batch.iter().next().is_none());
    }

    #[test]
    fn what_waits_is_bounded_and_there_is_room_for_states_behind_packets() {
        let mut batch = Batch::default();
        let payload = [0; 1_200];
        let taken = (0..10_000).filter(|_| batch.push_packet(head(0), &payload)).count();
        assert_eq!(taken, BYTES_MAX / 1_200);
        let taken = (0..10_000).filter(|_| batch.push_packet(head(0), b"")).count();
        assert_eq!(batch.len(), PACKETS_MAX);
        assert!(taken > 0);
        let taken = (0..10_000).filter(|_| batch.push(Envelope::Hello)).count();
        assert_eq!(taken, ENVELOPES_MAX - PACKETS_MAX);
        batch.clear();
        assert!(batch.bytes.capacity() <= KEPT_BYTES_MAX, "a burst's memory is given back");
        assert!(batch.envelopes.capacity() <= KEPT_ENVELOPES_MAX);
    }
}
