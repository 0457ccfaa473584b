//! When the packets of a stream are due. A packet that could not be sent in time stays due when it was: latency is
//! counted from there, so that a stalled driver cannot hide what it kept waiting (coordinated omission).

/// How the packets of a frame are spread over its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// At equal distances, as a pacer in the sender would.
    Even,
    /// All at the frame's beginning, as browsers send small frames.
    Burst,
}

/// The rhythm of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// When the first packet is due.
    pub(crate) start_ns: u64,
    /// Packets in each frame, at least 1.
    pub(crate) packets_per_frame: u32,
    /// Frames in `per_ns`, at least 1: a ratio, so that no rounding adds up.
    pub(crate) frames: u64,
    /// See `frames`.
    pub(crate) per_ns: u64,
    /// See [`Pace`].
    pub(crate) pace: Pace,
}

/// One packet's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Counts the frames.
    pub(crate) frame: u32,
    /// Counts the packets of the frame.
    pub(crate) packet: u32,
}

impl Schedule {
    /// When the packet with this counter is due.
    pub(crate) fn due_ns(&self, counter: u32) -> u64 {
        let per_frame = u128::from(self.packets_per_frame);
        let counter = match self.pace {
            Pace::Even => u128::from(counter),
            Pace::Burst => u128::from(counter) / per_frame * per_frame,
        };
        let offset = counter * u128::from(self.per_ns) / (u128::from(self.frames) * per_frame);
        self.start_ns.saturating_add(offset as u64)
    }

    /// Which packet of which frame it is.
    pub(crate) fn place(&self, counter: u32) -> Place {
        Place { frame: counter / self.packets_per_frame, packet: counter % self.packets_per_frame }
    }

    /// How many packets are due in `from_ns..to_ns`, and the counter of the first.
    pub(crate) fn due_within(&self, from_ns: u64, to_ns: u64) -> (u32, u32) {
        let first = self.first_at(from_ns);
        (first, self.first_at(to_ns.max(from_ns)) - first)
    }

    /// The counter of the first packet due at `at_ns` or later.
    fn first_at(&self, at_ns: u64) -> u32 {
        let (mut low, mut high) = (0, u32::MAX);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.due_ns(middle) < at_ns {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn schedule(pace: Pace) -> Schedule {
        Schedule { start_ns: 1_000, packets_per_frame: 8, frames: 25, per_ns: SECOND_NS, pace }
    }

    #[test]
    fn even_packets_are_equally_far_apart() {
        let schedule = schedule(Pace::Even);
        for counter in 0..1_000 {
            assert_eq!(schedule.due_ns(counter), 1_000 + u64::from(counter) * 5_000_000);
        }
    }

    #[test]
    fn the_packets_of_a_burst_are_due_at_once_and_bursts_a_frame_apart() {
        let schedule = schedule(Pace::Burst);
        for counter in 0..1_000 {
            assert_eq!(schedule.due_ns(counter), 1_000 + u64::from(counter / 8) * 40_000_000);
        }
        assert_eq!(schedule.place(17), Place { frame: 2, packet: 1 });
    }

    proptest! {
        #[test]
        fn a_rate_that_does_not_divide_a_second_never_drifts(
            frames in 1..10_000_u64, packets_per_frame in 1..40_u32, seconds in 1..3_000_u64, is_even: bool,
        ) {
            let pace = if is_even { Pace::Even } else { Pace::Burst };
            let schedule = Schedule { start_ns: 0, packets_per_frame, frames, per_ns: SECOND_NS, pace };
            let counter = (frames * seconds) as u32 * packets_per_frame;
            prop_assert_eq!(schedule.due_ns(counter), seconds * SECOND_NS);
            let (first, count) = schedule.due_within(0, seconds * SECOND_NS);
            prop_assert_eq!((first, count), (0, counter));
        }
    }
}
