//! The books on what arrived: for each subscriber and stream, what came, when, how often and in which order.
//!
//! Only packets that were due within the window count, so that nothing depends on when the counting was switched
//! on. Latency is counted from when a packet was due, not from when it was sent.

use super::stamp::Stamp;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Latest counters of a flow that are told apart: a packet that comes later than this many others is not counted.
const REMEMBERED: u32 = 1_024;

/// Packets of a stream whose way to all subscribers is followed at the same time.
const SPREAD_SLOTS: usize = 256;

/// Longest latency that is told apart, in ns: a minute. Longer ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Names what one subscriber gets of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowId(usize);

struct Flow {
    subscriber: usize,
    stream: u32,
    /// Highest counter seen, and a bit for each of the [`REMEMBERED`] up to it.
    highest: Option<u32>,
    seen: [u64; REMEMBERED as usize / 64],
    /// Packets of the window, each once; first and last counter of them.
    unique: u32,
    first: u32,
    last: u32,
    duplicates: u32,
    reordered: u32,
    repaired: u32,
    /// When a frame that can be decoded alone had arrived as a whole.
    first_decodable_ns: Option<u64>,
    /// The newest such frame that has begun, until one is whole.
    key_frame: Option<KeyFrame>,
    arrivals: u64,
}

/// A key frame of which packets arrive, in whatever order.
#[derive(Clone, Copy)]
struct KeyFrame {
    first: u32,
    last: Option<u32>,
    arrived: u32,
}

/// When a packet reached the first and the last of those who get it.
#[derive(Clone, Copy, Default)]
struct Spread {
    counter: u32,
    arrived: u32,
    first_ns: u64,
    last_ns: u64,
}

struct StreamBooks {
    subscribers: u32,
    spreads: Box<[Spread; SPREAD_SLOTS]>,
}

/// See the module.
pub(crate) struct Ledger {
    window: Option<(u64, u64)>,
    /// Subscribers with smaller numbers are counted in a window, no others.
    counted: usize,
    streams: Vec<StreamBooks>,
    flows: Vec<Flow>,
    latency_ns: Histogram<u64>,
    spread_ns: Histogram<u64>,
    strangers: u64,
}

/// What a window came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Packets of the window that arrived, each once a subscriber.
    pub(crate) received: u64,
    /// Packets of the window that should have arrived.
    pub(crate) expected: u64,
    /// Packets that arrived once more.
    pub(crate) duplicates: u64,
    /// Packets that arrived after one with a higher counter.
    pub(crate) reordered: u64,
    /// Packets that came as repairs only.
    pub(crate) repaired: u64,
    /// Flows of which nothing arrived within the window.
    pub(crate) silent_flows: u64,
    /// Stamps of no stream of this run.
    pub(crate) strangers: u64,
    /// From due to arrival, in ns: median, 99th percentile, maximum.
    pub(crate) latency_ns: [u64; 3],
    /// Last minus first subscriber of the same packet, in ns: median, 99th percentile, maximum.
    pub(crate) spread_ns: [u64; 3],
}

impl Ledger {
    /// Books for streams with so many subscribers each.
    pub(crate) fn new(subscribers: &[u32]) -> Self {
        // 3 digits: a hundredth of a percent is far below what the machine's noise lets anyone see.
        let histogram = || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("valid bounds");
        let books = |subscribers: &u32| StreamBooks {
            subscribers: *subscribers,
            spreads: Box::new([Spread::default(); SPREAD_SLOTS]),
        };
        Self {
            window: None,
            counted: usize::MAX,
            streams: subscribers.iter().map(books).collect(),
            flows: Vec::new(),
            latency_ns: histogram(),
            spread_ns: histogram(),
            strangers: 0,
        }
    }

    /// Counts the packets that are due in `from_ns..to_ns`, and no others. What was counted before is forgotten.
    pub(crate) fn open_window(&mut self, from_ns: u64, to_ns: u64) {
        self.window = Some((from_ns, to_ns));
        self.latency_ns.reset();
        self.spread_ns.reset();
        for stream in &mut self.streams {
            stream.spreads.fill(Spread::default());
        }
        for flow in &mut self.flows {
            (flow.unique, flow.first, flow.last) = (0, 0, 0);
            (flow.duplicates, flow.reordered, flow.repaired) = (0, 0, 0);
        }
    }

    /// Counts no packet that is due at `to_ns` or later.
    pub(crate) fn close_window(&mut self, to_ns: u64) {
        if let Some((_, end_ns)) = &mut self.window {
            *end_ns = to_ns.min(*end_ns);
        }
    }

    /// In windows only subscribers with numbers below this are counted, each stream having so many of them.
    pub(crate) fn count_below(&mut self, number: usize, of_stream: u32) {
        self.counted = number;
        for stream in &mut self.streams {
            stream.subscribers = of_stream;
        }
    }

    /// The books on one stream for one subscriber, opened if need be; `None` for no stream of this run.
    pub(crate) fn flow(&mut self, subscriber: usize, stream: u32) -> Option<FlowId> {
        if stream as usize >= self.streams.len() {
            self.strangers += 1;
            return None;
        }
        let known = self.flows.iter().position(|flow| flow.subscriber == subscriber && flow.stream == stream);
        Some(FlowId(known.unwrap_or_else(|| {
            self.flows.push(Flow {
                subscriber,
                stream,
                highest: None,
                seen: [0; REMEMBERED as usize / 64],
                unique: 0,
                first: 0,
                last: 0,
                duplicates: 0,
                reordered: 0,
                repaired: 0,
                first_decodable_ns: None,
                key_frame: None,
                arrivals: 0,
            });
            self.flows.len() - 1
        })))
    }

    /// Notes an arrival, as media or as a repair, which is no duplicate even where it was not needed.
    pub(crate) fn handle_arrival(&mut self, now_ns: u64, flow: FlowId, stamp: &Stamp, is_repair: bool) {
        let flow = &mut self.flows[flow.0];
        flow.arrivals += 1;
        let is_counted = flow.subscriber < self.counted
            && self.window.is_some_and(|(from_ns, to_ns)| (from_ns..to_ns).contains(&stamp.due_ns));
        let order = flow.note(stamp.counter);
        if stamp.is_key && flow.first_decodable_ns.is_none() && order != Order::Duplicate {
            flow.note_key_frame(now_ns, stamp);
        }
        if !is_counted {
            return;
        }
        match order {
            Order::Duplicate if !is_repair => flow.duplicates += 1,
            Order::Late if is_repair => flow.repaired += 1,
            Order::Late => flow.reordered += 1,
            Order::Duplicate | Order::Next | Order::TooLate => {}
        }
        if matches!(order, Order::Duplicate | Order::TooLate) {
            return;
        }
        if flow.unique == 0 {
            (flow.first, flow.last) = (stamp.counter, stamp.counter);
        }
        flow.unique += 1;
        flow.first = flow.first.min(stamp.counter);
        flow.last = flow.last.max(stamp.counter);
        self.latency_ns.saturating_record(now_ns.saturating_sub(stamp.due_ns));
        let books = &mut self.streams[stamp.stream as usize];
        let spread = &mut books.spreads[stamp.counter as usize % SPREAD_SLOTS];
        if spread.arrived == 0 || spread.counter != stamp.counter {
            *spread = Spread { counter: stamp.counter, arrived: 0, first_ns: now_ns, last_ns: now_ns };
        }
        spread.arrived += 1;
        spread.first_ns = spread.first_ns.min(now_ns);
        spread.last_ns = spread.last_ns.max(now_ns);
        if spread.arrived == books.subscribers && books.subscribers > 1 {
            self.spread_ns.saturating_record(spread.last_ns - spread.first_ns);
        }
    }

    /// Flows of which something has arrived, and of which a decodable frame has.
    pub(crate) fn flowing(&self) -> (usize, usize) {
        let decodable = self.flows.iter().filter(|flow| flow.first_decodable_ns.is_some()).count();
        (self.flows.len(), decodable)
    }

    /// When each subscriber's first decodable frame of each of its streams came.
    pub(crate) fn first_decodable_ns(&self) -> impl Iterator<Item = (usize, u32, u64)> {
        self.flows.iter().filter_map(|flow| Some((flow.subscriber, flow.stream, flow.first_decodable_ns?)))
    }

    /// Adds up the window. `sent` is how many packets of a stream were due in it, and the first one's counter;
    /// `is_whole` says whether subscribers get all of a stream, or may change between layers.
    pub(crate) fn summary(
        &self,
        sent: impl Fn(u32) -> u32,
        is_whole: bool,
        flows_expected: usize,
    ) -> Summary {
        let mut summary = Summary { strangers: self.strangers, ..Summary::default() };
        let mut active = 0;
        let counted = self.flows.iter().filter(|flow| flow.subscriber < self.counted);
        for flow in counted.filter(|flow| is_whole || flow.unique > 0) {
            active += usize::from(flow.unique > 0);
            summary.received += u64::from(flow.unique);
            // Of a stream that is got in parts only what lies between its ends can be missed.
            let expected = if is_whole { sent(flow.stream) } else { flow.last - flow.first + 1 };
            summary.expected += u64::from(expected.max(flow.unique));
            summary.duplicates += u64::from(flow.duplicates);
            summary.reordered += u64::from(flow.reordered);
            summary.repaired += u64::from(flow.repaired);
        }
        summary.silent_flows = flows_expected.saturating_sub(active) as u64;
        let values = |h: &Histogram<u64>| [h.value_at_quantile(0.5), h.value_at_quantile(0.99), h.max()];
        summary.latency_ns = values(&self.latency_ns);
        summary.spread_ns = values(&self.spread_ns);
        summary
    }
}

/// How a packet's counter stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Next,
    Late,
    Duplicate,
    TooLate,
}

impl Flow {
    fn note_key_frame(&mut self, now_ns: u64, stamp: &Stamp) {
        if stamp.is_frame_start {
            self.key_frame = Some(KeyFrame { first: stamp.counter, last: None, arrived: 0 });
        }
        let Some(frame) = self.key_frame.as_mut().filter(|frame| stamp.counter >= frame.first) else {
            return;
        };
        frame.arrived += 1;
        if stamp.is_frame_end {
            frame.last = Some(stamp.counter);
        }
        if frame.last.is_some_and(|last| last - frame.first + 1 == frame.arrived) {
            self.first_decodable_ns = Some(now_ns);
        }
    }

    fn note(&mut self, counter: u32) -> Order {
        let at = |counter: u32| ((counter % REMEMBERED) as usize / 64, 1_u64 << (counter % 64));
        let (word, bit) = at(counter);
        match self.highest {
            Some(highest) if counter <= highest => {
                if highest - counter >= REMEMBERED {
                    return Order::TooLate;
                }
                let is_seen = self.seen[word] & bit != 0;
                self.seen[word] |= bit;
                if is_seen { Order::Duplicate } else { Order::Late }
            }
            Some(highest) => {
                if counter - highest >= REMEMBERED {
                    self.seen = Default::default();
                } else {
                    for skipped in highest + 1..counter {
                        let (word, bit) = at(skipped);
                        self.seen[word] &= !bit;
                    }
                }
                self.seen[word] |= bit;
                self.highest = Some(counter);
                Order::Next
            }
            None => {
                self.seen[word] |= bit;
                self.highest = Some(counter);
                Order::Next
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn stamp(counter: u32) -> Stamp {
        // Frames of four, each fourth of them a key frame.
        let is_key = (counter / 4).is_multiple_of(4);
        let (is_frame_start, is_frame_end) = (counter.is_multiple_of(4), counter % 4 == 3);
        Stamp { stream: 0, counter, due_ns: u64::from(counter) * 1_000, is_key, is_frame_start, is_frame_end }
    }

    fn arrive(ledger: &mut Ledger, subscriber: usize, counter: u32, late_ns: u64) {
        let flow = ledger.flow(subscriber, 0).unwrap();
        ledger.handle_arrival(stamp(counter).due_ns + late_ns, flow, &stamp(counter), false);
    }

    #[test]
    fn gaps_duplicates_and_reordering_are_told_apart() {
        let mut ledger = Ledger::new(&[1]);
        ledger.open_window(0, 10_000);
        for counter in [0, 1, 3, 2, 2, 5, 9, 12] {
            arrive(&mut ledger, 0, counter, 500);
        }
        let summary = ledger.summary(|_| 10, true, 1);
        assert_eq!((summary.received, summary.expected), (6, 10));
        assert_eq!((summary.duplicates, summary.reordered), (1, 1));
    }

    #[test]
    fn a_picture_begins_when_a_whole_key_frame_has_come() {
        for (counters, at_ns) in [
            (&[1, 2, 3, 4, 5, 16, 17, 18][..], None),
            (&[0, 1, 2, 3], Some(3_500)),
            (&[0, 1, 3, 4, 2], Some(2_500)), // its last packet late
            (&[2, 3, 16, 17, 17, 18, 19], Some(19_500)),
            (&[0, 1, 2, 16, 3, 17, 18, 19], Some(19_500)), // the one before is given up for a newer one
        ] {
            let mut ledger = Ledger::new(&[1]);
            for counter in counters {
                arrive(&mut ledger, 0, *counter, 500);
            }
            let found = ledger.first_decodable_ns().next().map(|(_, _, ns)| ns);
            assert_eq!(found, at_ns, "{counters:?}");
        }
    }

    #[test]
    fn a_window_forgets_the_one_before_and_counts_those_who_were_there() {
        let mut ledger = Ledger::new(&[9]);
        ledger.count_below(2, 2);
        ledger.open_window(0, 3_000);
        for counter in 0..3 {
            arrive(&mut ledger, 0, counter, 700);
        }
        ledger.open_window(3_000, u64::MAX);
        for counter in 3..9 {
            for subscriber in 0..4 {
                arrive(&mut ledger, subscriber, counter, 100 * (subscriber as u64 + 1));
            }
            if counter == 6 {
                ledger.close_window(7_000);
            }
        }
        let summary = ledger.summary(|_| 4, true, 2);
        assert_eq!((summary.received, summary.expected, summary.silent_flows), (8, 8, 0));
        assert_eq!((summary.latency_ns[2], summary.spread_ns), (200, [100; 3]));
    }

    #[test]
    fn the_spread_is_that_of_the_last_behind_the_first_subscriber() {
        let mut ledger = Ledger::new(&[3]);
        ledger.open_window(0, 10_000);
        for (subscriber, late_ns) in [(0, 400), (1, 900), (2, 600)] {
            arrive(&mut ledger, subscriber, 3, late_ns);
        }
        let summary = ledger.summary(|_| 1, true, 3);
        assert_eq!(summary.spread_ns, [500; 3]);
        assert_eq!(summary.latency_ns[2], 900);
    }

    #[test]
    fn a_stream_that_nobody_has_sent_is_a_stranger() {
        let mut ledger = Ledger::new(&[1]);
        assert!(ledger.flow(0, 1).is_none());
        assert_eq!(ledger.summary(|_| 0, true, 1).strangers, 1);
    }

    #[test]
    fn a_silent_flow_is_counted() {
        let mut ledger = Ledger::new(&[2]);
        ledger.open_window(0, 10_000);
        arrive(&mut ledger, 0, 3, 1);
        assert_eq!(ledger.summary(|_| 1, true, 2).silent_flows, 1);
    }

    proptest! {
        /// However packets are shuffled, lost and repeated, each one is counted once.
        #[test]
        fn each_packet_counts_once(counters in proptest::collection::vec(0..900_u32, 0..2_000)) {
            let mut ledger = Ledger::new(&[1]);
            ledger.open_window(0, 1_000_000);
            for counter in &counters {
                arrive(&mut ledger, 0, *counter, 10);
            }
            let unique: BTreeSet<u32> = counters.iter().copied().collect();
            let summary = ledger.summary(|_| 900, true, 1);
            prop_assert_eq!(summary.received, unique.len() as u64);
            prop_assert_eq!(summary.duplicates, (counters.len() - unique.len()) as u64);
        }
    }
}
