//! What a shard's thread drives: the contract of [`Shard`], so that a script can take its place in tests.

use asamblea_seam::{Event, PeerId};
use asamblea_sfu_core::relay::{Batch, Carried};
use asamblea_sfu_core::shard::{Output, Shard, ShardCommand};
use asamblea_sfu_core::stats::RoomCounters;
use asamblea_sfu_core::transport::{PathId, Remote};
use std::time::Instant;

/// What the loop drives: [`Shard`], or a script in tests. The contract is the one of [`Shard`].
pub trait Heart {
    /// What it is told through the mailbox.
    type Command: Send + 'static;

    /// How a command changes who is joined.
    fn membership(command: &Self::Command) -> Membership;
    /// See [`Shard::handle_command`].
    fn handle_command(&mut self, now: Instant, command: Self::Command);
    /// See [`Shard::handle_check`].
    fn handle_check(&mut self, now: Instant, remote: Remote, datagram: &[u8]);
    /// See [`Shard::handle_datagram`].
    fn handle_datagram(&mut self, now: Instant, path: PathId, datagram: &mut [u8]);
    /// See [`Shard::may_wait`].
    fn may_wait(&self, now: Instant, path: PathId) -> bool;
    /// See [`Shard::handle_path_failed`].
    fn handle_path_failed(&mut self, now: Instant, path: PathId);
    /// See [`Shard::handle_relay`].
    fn handle_relay(&mut self, now: Instant, from: u16, batch: &Batch);
    /// See [`Shard::handle_shard_ended`].
    fn handle_shard_ended(&mut self, now: Instant, shard: u16);
    /// See [`Shard::handle_timeout`].
    fn handle_timeout(&mut self, now: Instant);
    /// See [`Shard::relay`].
    fn relay(&mut self, carry: &mut dyn FnMut(u16, Batch) -> Carried);
    /// See [`Shard::poll_output`].
    fn poll_output(&mut self) -> Option<Output<'_>>;
    /// See [`Shard::poll_event`].
    fn poll_event(&mut self) -> Option<Event>;
    /// See [`Shard::poll_timeout`].
    fn poll_timeout(&self) -> Option<Instant>;
    /// See [`Shard::room_counters`].
    fn room_counters(&self) -> RoomCounters;
}

impl Heart for Shard {
    type Command = ShardCommand;

    fn membership(command: &ShardCommand) -> Membership {
        match command {
            ShardCommand::Join { peer, .. } => Membership::Joined(*peer),
            ShardCommand::Leave { peer } => Membership::Left(*peer),
            _ => Membership::Unchanged,
        }
    }
    fn handle_command(&mut self, now: Instant, command: ShardCommand) {
        self.handle_command(now, command);
    }
    fn handle_check(&mut self, now: Instant, remote: Remote, datagram: &[u8]) {
        self.handle_check(now, remote, datagram);
    }
    fn handle_datagram(&mut self, now: Instant, path: PathId, datagram: &mut [u8]) {
        self.handle_datagram(now, path, datagram);
    }
    fn may_wait(&self, now: Instant, path: PathId) -> bool {
        self.may_wait(now, path)
    }
    fn handle_path_failed(&mut self, now: Instant, path: PathId) {
        self.handle_path_failed(now, path);
    }
    fn handle_relay(&mut self, now: Instant, from: u16, batch: &Batch) {
        self.handle_relay(now, from, batch);
    }
    fn handle_shard_ended(&mut self, now: Instant, shard: u16) {
        self.handle_shard_ended(now, shard);
    }
    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }
    fn relay(&mut self, carry: &mut dyn FnMut(u16, Batch) -> Carried) {
        self.relay(carry);
    }
    fn poll_output(&mut self) -> Option<Output<'_>> {
        self.poll_output()
    }
    fn poll_event(&mut self) -> Option<Event> {
        self.poll_event()
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout().map(|wake| wake.at)
    }
    fn room_counters(&self) -> RoomCounters {
        self.room_counters()
    }
}

/// How a command changes who is joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// This peer is in now.
    Joined(PeerId),
    /// This peer is out now.
    Left(PeerId),
    /// Nobody came or went.
    Unchanged,
}
