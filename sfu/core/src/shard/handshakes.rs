//! Handshake datagrams that wait their turn, so that media does not wait for them.
//!
//! A step of a DTLS handshake signs, verifies or agrees on a key, and takes far longer than a packet of media. Where many
//! connect at once, after a restart say, a batch of datagrams may hold hundreds of steps. So few are done between two times
//! that everything is sent; the rest waits here, the oldest first.

use crate::transport::PathId;
use std::collections::VecDeque;

/// Steps between two times that everything is sent: what one client's handshake takes in all, about.
pub(super) const STEPS_PER_TURN: usize = 4;

/// Datagrams of one path that wait: a whole flight of a browser, sent twice.
const WAITING_PER_PATH_MAX: usize = 8;

/// Datagrams that wait in all, some 300 kB: what lies beyond is lost, as it may be in a network, and comes again.
const WAITING_MAX: usize = 256;

/// What waits, and how much is done meanwhile.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    done: usize,
    waiting: VecDeque<(PathId, Vec<u8>)>,
}

impl Handshakes {
    /// Everything is sent, so that steps may be done again.
    pub(super) fn begin_turn(&mut self) {
        self.done = 0;
    }

    /// True if the next datagram is to be worked at once. If not, it is to [`Handshakes::wait`].
    pub(super) fn may_step(&mut self) -> bool {
        let may_step = self.waiting.is_empty() && self.done < STEPS_PER_TURN;
        self.done += usize::from(may_step);
        may_step
    }

    /// Has a datagram wait. False if there is no room for it.
    pub(super) fn wait(&mut self, path: PathId, datagram: &[u8]) -> bool {
        let of_path = self.waiting.iter().filter(|(other, _)| *other == path).count();
        let has_room = of_path < WAITING_PER_PATH_MAX && self.waiting.len() < WAITING_MAX;
        if has_room {
            self.waiting.push_back((path, datagram.to_vec()));
        }
        has_room
    }

    /// The next that is to be worked now.
    pub(super) fn next(&mut self) -> Option<(PathId, Vec<u8>)> {
        if self.done >= STEPS_PER_TURN {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.done += 1;
        Some(next)
    }

    /// Whether something waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::negotiate::{ExtensionIds, Fingerprint, IceCredentials, MediaDescription};
    use crate::room::{RoomConfig, WallClock};
    use crate::rtp::time::Ntp;
    use crate::shard::{Output, Shard, ShardCommand, ShardConfig};
    use crate::transport::Identity;
    use crate::transport::dtls::tests::{Client, GCM_LAST};
    use crate::transport::ice::{LocalCredentials, NodeSecret};
    use crate::transport::stun::tests::RequestBuilder;
    use asamblea_seam::{PeerId, RoomId};
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Instant;

    /// A shard with so many who have a path each and nothing more.
    fn shard(now: Instant, people: u8) -> (Shard, Vec<PathId>) {
        let room = RoomConfig::new(WallClock { at: now, ntp: Ntp(0) });
        let mut shard =
            Shard::new(ShardConfig { identity: Arc::new(Identity::generate()), seed: 1, room }, now);
        let remote_ice = IceCredentials { ufrag: "peer".into(), pwd: "peer-password-of-22-chars".into() };
        let mut paths = Vec::new();
        for person in 0..people {
            let ice: IceCredentials =
                LocalCredentials::new(0, [person; 10], &NodeSecret::new([2; 32])).into();
            let (peer, description) = (
                PeerId(u64::from(person)),
                MediaDescription {
                    remote_ice: remote_ice.clone(),
                    fingerprint: Fingerprint([4; 32]),
                    extensions: ExtensionIds::default(),
                    ups: Vec::new(),
                    slots: Vec::new(),
                },
            );
            let check = RequestBuilder::new(&format!("{}:peer", ice.ufrag), &ice.pwd, 1).nominating().build();
            shard.handle_command(now, ShardCommand::Join { room: RoomId(1), peer, ice });
            let description = Box::new(description);
            shard.handle_command(now, ShardCommand::Describe { peer, description, restart: None });
            shard.handle_check(now, SocketAddr::from(([192, 0, 2, person], 7)), &check);
            while let Some(output) = shard.poll_output() {
                if let Output::OpenPath { path, .. } = output {
                    paths.push(path);
                }
            }
        }
        (shard, paths)
    }

    #[test]
    fn of_many_handshakes_few_are_worked_between_two_times_that_everything_is_sent() {
        let now = crate::up::test_epoch();
        let (mut shard, paths) = shard(now, 11);
        for path in &paths {
            let hello = Client::new(now, &GCM_LAST).poll_datagrams(now).remove(0);
            shard.handle_datagram(now, *path, &mut hello.clone());
        }
        let mut answered = Vec::new();
        for turn in 1.. {
            assert_eq!(shard.counters().handshake_steps, 11.min(turn * STEPS_PER_TURN as u64));
            while let Some(output) = shard.poll_output() {
                if let Output::Transmit { path, .. } = output
                    && !answered.contains(&path)
                {
                    answered.push(path);
                }
            }
            if shard.counters().handshake_steps == 11 {
                break;
            }
            assert!(shard.poll_timeout().is_some_and(|wake| wake.at <= now), "it goes on at once");
            shard.handle_timeout(now);
        }
        assert_eq!(answered, paths, "in the order in which they came");
        assert!(shard.poll_timeout().is_some_and(|wake| wake.at > now), "and rests");
        assert_eq!(shard.counters().handshakes_dropped, 0);
    }

    #[test]
    fn one_path_cannot_take_the_room_of_others_and_there_is_an_end_to_it() {
        let mut handshakes = Handshakes::default();
        let taken = |handshakes: &mut Handshakes, path| {
            (0..20).filter(|_| handshakes.wait(PathId(path), &[22])).count()
        };
        assert_eq!(taken(&mut handshakes, 0), WAITING_PER_PATH_MAX);
        let all: usize = (0..100).map(|path| taken(&mut handshakes, path)).sum();
        assert_eq!(all, WAITING_MAX - WAITING_PER_PATH_MAX);
        assert!(!handshakes.may_step(), "nothing overtakes what waits");
    }
}
