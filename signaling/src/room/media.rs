//! What the media plane says of members: to whom it is told, and what is kept of it for those who come later.

use super::{Effect, Membership, OFFER_LINES_MAX, Room};
use crate::protocol::{ErrorCode, MediaState, MemberLine, ServerMessage, SpeakerLevel};
use asamblea_seam::{Command, Event, PeerId, PeerLine, SlotState, UpWanted};
use std::time::Instant;

impl Room {
    /// Passes on what the media plane says. Events of peers that are gone are ignored.
    pub fn handle_media_event(&mut self, now: Instant, event: Event) {
        self.handle_timeout(now);
        match event {
            Event::Answer { peer, revision, sdp } => {
                // An answer to an older offer would not fit the client's state any more.
                if self.members.get(&peer).is_some_and(|member| member.revision == revision) {
                    self.send_to(peer, ServerMessage::Answer { revision, sdp });
                }
            }
            Event::OfferRefused { peer, revision: _, reason } => {
                let code = ErrorCode::OfferRefused;
                self.send_to(peer, ServerMessage::Error { code, message: reason, fatal: false });
            }
            // Nobody comes back for it.
            Event::Disconnected { peer, .. } if self.closing.is_some() => self.remove(peer),
            Event::Lost { peers } if self.closing.is_some() => {
                peers.into_iter().for_each(|peer| self.remove(peer));
            }
            Event::Connected { peer } => self.media(peer, MediaState::Connected),
            Event::Disconnected { peer, .. } => self.media(peer, MediaState::Disconnected),
            Event::Slots { peer, slots } => self.slots(peer, slots),
            Event::Wanted { peer, ups } => self.wanted(peer, ups),
            Event::Lines { room, lines } => {
                if room == self.settings.id {
                    self.lines(lines);
                }
            }
            Event::Speakers { room, speakers } => {
                if room == self.settings.id {
                    let speakers = speakers
                        .iter()
                        .filter(|speaker| self.members.contains_key(&speaker.peer))
                        .map(|speaker| SpeakerLevel { member: speaker.peer, level_dbov: speaker.level_dbov })
                        .collect();
                    self.broadcast(ServerMessage::Speakers { speakers });
                }
            }
            Event::Lost { peers } => peers.into_iter().for_each(|peer| self.lost(peer)),
        }
    }

    fn slots(&mut self, peer: PeerId, slots: Vec<SlotState>) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        for slot in &slots {
            if member.slots.len() < OFFER_LINES_MAX || member.slots.contains_key(&slot.mid) {
                member.slots.insert(slot.mid.clone(), slot.clone());
            }
        }
        // Nobody is shown someone of whom they do not know.
        if slots.iter().filter_map(|slot| slot.up).any(|up| self.roster.holds_back(up.peer)) {
            self.tell_waiting();
        }
        self.send_to(peer, ServerMessage::Slots { slots });
    }

    fn wanted(&mut self, peer: PeerId, ups: Vec<UpWanted>) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.wanted.clone_from(&ups);
        self.send_to(peer, ServerMessage::Wanted { ups });
    }

    fn lines(&mut self, lines: Vec<PeerLine>) {
        let mut changed = Vec::new();
        for PeerLine { peer, line } in lines {
            self.hear(peer, |member| {
                if std::mem::replace(&mut member.line, line) != line {
                    changed.push(MemberLine { member: peer, line });
                }
            });
        }
        if !changed.is_empty() {
            self.broadcast(ServerMessage::Lines { lines: changed });
        }
    }

    fn media(&mut self, peer: PeerId, state: MediaState) {
        self.hear(peer, |member| member.media = Some(state));
        self.send_to(peer, ServerMessage::Media { state });
    }

    /// What the media plane says of someone may change whether their socket is asked for signs of life.
    fn hear(&mut self, peer: PeerId, what: impl FnOnce(&mut Membership)) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        let before = member.is_heard();
        what(member);
        let is_heard = member.is_heard();
        if let Some(socket) = member.socket.filter(|_| is_heard != before) {
            self.effects.push_back(Effect::Heard { socket, is_heard });
        }
    }

    /// The media plane forgot this peer: it is joined anew, its client offers afresh.
    fn lost(&mut self, peer: PeerId) {
        let room = self.settings.id;
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.slots.clear();
        member.wanted.clear();
        member.mids.clear();
        let (ups, loopback) = (member.ups.clone(), member.loopback);
        // Leave first: if the media plane lost only a message, what it still keeps must not outlive it.
        self.effects.push_back(Effect::Media(Command::Leave { peer }));
        self.effects.push_back(Effect::Media(Command::Join { room, peer, loopback }));
        self.effects.push_back(Effect::Media(Command::Publish { peer, ups }));
        self.media(peer, MediaState::Lost);
    }
}
