//! Trying a higher rate for a moment: a short burst of padding, and how fast it came out at the other end.
//!
//! What the application sends proves only that much of a line. When more is wanted, a burst shows whether there is room,
//! long before the slow growth of the rate would.

/// A burst lasts this long at the rate that it tries, µs.
const BURST_US: f64 = 20_000.0;

/// A burst has at least so many bytes: four packets, so that its length can be told, and no more than a tenth of a second
/// of 100 kbit/s, for which sound may wait behind it; and at most so many: 20 Mbit/s.
const BURST_BYTES: (f64, f64) = (900.0, 24_000.0);

/// A rate that is short of what is wanted by no more than this is enough.
pub const ENOUGH: f64 = 1.05;

/// A burst tries at most this much more than the rate in force.
const STEP: f64 = 2.0;

/// What came out counts as this much of itself: the line has other things to carry.
const MARGIN: f64 = 0.9;

/// After a burst that showed more room the next follows soon, µs; else later and later.
const NEXT_US: (u64, u64, u64) = (200_000, 1_000_000, 4_000_000);

/// How long after its last packet a burst is judged by what is known, µs.
const JUDGED_US: u64 = 600_000;

/// A running burst.
#[derive(Clone, Copy, Debug)]
struct Burst {
    goal_bps: f64,
    began_at_us: u64,
    sent: u32,
    arrived: u32,
    bytes: u32,
    first: Option<(i64, u32)>,
    last_us: i64,
}

/// Bursts, one at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Probe {
    /// Names the running burst; never 0.
    id: u8,
    burst: Option<Burst>,
    next_at_us: u64,
    wait_us: u64,
}

impl Probe {
    /// Decides whether to try now. `wanted_bps` is what the application would like to send. Returns the bytes of
    /// padding to send at once, each packet named by [`Probe::id`].
    pub fn begin(&mut self, now_us: u64, rate_bps: f64, wanted_bps: f64) -> Option<usize> {
        if self.burst.is_some() || now_us < self.next_at_us || wanted_bps <= rate_bps * ENOUGH {
            return None;
        }
        let goal_bps = wanted_bps.min(rate_bps * STEP).max(rate_bps * 1.2);
        self.id = self.id.checked_add(1).unwrap_or(1);
        self.burst = Some(Burst {
            goal_bps,
            began_at_us: now_us,
            sent: 0,
            arrived: 0,
            bytes: 0,
            first: None,
            last_us: 0,
        });
        Some((goal_bps / 8e6 * BURST_US).clamp(BURST_BYTES.0, BURST_BYTES.1) as usize)
    }

    /// The running burst's name.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Whether a burst is under way.
    pub fn is_running(&self) -> bool {
        self.burst.is_some()
    }

    /// Counts a packet of the running burst.
    pub fn sent(&mut self) {
        if let Some(burst) = &mut self.burst {
            burst.sent += 1;
        }
    }

    /// A packet of a burst arrived, at µs of the receiver's clock. True if it is the first, which no other of the burst
    /// stood before in a queue.
    pub fn arrive(&mut self, id: u8, arrived_us: i64, bytes: u16) -> bool {
        let Some(burst) = self.burst.as_mut().filter(|_| id == self.id) else { return false };
        burst.arrived += 1;
        burst.bytes += u32::from(bytes);
        let first = burst.first.get_or_insert((arrived_us, u32::from(bytes)));
        if arrived_us < first.0 {
            *first = (arrived_us, u32::from(bytes));
        }
        burst.last_us = if burst.arrived == 1 { arrived_us } else { burst.last_us.max(arrived_us) };
        burst.arrived == 1
    }

    /// Judges the running burst when it is all in or its time is over: the rate that it has shown, bit/s.
    pub fn judge(&mut self, now_us: u64) -> Option<f64> {
        let burst = self.burst?;
        let is_whole = burst.sent > 0 && burst.arrived >= burst.sent;
        if !is_whole && now_us.saturating_sub(burst.began_at_us) < JUDGED_US {
            return None;
        }
        self.burst = None;
        // A burst with holes was too much, or says too little.
        let shown = burst
            .first
            .filter(|_| burst.sent >= 4 && burst.arrived * 10 >= burst.sent * 8)
            .map(|(first_us, first_bytes)| {
                let span_us = (burst.last_us - first_us).max(1) as f64;
                f64::from(burst.bytes - first_bytes) * 8e6 / span_us
            })
            .map(|bps| bps.min(burst.goal_bps) * MARGIN);
        let has_room = shown.is_some_and(|bps| bps >= burst.goal_bps * MARGIN * 0.8);
        self.wait_us = if has_room { NEXT_US.0 } else { (self.wait_us * 2).clamp(NEXT_US.1, NEXT_US.2) };
        self.next_at_us = now_us + self.wait_us;
        shown
    }

    /// What a burst showed is to be shown once more, soon.
    pub fn again(&mut self, now_us: u64) {
        self.wait_us = NEXT_US.0;
        self.next_at_us = now_us + self.wait_us;
    }

    /// The line has just turned out to be narrower: nothing is tried for a while.
    pub fn back_off(&mut self, now_us: u64) {
        self.burst = None;
        self.wait_us = self.wait_us.max(NEXT_US.1);
        self.next_at_us = self.next_at_us.max(now_us + self.wait_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a burst at a line of a capacity; returns what it showed.
    fn shown(capacity_bps: f64, rate_bps: f64, wanted_bps: f64) -> Option<f64> {
        let mut probe = Probe::default();
        let bytes = probe.begin(1_000_000, rate_bps, wanted_bps)?;
        let packet_us = 240.0 * 8e6 / capacity_bps;
        for n in 0..bytes.div_ceil(240) {
            probe.sent();
            probe.arrive(probe.id(), (n as f64 * packet_us) as i64, 240);
        }
        probe.judge(1_100_000)
    }

    #[test]
    fn room_is_shown_as_far_as_it_was_tried() {
        assert_eq!(shown(50e6, 500_000.0, 800_000.0), Some(800_000.0 * MARGIN));
        assert_eq!(shown(50e6, 500_000.0, 8_000_000.0), Some(1_000_000.0 * MARGIN));
    }

    #[test]
    fn a_narrow_line_is_measured() {
        let bps = shown(600_000.0, 500_000.0, 1_000_000.0).expect("all arrived");
        assert!((500_000.0..600_000.0).contains(&bps), "{bps}");
    }

    #[test]
    fn nothing_is_tried_when_nothing_is_wanted_or_it_was_tried_in_vain() {
        assert_eq!(shown(1e6, 500_000.0, 500_000.0), None);
        let mut probe = Probe::default();
        assert!(probe.begin(0, 1e5, 1e6).is_some());
        (0..8).for_each(|_| probe.sent());
        assert_eq!(probe.judge(100_000), None, "awaited");
        assert_eq!(probe.judge(JUDGED_US), None, "lost");
        assert!(probe.begin(JUDGED_US + 10_000, 1e5, 1e6).is_none());
        assert!(probe.begin(JUDGED_US + NEXT_US.1, 1e5, 1e6).is_some());
    }
}
