//! The VP8 payload descriptor (RFC 7741 section 4.2): read, and renumbered in place.
//!
//! Nothing past the descriptor is read but the one bit that tells a key frame (section 4.3). The descriptor keeps its
//! length: an id of 7 bits stays one of 7 bits.

/// What a descriptor says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// The picture id, if there is one.
    pub picture_id: Option<PictureId>,
    /// TL0PICIDX, if there is one.
    pub tl0_index: Option<u8>,
    /// The temporal layer.
    pub temporal_id: u8,
    /// KEYIDX, if there is one.
    pub key_index: Option<u8>,
    /// Whether this is the first packet of a frame: start of the first partition.
    pub is_frame_start: bool,
    /// Whether this is the first packet of a key frame.
    pub is_key_frame: bool,
}

/// A picture id and its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureId {
    /// 7 bits.
    Short(u8),
    /// 15 bits.
    Long(u16),
}

impl PictureId {
    /// The number.
    pub fn value(self) -> u16 {
        match self {
            PictureId::Short(value) => u16::from(value),
            PictureId::Long(value) => value,
        }
    }
}

impl Descriptor {
    /// Reads the descriptor of a payload. `None` if it is cut short.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut found = Self { is_frame_start: first & 0x10 != 0 && first & 0x07 == 0, ..Self::default() };
        let mut at = 1;
        if first & 0x80 != 0 {
            let present = *payload.get(at)?;
            at += 1;
            if present & 0x80 != 0 {
                let byte = *payload.get(at)?;
                at += 1;
                found.picture_id = Some(if byte & 0x80 != 0 {
                    let low = *payload.get(at)?;
                    at += 1;
                    PictureId::Long(u16::from(byte & 0x7f) << 8 | u16::from(low))
                } else {
                    PictureId::Short(byte)
                });
            }
            if present & 0x40 != 0 {
                found.tl0_index = Some(*payload.get(at)?);
                at += 1;
            }
            if present & 0x30 != 0 {
                let byte = *payload.get(at)?;
                at += 1;
                if present & 0x20 != 0 {
                    found.temporal_id = byte >> 6;
                }
                if present & 0x10 != 0 {
                    found.key_index = Some(byte & 0x1f);
                }
            }
        }
        let byte = *payload.get(at)?;
        found.is_key_frame = found.is_frame_start && byte & 0x01 == 0;
        Some(found)
    }
}

/// What to add to the numbers of a descriptor so that they go on where another source's ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// Added to the picture id, modulo its width.
    pub picture_id: u16,
    /// Added to TL0PICIDX, modulo 256.
    pub tl0_index: u8,
}

impl Shift {
    /// Renumbers a payload in place. Only for payloads that [`Descriptor::parse`] accepted; others are left alone.
    pub fn apply(self, payload: &mut [u8]) {
        let (Some(&first), Some(&present)) = (payload.first(), payload.get(1)) else { return };
        if first & 0x80 == 0 {
            return;
        }
        let mut at = 2;
        if present & 0x80 != 0 {
            let Some(&byte) = payload.get(at) else { return };
            if byte & 0x80 != 0 {
                let Some(&low) = payload.get(at + 1) else { return };
                let id =
                    (u16::from(byte & 0x7f) << 8 | u16::from(low)).wrapping_add(self.picture_id) & 0x7fff;
                payload[at] = 0x80 | (id >> 8) as u8;
                payload[at + 1] = id as u8;
                at += 2;
            } else {
                payload[at] = byte.wrapping_add(self.picture_id as u8) & 0x7f;
                at += 1;
            }
        }
        if present & 0x40 != 0
            && let Some(byte) = payload.get_mut(at)
        {
            *byte = byte.wrapping_add(self.tl0_index);
        }
    }
}

/// Which numbers a stream of descriptors has come to, so that the next source can go on from there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    picture_id: Option<u16>,
    tl0_index: Option<u8>,
}

impl Reached {
    /// The shift that makes a new source's first descriptor follow.
    pub fn shift_for(&self, first: &Descriptor) -> Shift {
        let follow = |reached: u16, id: PictureId| reached.wrapping_add(1).wrapping_sub(id.value());
        Shift {
            picture_id: self.picture_id.zip(first.picture_id).map_or(0, |(reached, id)| follow(reached, id)),
            tl0_index: self
                .tl0_index
                .zip(first.tl0_index)
                .map_or(0, |(reached, index)| reached.wrapping_add(1).wrapping_sub(index)),
        }
    }

    /// Notes a descriptor that goes out with a shift. Older ones do not turn it back.
    pub fn note(&mut self, descriptor: &Descriptor, shift: Shift) {
        if let Some(id) = descriptor.picture_id {
            let mask = if matches!(id, PictureId::Long(_)) { 0x7fff } else { 0x7f };
            let id = id.value().wrapping_add(shift.picture_id) & mask;
            let is_ahead = |reached: u16| id.wrapping_sub(reached) & mask <= mask / 2;
            if self.picture_id.is_none_or(is_ahead) {
                self.picture_id = Some(id);
            }
        }
        if let Some(index) = descriptor.tl0_index {
            let index = index.wrapping_add(shift.tl0_index);
            if self.tl0_index.is_none_or(|reached| index.wrapping_sub(reached) < 128) {
                self.tl0_index = Some(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A payload as libwebrtc writes it: 15-bit picture id, TL0PICIDX, TID and KEYIDX.
    fn payload(picture_id: u16, tl0_index: u8, is_key_frame: bool) -> [u8; 8] {
        let id = picture_id.to_be_bytes();
        [0x90, 0xf0, 0x80 | id[0], id[1], tl0_index, 0x45, u8::from(!is_key_frame), 9]
    }

    #[test]
    fn a_browsers_descriptor_is_read() {
        let descriptor = Descriptor::parse(&payload(0x1234, 200, true)).expect("well formed");
        assert_eq!(descriptor.picture_id, Some(PictureId::Long(0x1234)));
        assert_eq!(
            (descriptor.tl0_index, descriptor.temporal_id, descriptor.key_index),
            (Some(200), 1, Some(5))
        );
        assert!(descriptor.is_frame_start && descriptor.is_key_frame);
        let delta = Descriptor::parse(&payload(1, 1, false)).expect("well formed");
        assert!(delta.is_frame_start && !delta.is_key_frame);
    }

    #[test]
    fn a_later_packet_of_a_key_frame_is_not_its_start() {
        let mut bytes = payload(1, 1, true);
        bytes[0] = 0x80;
        assert!(!Descriptor::parse(&bytes).expect("well formed").is_key_frame);
        bytes[0] = 0x91; // start of the second partition
        assert!(!Descriptor::parse(&bytes).expect("well formed").is_key_frame);
    }

    #[test]
    fn a_bare_descriptor_is_read() {
        let descriptor = Descriptor::parse(&[0x10, 0x00]).expect("well formed");
        assert!(descriptor.is_key_frame && descriptor.picture_id.is_none());
        assert_eq!(Descriptor::parse(&[0x10]), None);
        assert_eq!(Descriptor::parse(&[]), None);
    }

    proptest! {
        #[test]
        fn a_shift_makes_a_new_source_follow(old in 0_u16..0x8000, new in 0_u16..0x8000, old_tl0: u8, new_tl0: u8) {
            let mut reached = Reached::default();
            reached.note(&Descriptor::parse(&payload(old, old_tl0, true)).expect("ours"), Shift::default());
            let mut bytes = payload(new, new_tl0, true);
            let shift = reached.shift_for(&Descriptor::parse(&bytes).expect("ours"));
            shift.apply(&mut bytes);
            let after = Descriptor::parse(&bytes).expect("still well formed");
            prop_assert_eq!(after.picture_id, Some(PictureId::Long((old + 1) & 0x7fff)));
            prop_assert_eq!(after.tl0_index, Some(old_tl0.wrapping_add(1)));
            prop_assert_eq!(&bytes[5..], &payload(new, new_tl0, true)[5..]);
        }

        #[test]
        fn a_short_id_stays_short(id in 0_u8..0x80, by: u16) {
            let mut bytes = [0x90, 0x80, id, 0x00];
            Shift { picture_id: by, tl0_index: 0 }.apply(&mut bytes);
            let expected = PictureId::Short(((u16::from(id) + (by & 0x7f)) & 0x7f) as u8);
            prop_assert_eq!(Descriptor::parse(&bytes).expect("still well formed").picture_id, Some(expected));
        }

        #[test]
        fn junk_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..12), picture_id: u16, tl0_index: u8) {
            let length = bytes.len();
            let before = Descriptor::parse(&bytes);
            Shift { picture_id, tl0_index }.apply(&mut bytes);
            prop_assert_eq!(bytes.len(), length);
            let after = Descriptor::parse(&bytes);
            prop_assert_eq!(before.is_some(), after.is_some());
            prop_assert_eq!(before.map(|d| d.is_key_frame), after.map(|d| d.is_key_frame));
        }
    }
}
