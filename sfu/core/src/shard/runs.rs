//! The outgoing batch: sealed datagrams of some subscribers back to back in one buffer, cut into runs of equal size.
//!
//! A run is what one GSO send carries: datagrams of one size, the last one possibly shorter (Linux `udp(7)`,
//! `UDP_SEGMENT`). The kernel's cost is per send, so the number of datagrams in a run decides what a forwarded
//! packet costs.

use crate::transport::PathId;
use std::ops::RangeInclusive;

/// Most datagrams in one run: the kernel's `UDP_MAX_SEGMENTS` was 64 for years.
pub const RUN_SEGMENTS_MAX: usize = 64;

/// Most bytes in one run: an IP datagram of 65,535 bytes less IPv6 and UDP headers, with room to spare.
pub const RUN_BYTES_MAX: usize = 65_000;

/// Subscribers whose packets are gathered before any of it is given out. Sealing for many and then sending to many keeps
/// either code in the processor's nearest cache, which sealing and sending in turn does not. The first batch is small and
/// each next one twice as large: what arrives while the first ones go out, the rest of a frame, is in time to go out in
/// one run to all others.
const SUBSCRIBERS: RangeInclusive<usize> = 8..=64;

/// Bytes after which no further subscriber's packets are gathered: they are read again when they are sent, and should
/// be in the nearest cache then (32 kB or more).
const BATCH_BYTES: usize = 16 << 10;

/// Room kept for one datagram while it is being written: an Ethernet frame's worth and the SRTP tag.
pub(super) const DATAGRAM_ROOM_BYTES: usize = 1_600;

/// A stretch of the buffer that goes out in one send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) path: PathId,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) segment_bytes: usize,
    pub(super) segments: usize,
    /// A shorter last segment closed the run.
    closed: bool,
}

/// The buffer and its runs. Allocates only until it has grown to the largest batch.
#[derive(Debug)]
pub(super) struct Runs {
    bytes: Vec<u8>,
    used: usize,
    path: PathId,
    /// Whose packets are in it, and how many's may be.
    subscribers: usize,
    subscribers_max: usize,
    runs: Vec<Run>,
    next: usize,
}

impl Runs {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            used: 0,
            path: PathId(0),
            subscribers: 0,
            subscribers_max: *SUBSCRIBERS.start(),
            runs: Vec::new(),
            next: 0,
        }
    }

    /// Has what is pushed from now on go out on this path.
    pub(super) fn turn_to(&mut self, path: PathId) {
        self.path = path;
        self.subscribers += 1;
    }

    /// Whether it is time to give out what was gathered.
    pub(super) fn is_full(&self) -> bool {
        self.subscribers >= self.subscribers_max || self.used >= BATCH_BYTES
    }

    /// Forgets everything, keeping the memory.
    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.next = 0;
        self.runs.clear();
        self.subscribers = 0;
    }

    /// Has the next batch be larger.
    pub(super) fn grow(&mut self) {
        self.subscribers_max = (self.subscribers_max * 2).min(*SUBSCRIBERS.end());
    }

    /// Nobody has anything to send: the next batch is a first one.
    pub(super) fn rest(&mut self) {
        self.subscribers_max = *SUBSCRIBERS.start();
    }

    /// Lets `write` put one datagram at the end; it gets at least [`DATAGRAM_ROOM_BYTES`] and returns the
    /// datagram's length, 0 for none.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        let room_end = self.used + DATAGRAM_ROOM_BYTES;
        if self.bytes.len() < room_end {
            self.bytes.resize(room_end.next_power_of_two(), 0);
        }
        let length = write(&mut self.bytes[self.used..room_end]);
        debug_assert!(length <= DATAGRAM_ROOM_BYTES);
        if length == 0 {
            return;
        }
        let (start, end) = (self.used, self.used + length);
        self.used = end;
        if let Some(run) = self.runs.last_mut()
            && !run.closed
            && run.path == self.path
            && length <= run.segment_bytes
            && run.segments < RUN_SEGMENTS_MAX
            && end - run.start <= RUN_BYTES_MAX
        {
            run.end = end;
            run.segments += 1;
            run.closed = length < run.segment_bytes;
            return;
        }
        self.runs.push(Run {
            path: self.path,
            start,
            end,
            segment_bytes: length,
            segments: 1,
            closed: false,
        });
    }

    /// The next run that has not been taken yet.
    pub(super) fn take_next(&mut self) -> Option<Run> {
        let run = self.runs.get(self.next).copied()?;
        self.next += 1;
        Some(run)
    }

    /// A run's bytes.
    pub(super) fn contents(&self, run: Run) -> &[u8] {
        &self.bytes[run.start..run.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs_of(lengths: &[usize]) -> Vec<Vec<usize>> {
        let mut runs = Runs::new();
        for &length in lengths {
            runs.push(|room| {
                room[..length].fill(length as u8);
                length
            });
        }
        let mut all = Vec::new();
        while let Some(run) = runs.take_next() {
            let sizes: Vec<usize> = runs.contents(run).chunks(run.segment_bytes).map(<[u8]>::len).collect();
            assert_eq!(sizes.len(), run.segments);
            all.push(sizes);
        }
        all
    }

    #[test]
    fn a_shorter_datagram_ends_its_run_and_a_longer_one_starts_the_next() {
        assert_eq!(runs_of(&[9, 9, 8, 9, 10]), vec![vec![9, 9, 8], vec![9], vec![10]]);
    }

    #[test]
    fn what_goes_to_another_path_is_another_run() {
        let mut runs = Runs::new();
        for path in [1, 1, 2] {
            runs.turn_to(PathId(path));
            runs.push(|_| 9);
        }
        let all: Vec<_> = std::iter::from_fn(|| runs.take_next()).collect();
        let all: Vec<_> = all.iter().map(|run| (run.path, run.segments, runs.contents(*run).len())).collect();
        assert_eq!(all, [(PathId(1), 2, 18), (PathId(2), 1, 9)]);
    }

    #[test]
    fn a_batch_has_its_fill_of_subscribers_or_of_bytes() {
        let mut runs = Runs::new();
        let subscribers = |runs: &mut Runs| {
            let fill = (1..).find(|path| {
                runs.turn_to(PathId(*path));
                runs.is_full()
            });
            runs.clear();
            runs.grow();
            fill.unwrap()
        };
        assert_eq!([(); 5].map(|()| subscribers(&mut runs)), [8, 16, 32, 64, 64]);
        runs.rest();
        assert_eq!(subscribers(&mut runs), 8);
        runs.turn_to(PathId(0));
        for _ in 0..BATCH_BYTES.div_ceil(1_000) {
            assert!(!runs.is_full());
            runs.push(|_| 1_000);
        }
        assert!(runs.is_full());
    }

    #[test]
    fn a_datagram_that_was_not_written_leaves_no_trace() {
        assert_eq!(runs_of(&[9, 0, 9]), vec![vec![9, 9]]);
    }

    proptest! {
        #[test]
        fn runs_hold_every_datagram_in_order_within_the_kernels_limits(
            lengths in proptest::collection::vec(1usize..1_500, 0..300),
        ) {
            let runs = runs_of(&lengths);
            prop_assert_eq!(runs.concat(), lengths);
            for run in runs {
                prop_assert!(run.len() <= RUN_SEGMENTS_MAX);
                prop_assert!(run.iter().sum::<usize>() <= RUN_BYTES_MAX);
            }
        }
    }
}
