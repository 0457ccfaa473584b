//! What a member may do to itself: offer, publish, wish, take another name. Each act is checked whole before it changes anything.

use super::{Effect, Refusal, Room, offer, shown_name};
use crate::protocol::{ErrorCode, ServerMessage};
use asamblea_seam::{Command, Mid, PeerId, SLOTS_MAX, SlotWish, UpKind, UpState};
use std::collections::BTreeSet;

impl Room {
    pub(super) fn offer(
        &mut self,
        peer: PeerId,
        revision: u32,
        sdp: String,
        ups: Vec<asamblea_seam::UpLine>,
    ) -> Result<(), Refusal> {
        let mids = offer::mids(&sdp).map_err(|why| Refusal(ErrorCode::OfferRefused, why))?;
        let own = self.members.get_mut(&peer).expect("the caller looked it up");
        if revision <= own.revision {
            return Err(Refusal(ErrorCode::OfferRefused, "the revision is not newer than the last offer's"));
        }
        if ups.iter().any(|line| !mids.contains(&line.mid)) {
            return Err(Refusal(
                ErrorCode::UnknownReference,
                "an up names a line that the offer does not have",
            ));
        }
        let lines: BTreeSet<&Mid> = ups.iter().map(|line| &line.mid).collect();
        let kinds: BTreeSet<UpKind> = ups.iter().map(|line| line.kind).collect();
        if lines.len() != ups.len() || kinds.len() != ups.len() {
            return Err(Refusal(ErrorCode::UnknownReference, "a line or a kind is named twice"));
        }
        own.revision = revision;
        own.mids = mids;
        self.effects.push_back(Effect::Media(Command::Offer { peer, revision, sdp, ups }));
        Ok(())
    }

    pub(super) fn publish(&mut self, peer: PeerId, mut ups: Vec<UpState>) -> Result<(), Refusal> {
        ups.sort_by_key(|up| up.kind);
        if ups.windows(2).any(|pair| pair[0].kind == pair[1].kind) {
            return Err(Refusal(ErrorCode::UnknownReference, "a kind is named twice"));
        }
        let own = self.members.get_mut(&peer).expect("the caller looked it up");
        if own.ups == ups {
            return Ok(());
        }
        own.ups.clone_from(&ups);
        let shown = own.shown(peer);
        self.effects.push_back(Effect::Media(Command::Publish { peer, ups }));
        self.tell(None, ServerMessage::Changed { member: shown });
        Ok(())
    }

    pub(super) fn view(&mut self, peer: PeerId, slots: Vec<SlotWish>) -> Result<(), Refusal> {
        if slots.len() > SLOTS_MAX {
            return Err(Refusal(ErrorCode::Malformed, "more slots than a view may name"));
        }
        let own = &self.members[&peer];
        let lines: BTreeSet<&Mid> = slots.iter().map(|wish| &wish.mid).collect();
        if lines.len() != slots.len() {
            return Err(Refusal(ErrorCode::UnknownReference, "a line is named twice"));
        }
        if lines.iter().any(|mid| !own.mids.contains(*mid)) {
            return Err(Refusal(ErrorCode::UnknownReference, "a slot names a line that no offer had"));
        }
        for up in slots.iter().filter_map(|wish| wish.up) {
            if up.kind.is_audio() {
                return Err(Refusal(ErrorCode::UnknownReference, "a view names cameras and screens only"));
            }
            if !self.members.contains_key(&up.peer) {
                return Err(Refusal(
                    ErrorCode::UnknownReference,
                    "a slot names someone who is not in the meeting",
                ));
            }
        }
        self.effects.push_back(Effect::Media(Command::View { peer, slots }));
        Ok(())
    }

    pub(super) fn rename(&mut self, peer: PeerId, name: &str) {
        let own = self.members.get_mut(&peer).expect("the caller looked it up");
        let name = shown_name(name);
        if own.name != name {
            own.name = name;
            let shown = own.shown(peer);
            self.tell(None, ServerMessage::Changed { member: shown });
        }
    }
}
