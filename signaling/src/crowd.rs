//! How many TCP connections there are and from which lines, so that nobody takes everyone's place, and what became of
//! those that were cut.
//!
//! A connection is half-open until it has said something that makes sense: a first byte of HTTP, a TLS handshake, an
//! authentic check, a request of the relay that got an allocation. Of those, the oldest makes room for the newest: who is
//! honest needs a round trip or three, who only holds a place has held it longest. Keeps no address: a line is known by
//! a hash that is another in each process.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Most half-open connections at one time: half of all, so that the others have theirs.
pub const HALF_OPEN_MAX: usize = 2_048;

/// Of these, from one line: a hall of people behind one address, each with a page's six connections, in a second.
pub const HALF_OPEN_OF_LINE_MAX: usize = 512;

/// Most connections from one line, half-open or not, unless it is this machine, where a proxy may be: half of all.
pub const CONNECTIONS_OF_LINE_MAX: usize = 2_048;

/// Tells lines apart without their addresses. A line is an IPv4 address or an IPv6 /64.
#[derive(Default)]
pub(crate) struct Lines(RandomState);

impl Lines {
    pub(crate) fn of(&self, address: IpAddr) -> u64 {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.0.hash_one(v4),
            IpAddr::V6(v6) => self.0.hash_one(&v6.octets()[..8]),
        }
    }
}

/// What became of connections since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Open now.
    pub open: usize,
    /// Of these, half-open.
    pub half_open: usize,
    /// Taken in.
    pub accepted: u64,
    /// Refused: their line had enough.
    pub refused: u64,
    /// Cut: half-open, and the oldest when there were enough.
    pub crowded_out: u64,
    /// Cut: silent, or in the middle of a word, for longer than that may take.
    pub silent: u64,
    /// Cut: what they said was no beginning of anything, or no frame or message where one had to begin.
    pub senseless: u64,
    /// Cut: well-formed, but from nobody that is known here.
    pub unknown: u64,
}

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    CrowdedOut,
    Silent,
    Senseless,
    Unknown,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Crowd {
    lines: Lines,
    state: Mutex<State>,
    accepted: AtomicU64,
    refused: AtomicU64,
    cut: [AtomicU64; 4],
}

#[derive(Default)]
struct State {
    by_line: HashMap<u64, Line>,
    /// The half-open ones with their lines, the oldest first.
    half_open: BTreeMap<u64, u64>,
    open: usize,
    number: u64,
}

#[derive(Default)]
struct Line {
    connections: usize,
    /// The oldest first; to drop one cuts it.
    half_open: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Crowd {
    /// Takes a connection in, half-open, unless its line has enough.
    pub(crate) fn enter(self: &Arc<Self>, remote: IpAddr) -> Option<(Place, HalfOpen)> {
        let line_key = self.lines.of(remote);
        let (sender, crowded_out) = oneshot::channel();
        let mut state = self.state();
        let number = state.number;
        let line = state.by_line.entry(line_key).or_default();
        if line.connections >= CONNECTIONS_OF_LINE_MAX && !remote.to_canonical().is_loopback() {
            self.refused.fetch_add(1, Relaxed);
            return None;
        }
        line.connections += 1;
        line.half_open.insert(number, sender);
        let oldest_of_line = match line.half_open.len() > HALF_OPEN_OF_LINE_MAX {
            true => line.half_open.first_key_value().map(|(number, _)| (*number, line_key)),
            false => None,
        };
        state.half_open.insert(number, line_key);
        state.open += 1;
        state.number += 1;
        let too_many = state.half_open.len() > HALF_OPEN_MAX;
        let oldest = oldest_of_line
            .or_else(|| state.half_open.first_key_value().map(|(a, b)| (*a, *b)).filter(|_| too_many));
        if let Some((number, line)) = oldest {
            state.forget(number, line);
            self.note(Cut::CrowdedOut);
        }
        self.accepted.fetch_add(1, Relaxed);
        let place = Place { crowd: Arc::clone(self), line: line_key };
        Some((place, HalfOpen { crowd: Arc::clone(self), line: line_key, number, crowded_out }))
    }

    /// Counts a connection that is cut.
    pub(crate) fn note(&self, cut: Cut) {
        self.cut[cut as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        let (open, half_open) = {
            let state = self.state();
            (state.open, state.half_open.len())
        };
        let cut = |cut: Cut| self.cut[cut as usize].load(Relaxed);
        ConnectionStats {
            open,
            half_open,
            accepted: self.accepted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            crowded_out: cut(Cut::CrowdedOut),
            silent: cut(Cut::Silent),
            senseless: cut(Cut::Senseless),
            unknown: cut(Cut::Unknown),
        }
    }

    /// What a panic left behind the lock is still whole enough to count with.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, number: u64, line: u64) {
        self.half_open.remove(&number);
        if let Some(line) = self.by_line.get_mut(&line) {
            line.half_open.remove(&number);
        }
    }
}

/// That a connection is counted.
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    line: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.crowd.state();
        state.open -= 1;
        if let Some(line) = state.by_line.get_mut(&self.line) {
            line.connections -= 1;
            if line.connections == 0 {
                state.by_line.remove(&self.line);
            }
        }
    }
}

/// That a connection is half-open; to be dropped when it is not any more.
pub(crate) struct HalfOpen {
    crowd: Arc<Crowd>,
    line: u64,
    number: u64,
    crowded_out: oneshot::Receiver<()>,
}

impl HalfOpen {
    /// Waits until the connection has to make room for another; it is counted already.
    pub(crate) async fn crowded_out(&mut self) {
        let _ = (&mut self.crowded_out).await;
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.crowd.state().forget(self.number, self.line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn host(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0xc000_0200 + number).into()
    }

    fn is_cut(half_open: &mut HalfOpen) -> bool {
        half_open.crowded_out.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn the_oldest_half_open_ones_of_a_line_make_room_and_others_do_not() {
        let crowd = Arc::new(Crowd::default());
        let mut other = crowd.enter(host(2)).expect("taken in");
        let mut held: Vec<_> =
            (0..2 * HALF_OPEN_OF_LINE_MAX).map(|_| crowd.enter(host(1)).expect("taken in")).collect();
        let cut: Vec<bool> = held.iter_mut().map(|(_, half_open)| is_cut(half_open)).collect();
        let (older, newer) = cut.split_at(HALF_OPEN_OF_LINE_MAX);
        assert!(older.iter().all(|is_cut| *is_cut) && newer.iter().all(|is_cut| !is_cut));
        assert!(!is_cut(&mut other.1), "another line's");
        let stats = crowd.stats();
        assert_eq!((stats.crowded_out, stats.half_open), (512, HALF_OPEN_OF_LINE_MAX + 1));
    }

    #[test]
    fn lines_without_end_crowd_each_other_out_and_nobody_who_was_served() {
        let crowd = Arc::new(Crowd::default());
        let (_place, half_open) = crowd.enter(host(0)).expect("taken in");
        drop(half_open);
        let held: Vec<_> =
            (0..10_000).map(|number| crowd.enter(host(number / 100)).expect("taken in")).collect();
        assert_eq!(crowd.stats().half_open, HALF_OPEN_MAX);
        assert_eq!(crowd.stats().crowded_out, 10_000 - HALF_OPEN_MAX as u64);
        drop(held);
        assert_eq!(crowd.stats().open, 1);
    }

    #[test]
    fn one_line_has_so_many_connections_and_this_machine_more() {
        let crowd = Arc::new(Crowd::default());
        let enter = |from: IpAddr| crowd.enter(from).map(|(place, _)| place);
        let mut held: Vec<_> =
            (0..CONNECTIONS_OF_LINE_MAX).map(|_| enter(host(1)).expect("taken in")).collect();
        assert!(enter(host(1)).is_none());
        assert!(enter("::ffff:192.0.2.1".parse().expect("the same line")).is_none());
        assert!(enter(host(2)).is_some());
        held.pop();
        assert!(enter(host(1)).is_some());
        let local: Vec<_> = (0..4_000).map_while(|_| enter(Ipv4Addr::LOCALHOST.into())).collect();
        assert_eq!((local.len(), crowd.stats().refused), (4_000, 2));
        drop((held, local));
        assert_eq!(crowd.stats().open, 0);
        assert!(crowd.state().by_line.is_empty() && crowd.state().half_open.is_empty());
    }
}
