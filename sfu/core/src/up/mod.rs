//! What a publisher sends: up to three streams (`stream`) of one or more layers (`layer`), each with reception state,
//! shared packet history and key-frame gate.
//!
//! An SSRC is bound to a layer once and then found in a table of a few entries. Nothing here knows who receives a
//! layer beyond a list of keys, and nothing is stored for an SSRC that was not described or announced by a
//! negotiated header extension.

pub mod cap;
mod demand;
pub mod feedback;
pub mod gate;
pub mod history;
mod layer;
pub mod level;
pub mod reception;
mod stream;

pub use demand::{Asked, Demand, most};
pub use layer::{Entry, LIVE_FOR, Layer};
pub use stream::{MISSED_AFTER, MISSED_FOR, UpStream};

use crate::{
    negotiate::{ExtensionIds, UpDescription},
    relay::UpFacts,
    room::PeerKey,
    rtp::header::Packet,
};
use arrayvec::ArrayVec;
use asamblea_seam::{Mid, UpKind};
use feedback::Feedback;

/// Most SSRCs bound at one time for one publisher: a microphone, three camera layers and a screen, the video ones with
/// retransmissions, are nine; the rest is for a browser that changes them.
pub const SSRCS_MAX: usize = 16;

/// Most layers of one up: what browsers send, and what [`crate::negotiate::UpDescription`] is made for.
pub const LAYERS_MAX: usize = 3;

/// Names a layer in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerRef {
    /// Who publishes it.
    pub peer: PeerKey,
    /// Of which up.
    pub kind: UpKind,
    /// Which, smallest first.
    pub layer: u8,
}

/// Names a slot in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRef {
    /// Whose.
    pub peer: PeerKey,
    /// Which of the peer's slots.
    pub slot: u16,
}

/// What an SSRC carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which up.
    pub kind: UpKind,
    /// Which of its layers.
    pub layer: u8,
    /// Whether these are retransmissions (RFC 4588).
    pub is_rtx: bool,
    /// Whether this packet has copies of earlier ones beside its payload (RFC 2198); never said of an SSRC.
    pub is_red: bool,
}

/// Why a packet has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unplaced {
    /// Its SSRC was neither described nor announced, or there are too many.
    UnknownSsrc,
    /// Its payload type is not the one negotiated for its line.
    PayloadType,
}

/// All that one peer sends.
#[derive(Debug, Default)]
pub struct Publisher {
    extensions: ExtensionIds,
    bindings: ArrayVec<(u32, Binding), SSRCS_MAX>,
    /// Most people in a large meeting only listen: what they could send takes no room in the table of all peers.
    ups: [Option<Box<UpStream>>; UpKind::ALL.len()],
    said: [Option<(bool, u16)>; UpKind::ALL.len()],
    /// Whether ticks pass it by; see [`Publisher::rest`].
    is_at_rest: bool,
    /// Arrivals for the publisher's bandwidth estimate.
    pub feedback: Feedback,
    /// How often layers were described.
    generations: u32,
}

/// What changed with what another part of the room told of an up.
#[derive(Debug, Default)]
pub struct Retold {
    /// The up whose layers are gone, so that whoever subscribed starts over.
    pub replaced: Option<Box<UpStream>>,
    /// Whether watchers have to look again.
    pub has_changed: bool,
}

impl Publisher {
    /// Takes a description. Returns the ups whose layers are gone or new, so that whoever subscribed starts over.
    pub fn describe(&mut self, extensions: ExtensionIds, ups: &[UpDescription]) -> Vec<UpStream> {
        self.stir();
        self.extensions = extensions;
        let mut replaced = Vec::new();
        for kind in UpKind::ALL {
            let place = &mut self.ups[kind as usize];
            let Some(description) = ups.iter().find(|up| up.kind == kind) else {
                replaced.extend(place.take().map(|up| *up));
                self.bindings.retain(|(_, binding)| binding.kind != kind);
                continue;
            };
            let is_same = |up: &UpStream| {
                up.rids.iter().eq(description.rids.iter().take(LAYERS_MAX)) && up.mid == description.mid
            };
            match place {
                Some(up) if is_same(up) => {
                    up.payload_type = description.payload_type;
                    up.rtx_payload_type = description.rtx_payload_type;
                    up.red_payload_type = description.red_payload_type;
                }
                _ => {
                    let mut up = UpStream::new(description);
                    self.generations += 1;
                    up.generation = self.generations;
                    if let Some((is_active, height_px)) = self.said[kind as usize] {
                        (up.is_active, up.height_px) = (is_active, height_px);
                    }
                    replaced.extend(place.replace(Box::new(up)).map(|up| *up));
                    self.bindings.retain(|(_, binding)| binding.kind != kind);
                }
            }
            if description.rids.is_empty()
                && let Some((ssrc, rtx_ssrc)) = description.ssrcs.first()
            {
                self.bind(*ssrc, Binding { kind, layer: 0, is_rtx: false, is_red: false });
                if let Some(rtx_ssrc) = rtx_ssrc {
                    self.bind(*rtx_ssrc, Binding { kind, layer: 0, is_rtx: true, is_red: false });
                }
            }
        }
        replaced
    }

    /// Takes what another part of the room tells of an up; `None` if there is none.
    pub fn retell(&mut self, kind: UpKind, facts: Option<&UpFacts>) -> Retold {
        let place = &mut self.ups[kind as usize];
        let Some(facts) = facts.filter(|facts| !facts.layers.is_empty()) else {
            let replaced = place.take();
            return Retold { has_changed: replaced.is_some(), replaced };
        };
        let is_same = |up: &&mut Box<UpStream>| {
            up.generation == facts.generation && up.layers.len() == facts.layers.len()
        };
        let mut retold = Retold::default();
        if place.as_mut().filter(is_same).is_none() {
            // No line carries it here; the tag is never looked at.
            let mid = Mid::new("0").expect("a digit is a token");
            retold.replaced = place.replace(Box::new(UpStream::of(kind, mid, facts.layers.len())));
            retold.has_changed = true;
        }
        let Some(up) = place else { return retold };
        up.is_active = true;
        up.generation = facts.generation;
        retold.has_changed |= std::mem::replace(&mut up.height_px, facts.height_px) != facts.height_px;
        up.level.follow(facts.loudness_256, facts.is_speaking);
        let told = up.told.get_or_insert_default();
        for ((layer, told), facts) in up.layers.iter_mut().zip(told.iter_mut()).zip(&facts.layers) {
            retold.has_changed |= std::mem::replace(&mut layer.is_live, facts.is_live) != facts.is_live;
            *told = Some(*facts);
        }
        retold
    }

    /// Takes the publisher's own word on one kind; `None` means not active. True if anything changed.
    pub fn publish(&mut self, kind: UpKind, said: Option<(bool, u16)>) -> bool {
        self.stir();
        let said = said.unwrap_or((false, 0));
        if self.said[kind as usize].replace(said) == Some(said) {
            return false;
        }
        if let Some(up) = &mut self.ups[kind as usize] {
            (up.is_active, up.height_px) = said;
            // Another camera, another chance.
            up.missed_at = [None; LAYERS_MAX];
            up.wanted_since = [None; LAYERS_MAX];
            for layer in &mut up.layers {
                layer.cap.forget();
                layer.entry = None;
            }
            up.is_wanted_told = false;
            if !said.0 {
                up.level.silence();
            }
        }
        true
    }

    /// The up of a kind.
    pub fn up(&self, kind: UpKind) -> Option<&UpStream> {
        self.ups[kind as usize].as_deref()
    }

    /// All ups.
    pub fn ups(&self) -> impl Iterator<Item = &UpStream> {
        self.ups.iter().filter_map(Option::as_deref)
    }

    /// The up of a kind.
    pub fn up_mut(&mut self, kind: UpKind) -> Option<&mut UpStream> {
        self.stir();
        self.ups[kind as usize].as_deref_mut()
    }

    /// All ups.
    pub fn ups_mut(&mut self) -> impl Iterator<Item = &mut UpStream> {
        self.stir();
        self.ups.iter_mut().filter_map(Option::as_deref_mut)
    }

    /// A layer.
    pub fn layer_mut(&mut self, kind: UpKind, layer: u8) -> Option<&mut Layer> {
        self.up_mut(kind)?.layers.get_mut(usize::from(layer))
    }

    /// A layer.
    pub fn layer(&self, kind: UpKind, layer: u8) -> Option<&Layer> {
        self.up(kind)?.layers.get(usize::from(layer))
    }

    /// Lets ticks pass it by until anything is done with it, if none of them would find anything to do: nothing is on,
    /// comes, is waited for or kept, and what it was told holds. Whoever only listens is so for hours.
    pub fn rest(&mut self, is_alone: bool) {
        let is_still = |layer: &Layer| {
            !layer.is_live
                && !layer.is_taken()
                && !layer.gate.is_wanted()
                && layer.history.memory_bytes() == 0
                && layer.reception.ask_at().is_none()
                && layer.cap.told_bps().is_none()
                && layer.demand.most_bps().is_none()
        };
        let is_resting = |up: &UpStream| {
            // The smallest picture is asked for in advance of whoever comes.
            let told = [!is_alone, false, false];
            let is_told = up.is_wanted_told && up.wanted == told && up.wanted_now == told;
            !up.is_active
                && up.level.db() == 0
                && (up.kind.is_audio() || is_told)
                && up.layers.iter().all(is_still)
        };
        self.is_at_rest = self.feedback.is_empty() && self.ups().all(is_resting);
    }

    /// Whether ticks pass it by.
    pub fn is_at_rest(&self) -> bool {
        self.is_at_rest
    }

    /// Has the next tick look at it again. Whatever may change it does that by itself.
    pub fn stir(&mut self) {
        self.is_at_rest = false;
    }

    /// What a media SSRC carries, if it is bound.
    pub fn bound(&self, ssrc: u32) -> Option<Binding> {
        self.bindings.iter().find(|(bound, _)| *bound == ssrc).map(|(_, binding)| *binding)
    }

    /// The RTP header extension ids in use.
    pub fn extensions(&self) -> &ExtensionIds {
        &self.extensions
    }

    /// Finds the place of a packet, binding its SSRC if this is the first that says where it belongs
    /// (RFC 8843 section 9.2, RFC 8852).
    pub fn place(&mut self, packet: &Packet<'_>) -> Result<Binding, Unplaced> {
        self.stir();
        let binding = match self.bound(packet.ssrc) {
            Some(binding) => binding,
            None => self.learn(packet).ok_or(Unplaced::UnknownSsrc)?,
        };
        let up = self.up(binding.kind).ok_or(Unplaced::UnknownSsrc)?;
        let expected = if binding.is_rtx { up.rtx_payload_type } else { Some(up.payload_type) };
        let is_red = !binding.is_rtx && up.red_payload_type == Some(packet.payload_type);
        if !is_red && expected != Some(packet.payload_type) {
            return Err(Unplaced::PayloadType);
        }
        Ok(Binding { is_red, ..binding })
    }

    fn learn(&mut self, packet: &Packet<'_>) -> Option<Binding> {
        let extension = |id: Option<u8>| id.and_then(|id| packet.extensions.get(id));
        let carries = |up: &&UpStream| {
            let types = [Some(up.payload_type), up.rtx_payload_type, up.red_payload_type];
            types.contains(&Some(packet.payload_type))
        };
        let up = match extension(self.extensions.mid) {
            Some(mid) => self.ups().find(|up| up.mid.as_str().as_bytes() == mid)?,
            None => {
                // Without a mid a payload type will do, if it leaves no choice.
                let mut fitting = self.ups().filter(carries);
                fitting.next().filter(|_| fitting.next().is_none())?
            }
        };
        if !carries(&up) {
            return None;
        }
        let is_rtx = up.rtx_payload_type == Some(packet.payload_type);
        let layer = if up.rids.is_empty() {
            0
        } else {
            let id = if is_rtx { self.extensions.repaired_rid } else { self.extensions.rid };
            up.layer_of_rid(extension(id)?)?
        };
        let binding = Binding { kind: up.kind, layer, is_rtx, is_red: false };
        self.bind(packet.ssrc, binding);
        self.bound(packet.ssrc)
    }

    fn bind(&mut self, ssrc: u32, binding: Binding) {
        if self.bound(ssrc) == Some(binding) {
            return;
        }
        // One SSRC for each use: the newest takes the place of an earlier one, so that the table stays small.
        self.bindings.retain(|(bound, other)| *bound != ssrc && *other != binding);
        let is_bound = self.bindings.try_push((ssrc, binding)).is_ok();
        if is_bound
            && !binding.is_rtx
            && let Some(layer) = self.layer_mut(binding.kind, binding.layer)
            && layer.ssrc.replace(ssrc).is_some()
        {
            layer.reception.begin_under_another_ssrc();
        }
    }

    /// Memory held for histories, in bytes.
    pub fn history_bytes(&self) -> usize {
        self.ups().flat_map(|up| &up.layers).map(|layer| layer.history.memory_bytes()).sum()
    }
}

/// Some moment to count from in tests.
#[cfg(test)]
pub(crate) fn test_epoch() -> std::time::Instant {
    #[allow(clippy::disallowed_methods, reason = "tests need some first moment; nothing depends on which")]
    std::time::Instant::now()
}
