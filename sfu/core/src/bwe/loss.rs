//! Is loss our doing? A line that is too narrow loses more the more is sent; a bad radio link loses whatever is sent.
//!
//! Rate-independent loss is found by trying: when a loss makes the rate go down and the loss does not, it is the line's
//! own, and the rate comes back (draft-ietf-rmcat-gcc-02 section 6 alone would take 10 % of random loss for congestion
//! and starve).

/// A window is judged when it has this many packets, and has lasted this long, µs.
const PACKETS_MIN: u32 = 20;
const WINDOW_US: u64 = 250_000;

/// Loss above the line's own that makes the rate go down (section 6).
const HIGH: f64 = 0.10;

/// What is sent has to fall to this share before it is asked whether what gets through fell as well.
const TRIAL: f64 = 0.75;

/// Windows after which a trial ends in which what is sent does not fall: there is nothing left to send less of.
const TRIAL_WINDOWS: u32 = 4;

/// Windows at the lower rate that a trial is judged by.
const LOW_WINDOWS: u32 = 2;

/// Where between "fell with what is sent" (0) and "did not fall" (1) what gets through may be, if the loss is the
/// line's own.
const OWN: f64 = 0.4;

/// What a window asks of the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// To go down by this factor.
    Decrease(f64),
    /// To go back to what it was before a loss that turned out to be the line's own, bit/s.
    Restore(f64),
}

/// Loss as reported.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loss {
    arrived: u32,
    missing: u32,
    since_us: Option<u64>,
    smoothed: f64,
    /// What the line loses whatever is sent.
    own: f64,
    trial: Option<Trial>,
}

/// Whether loss follows what is sent: from the first decrease on.
#[derive(Clone, Copy, Debug)]
struct Trial {
    rate_bps: f64,
    /// Packets sent and come through, a second, when it began.
    before: (f64, f64),
    windows: u32,
    /// Windows, packets come through and seconds, at the lower rate.
    low: (u32, f64, f64),
    /// Packets sent a second at the lower rate, the sum over its windows.
    low_sent: f64,
}

impl Loss {
    /// Counts packets.
    pub fn count(&mut self, now_us: u64, arrived: u32, missing: u32) {
        self.since_us.get_or_insert(now_us);
        self.arrived += arrived;
        self.missing += missing;
    }

    /// A packet that was counted as missing has arrived.
    pub fn forgive(&mut self) {
        self.missing = self.missing.saturating_sub(1);
        self.arrived += 1;
    }

    /// The share of packets lost lately, 0 to 1.
    pub fn fraction(&self) -> f64 {
        self.smoothed
    }

    /// Judges the running window if it is long enough. `rate_bps` is the rate in force.
    pub fn judge(&mut self, now_us: u64, rate_bps: f64) -> Verdict {
        let total = self.arrived + self.missing;
        let is_whole = self.since_us.is_some_and(|since| now_us.saturating_sub(since) >= WINDOW_US)
            && total >= PACKETS_MIN;
        if !is_whole {
            return Verdict::Keep;
        }
        let seconds = now_us.saturating_sub(self.since_us.unwrap_or(now_us)) as f64 / 1e6;
        let loss = f64::from(self.missing) / f64::from(total);
        let flow = (f64::from(total) / seconds, f64::from(self.arrived) / seconds);
        (self.arrived, self.missing, self.since_us) = (0, 0, None);
        self.smoothed += (loss - self.smoothed) * 0.4;
        self.own = self.own.min(self.smoothed);
        let excess = loss.min(self.smoothed) - self.own;
        if let Some(trial) = &mut self.trial {
            if excess < HIGH / 2.0 {
                self.trial = None;
                return Verdict::Keep;
            }
            trial.windows += 1;
            if flow.0 <= trial.before.0 * TRIAL {
                trial.low = (trial.low.0 + 1, trial.low.1 + flow.1 * seconds, trial.low.2 + seconds);
                trial.low_sent += flow.0;
                if trial.low.0 < LOW_WINDOWS {
                    return Verdict::Keep;
                }
                let sent = trial.low_sent / f64::from(trial.low.0) / trial.before.0;
                let through = trial.low.1 / trial.low.2 / trial.before.1.max(1.0);
                return self.conclude(through < sent + OWN * (1.0 - sent));
            }
            if trial.windows >= TRIAL_WINDOWS {
                return self.conclude(true);
            }
        }
        if excess <= HIGH {
            return Verdict::Keep;
        }
        self.trial.get_or_insert(Trial {
            rate_bps,
            before: flow,
            windows: 0,
            low: (0, 0.0, 0.0),
            low_sent: 0.0,
        });
        Verdict::Decrease(1.0 - 0.5 * excess)
    }

    fn conclude(&mut self, is_own: bool) -> Verdict {
        match self.trial.take() {
            Some(trial) if is_own => {
                self.own = self.smoothed;
                Verdict::Restore(trial.rate_bps)
            }
            _ => Verdict::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs windows over a line; `loss` gives its loss for a rate. Returns the rates.
    fn rates(windows: u64, loss: impl Fn(f64) -> f64) -> Vec<f64> {
        let (mut state, mut rate) = (Loss::default(), 1_000_000.0);
        (0..windows)
            .map(|window| {
                let sent = f64::ceil(rate / 8_000.0 * 0.3);
                let missing = (loss(rate) * sent).round() as u32;
                state.count(window * 300_000, sent as u32 - missing, missing);
                match state.judge(window * 300_000 + 290_000, rate) {
                    Verdict::Keep => {}
                    Verdict::Decrease(factor) => rate *= factor,
                    Verdict::Restore(before) => rate = before,
                }
                rate
            })
            .collect()
    }

    #[test]
    fn a_policer_is_obeyed() {
        let rates = rates(60, |rate| (1.0 - 300_000.0 / rate).max(0.0));
        let last = rates.last().copied().expect("some");
        assert!((200_000.0..360_000.0).contains(&last), "{last}");
    }

    #[test]
    fn loss_that_does_not_follow_the_rate_is_the_lines_own() {
        for own in [0.1, 0.2, 0.3] {
            let rates = rates(60, |_| own);
            assert_eq!(rates.last(), Some(&1_000_000.0), "{own}");
        }
    }

    #[test]
    fn a_narrow_line_that_loses_by_itself_is_still_narrow() {
        let rates = rates(100, |rate| 0.1 + 0.9 * (1.0 - 300_000.0 / rate).max(0.0));
        let last = rates.last().copied().expect("some");
        assert!(last < 500_000.0, "{last}");
    }

    #[test]
    fn few_packets_prove_nothing() {
        let mut state = Loss::default();
        state.count(0, 0, PACKETS_MIN - 1);
        assert_eq!(state.judge(10_000_000, 1e6), Verdict::Keep);
    }
}
