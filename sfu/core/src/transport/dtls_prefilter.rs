//! What DTLS datagrams have to get through before the DTLS library sees a byte of them.
//!
//! The library reassembles handshake messages in super-quadratic time and queues what it cannot read yet without a
//! bound. So messages are reassembled here, in constant time a fragment and bounded memory, and handed over whole, once
//! and in order; whatever the library would queue is counted out. It never decrypts, answers or judges a handshake:
//! that is the library's.

use arrayvec::ArrayVec;

/// Most records of one datagram that are looked at: a browser's last flight has 5.
pub const RECORDS_PER_DATAGRAM_MAX: usize = 16;

/// Longest handshake message: a ClientHello with a post-quantum key share has 1.5 kB, an RSA certificate 1 kB.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// Most fragments a message may come in: browsers use 2, and 8 kB in datagrams of the smallest MTU are 16.
pub const FRAGMENTS_MAX: usize = 16;

/// Messages that may arrive before their predecessors: the client's longest flight has 3 in the clear.
pub const MESSAGES_AHEAD_MAX: usize = 4;

/// Most messages of one handshake in the clear: two ClientHellos and the three of the last flight.
pub const MESSAGES_MAX: u16 = 5;

/// Most bytes of handshake that are taken before it is complete: some 20 repetitions of every flight.
pub const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;

/// Most encrypted records before the handshake is complete: one for each repetition of the client's last flight. And as many
/// alerts after it: a peer needs one, and the keys are made anew for each.
pub const NEXT_EPOCH_RECORDS_MAX: u8 = 32;

/// Longest encrypted record that is let through: a Finished has 53 bytes with its header, an alert 39.
pub const ENCRYPTED_RECORD_BYTES_MAX: usize = 128;

/// Most ChangeCipherSpec records, as [`NEXT_EPOCH_RECORDS_MAX`].
pub const CIPHER_CHANGES_MAX: u8 = 32;

/// A record's header (RFC 6347 section 4.1).
pub(super) const RECORD_HEADER_BYTES: usize = 13;
/// A handshake message's header (RFC 6347 section 4.2.2).
pub(super) const HANDSHAKE_HEADER_BYTES: usize = 12;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

pub(super) const CLIENT_HELLO: u8 = 1;
const CERTIFICATE: u8 = 11;
const CERTIFICATE_VERIFY: u8 = 15;
const CLIENT_KEY_EXCHANGE: u8 = 16;

const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;

/// What was let through and what was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefilterCounters {
    /// Messages handed over whole.
    pub messages: u64,
    /// Encrypted records, alerts and changes of cipher handed over.
    pub records: u64,
    /// Messages the library has already, or fragments that came twice: a repeated flight.
    pub repeated: u64,
    /// Records or fragments that do not fit their frame, or that no DTLS 1.2 client sends.
    pub malformed: u64,
    /// Beyond a bound: fragments, lengths, records, or bytes of handshake.
    pub over_bound: u64,
    /// Records before the first message, and encrypted data: there is no data channel.
    pub unexpected: u64,
}

impl PrefilterCounters {
    /// Both together.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            messages: self.messages + other.messages,
            records: self.records + other.records,
            repeated: self.repeated + other.repeated,
            malformed: self.malformed + other.malformed,
            over_bound: self.over_bound + other.over_bound,
            unexpected: self.unexpected + other.unexpected,
        }
    }
}

/// What a datagram was besides what was let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The peer repeats a flight: ours may be lost.
    pub is_repeated: bool,
}

/// A message of which parts have arrived.
struct Message {
    sequence: u16,
    kind: u8,
    body: Vec<u8>,
    /// Received ranges of the body.
    ranges: ArrayVec<(usize, usize), FRAGMENTS_MAX>,
}

impl Message {
    fn is_complete(&self) -> bool {
        let mut ranges = self.ranges.clone();
        ranges.sort_unstable();
        let reached = ranges
            .iter()
            .fold(0, |reached, (from, to)| if *from <= reached { reached.max(*to) } else { reached });
        !ranges.is_empty() && reached == self.body.len()
    }
}

/// The bounds of one handshake.
pub struct Prefilter {
    /// The next message that the library is to get.
    sequence_next: u16,
    /// Messages that are not whole, or whose predecessors are not.
    messages: Vec<Message>,
    /// The records handed over in the clear are numbered anew, since several may have made one.
    record_next: u64,
    handshake_bytes: usize,
    next_epoch_records: u8,
    cipher_changes: u8,
    is_handshake_over: bool,
    counters: PrefilterCounters,
}

impl Default for Prefilter {
    fn default() -> Self {
        Self::new()
    }
}

impl Prefilter {
    /// For a new handshake.
    pub fn new() -> Self {
        Self {
            sequence_next: 0,
            messages: Vec::new(),
            record_next: 0,
            handshake_bytes: 0,
            next_epoch_records: 0,
            cipher_changes: 0,
            is_handshake_over: false,
            counters: PrefilterCounters::default(),
        }
    }

    /// From now on only encrypted alerts pass. Frees what was kept.
    pub fn finish(&mut self) {
        self.is_handshake_over = true;
        self.next_epoch_records = 0;
        self.messages = Vec::new();
    }

    /// What was let through and dropped so far.
    pub fn counters(&self) -> &PrefilterCounters {
        &self.counters
    }

    /// Takes a datagram and appends the records that may go to the library, as one datagram.
    pub fn handle_datagram(&mut self, datagram: &[u8], passed: &mut Vec<u8>) -> Verdict {
        let mut verdict = Verdict::default();
        if !self.is_handshake_over {
            if self.handshake_bytes + datagram.len() > HANDSHAKE_BYTES_MAX {
                self.counters.over_bound += 1;
                return verdict;
            }
            self.handshake_bytes += datagram.len();
        }
        let mut rest = datagram;
        for _ in 0..RECORDS_PER_DATAGRAM_MAX {
            if rest.is_empty() {
                return verdict;
            }
            let Some((record, behind)) = split_record(rest) else {
                self.counters.malformed += 1;
                return verdict;
            };
            rest = behind;
            self.handle_record(record, passed, &mut verdict);
        }
        if !rest.is_empty() {
            self.counters.over_bound += 1;
        }
        verdict
    }

    fn handle_record(&mut self, record: &[u8], passed: &mut Vec<u8>, verdict: &mut Verdict) {
        let body = &record[RECORD_HEADER_BYTES..];
        let epoch = u16::from_be_bytes([record[3], record[4]]);
        match (epoch, record[0]) {
            (0, HANDSHAKE) if self.is_handshake_over => {
                self.counters.repeated += 1;
                verdict.is_repeated = true;
            }
            (0, HANDSHAKE) => self.handle_fragments(body, passed, verdict),
            // What an earlier association of the same path left behind: a handshake begins with a ClientHello.
            _ if self.sequence_next == 0 && !self.is_handshake_over => self.counters.unexpected += 1,
            (0, _) if self.is_handshake_over => self.counters.repeated += 1,
            (0, CHANGE_CIPHER_SPEC) if body == [1] => {
                if self.cipher_changes == CIPHER_CHANGES_MAX {
                    self.counters.over_bound += 1;
                    return;
                }
                self.cipher_changes += 1;
                self.counters.records += 1;
                self.pass(CHANGE_CIPHER_SPEC, &[body], passed);
            }
            // Whoever can forge this sits on the path and could as well swallow the handshake.
            (0, ALERT) if matches!(*body, [FATAL, _] | [_, CLOSE_NOTIFY]) => {
                self.counters.records += 1;
                self.pass(ALERT, &[body], passed);
            }
            (1, HANDSHAKE) if self.is_handshake_over => {
                self.counters.repeated += 1;
                verdict.is_repeated = true;
            }
            (1, HANDSHAKE | ALERT) => {
                if self.next_epoch_records == NEXT_EPOCH_RECORDS_MAX
                    || record.len() > ENCRYPTED_RECORD_BYTES_MAX
                {
                    self.counters.over_bound += 1;
                    return;
                }
                self.next_epoch_records += 1;
                self.counters.records += 1;
                passed.extend_from_slice(record);
            }
            (1, APPLICATION_DATA) => self.counters.unexpected += 1,
            _ => self.counters.malformed += 1,
        }
    }

    fn handle_fragments(&mut self, mut body: &[u8], passed: &mut Vec<u8>, verdict: &mut Verdict) {
        while !body.is_empty() {
            let Some((fragment, behind)) = Fragment::split(body) else {
                self.counters.malformed += 1;
                return;
            };
            body = behind;
            self.handle_fragment(&fragment, verdict);
            self.pass_messages(passed);
        }
    }

    fn handle_fragment(&mut self, fragment: &Fragment<'_>, verdict: &mut Verdict) {
        if fragment.sequence < self.sequence_next {
            self.counters.repeated += 1;
            verdict.is_repeated = true;
            return;
        }
        if !matches!(fragment.kind, CLIENT_HELLO | CERTIFICATE | CERTIFICATE_VERIFY | CLIENT_KEY_EXCHANGE) {
            self.counters.malformed += 1;
            return;
        }
        if fragment.length > MESSAGE_BYTES_MAX
            || fragment.sequence >= MESSAGES_MAX
            || usize::from(fragment.sequence - self.sequence_next) >= MESSAGES_AHEAD_MAX
        {
            self.counters.over_bound += 1;
            return;
        }
        let found = self.messages.iter().position(|message| message.sequence == fragment.sequence);
        let index = found.unwrap_or_else(|| {
            // There is room: MESSAGES_AHEAD_MAX sequence numbers are let in, each once.
            self.messages.push(Message {
                sequence: fragment.sequence,
                kind: fragment.kind,
                body: vec![0; fragment.length],
                ranges: ArrayVec::new(),
            });
            self.messages.len() - 1
        });
        let message = &mut self.messages[index];
        if message.kind != fragment.kind || message.body.len() != fragment.length {
            self.counters.malformed += 1;
            return;
        }
        let (from, to) = (fragment.offset, fragment.offset + fragment.data.len());
        if message.ranges.iter().any(|range| range.0 <= from && to <= range.1) {
            self.counters.repeated += 1;
            return;
        }
        if message.ranges.is_full() {
            self.counters.over_bound += 1;
            return;
        }
        message.body[from..to].copy_from_slice(fragment.data);
        message.ranges.push((from, to));
    }

    fn pass_messages(&mut self, passed: &mut Vec<u8>) {
        while let Some(index) = self
            .messages
            .iter()
            .position(|message| message.sequence == self.sequence_next && message.is_complete())
        {
            let message = self.messages.swap_remove(index);
            self.sequence_next += 1;
            self.counters.messages += 1;
            let length = &(message.body.len() as u32).to_be_bytes()[1..];
            let sequence = &message.sequence.to_be_bytes();
            self.pass(
                HANDSHAKE,
                &[&[message.kind], length, sequence, &[0; 3], length, &message.body],
                passed,
            );
        }
    }

    /// Appends a record in the clear.
    fn pass(&mut self, kind: u8, parts: &[&[u8]], passed: &mut Vec<u8>) {
        let body_bytes: usize = parts.iter().map(|part| part.len()).sum();
        passed.extend_from_slice(&[kind, 0xfe, 0xfd, 0, 0]);
        passed.extend_from_slice(&self.record_next.to_be_bytes()[2..]);
        passed.extend_from_slice(&(body_bytes as u16).to_be_bytes());
        parts.iter().for_each(|part| passed.extend_from_slice(part));
        self.record_next += 1;
    }
}

/// One fragment of a handshake message.
struct Fragment<'a> {
    kind: u8,
    length: usize,
    sequence: u16,
    offset: usize,
    data: &'a [u8],
}

impl<'a> Fragment<'a> {
    fn split(body: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = body.split_at_checked(HANDSHAKE_HEADER_BYTES)?;
        let u24 = |at: usize| u32::from_be_bytes([0, header[at], header[at + 1], header[at + 2]]) as usize;
        let (length, offset) = (u24(1), u24(6));
        let (data, behind) = rest.split_at_checked(u24(9))?;
        if offset + data.len() > length {
            return None;
        }
        let sequence = u16::from_be_bytes([header[4], header[5]]);
        Some((Self { kind: header[0], length, sequence, offset, data }, behind))
    }
}

/// The first record of a datagram, header included, and what is behind it.
fn split_record(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = datagram.get(..RECORD_HEADER_BYTES)?;
    let body_bytes = usize::from(u16::from_be_bytes([header[11], header[12]]));
    // DTLS 1.0 in a first ClientHello, 1.2 everywhere else. The library takes no empty record.
    let is_known = header[1] == 0xfe && matches!(header[2], 0xff | 0xfd) && body_bytes > 0;
    if !is_known {
        return None;
    }
    datagram.split_at_checked(RECORD_HEADER_BYTES + body_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u8, epoch: u16, body: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0xfe, 0xfd];
        out.extend(epoch.to_be_bytes());
        out.extend([0; 6]);
        out.extend((body.len() as u16).to_be_bytes());
        out.extend(body);
        out
    }

    fn fragment(kind: u8, sequence: u16, message: &[u8], from: usize, to: usize) -> Vec<u8> {
        let mut out = vec![kind];
        out.extend(&(message.len() as u32).to_be_bytes()[1..]);
        out.extend(sequence.to_be_bytes());
        out.extend(&(from as u32).to_be_bytes()[1..]);
        out.extend(&((to - from) as u32).to_be_bytes()[1..]);
        out.extend(&message[from..to]);
        record(HANDSHAKE, 0, &out)
    }

    fn hello() -> Vec<u8> {
        (0..1_500).map(|number| number as u8).collect()
    }

    fn whole(kind: u8, sequence: u16, message: &[u8]) -> Vec<u8> {
        fragment(kind, sequence, message, 0, message.len())[RECORD_HEADER_BYTES..].to_vec()
    }

    #[test]
    fn a_client_hello_in_two_datagrams_is_handed_over_whole() {
        let mut filter = Prefilter::new();
        let mut passed = Vec::new();
        filter.handle_datagram(&fragment(CLIENT_HELLO, 0, &hello(), 1_200, 1_500), &mut passed);
        assert!(passed.is_empty());
        filter.handle_datagram(&fragment(CLIENT_HELLO, 0, &hello(), 0, 1_200), &mut passed);
        assert_eq!(passed[RECORD_HEADER_BYTES..], whole(CLIENT_HELLO, 0, &hello()));
        assert_eq!(filter.counters().messages, 1);
    }

    #[test]
    fn messages_are_handed_over_in_order_and_once() {
        let mut filter = Prefilter::new();
        let mut passed = Vec::new();
        filter.handle_datagram(&fragment(CLIENT_HELLO, 1, b"second", 0, 6), &mut passed);
        assert!(passed.is_empty());
        filter.handle_datagram(&fragment(CLIENT_HELLO, 0, b"first", 0, 5), &mut passed);
        let (first, second) = passed.split_at(RECORD_HEADER_BYTES + HANDSHAKE_HEADER_BYTES + 5);
        assert_eq!(first[RECORD_HEADER_BYTES..], whole(CLIENT_HELLO, 0, b"first"));
        assert_eq!(second[RECORD_HEADER_BYTES..], whole(CLIENT_HELLO, 1, b"second"));
        passed.clear();
        let verdict = filter.handle_datagram(&fragment(CLIENT_HELLO, 0, b"first", 0, 5), &mut passed);
        assert!(verdict.is_repeated && passed.is_empty());
    }

    #[test]
    fn a_client_hello_in_2000_fragments_is_dropped() {
        let mut filter = Prefilter::new();
        let mut passed = Vec::new();
        let message = vec![1; 2_000];
        for at in 0..2_000 {
            filter.handle_datagram(&fragment(CLIENT_HELLO, 0, &message, at, at + 1), &mut passed);
        }
        assert!(passed.is_empty());
        assert_eq!(filter.counters().over_bound, 2_000 - FRAGMENTS_MAX as u64);
        assert_eq!(filter.messages.len(), 1);
    }

    #[test]
    fn long_messages_and_those_far_ahead_are_dropped() {
        let mut filter = Prefilter::new();
        let mut passed = Vec::new();
        let long = vec![1; MESSAGE_BYTES_MAX + 1];
        filter.handle_datagram(&fragment(CLIENT_HELLO, 0, &long, 0, 100), &mut passed);
        filter.handle_datagram(&fragment(CERTIFICATE, 4, b"ahead", 0, 5), &mut passed);
        filter.handle_datagram(&fragment(CERTIFICATE, 900, b"ahead", 0, 5), &mut passed);
        assert_eq!(filter.counters().over_bound, 3);
        assert!(filter.messages.is_empty() && passed.is_empty());
    }

    #[test]
    fn a_handshake_has_only_so_many_bytes() {
        let mut filter = Prefilter::new();
        let mut passed = Vec::new();
        for _ in 0..HANDSHAKE_BYTES_MAX / 1_000 + 5 {
            filter.handle_datagram(&record(ALERT, 0, &[0; 1_000 - RECORD_HEADER_BYTES]), &mut passed);
        }
        assert_eq!(filter.counters().unexpected, (HANDSHAKE_BYTES_MAX / 1_000) as u64);
        assert_eq!(filter.counters().over_bound, 5);
    }

    #[test]
    fn encrypted_records_before_the_end_are_bounded() {
        let mut filter = Prefilter::new();
        let mut passed = Vec::new();
        filter.handle_datagram(&record(HANDSHAKE, 1, &[9; 40]), &mut passed);
        assert!(passed.is_empty(), "a handshake begins with a ClientHello");
        filter.handle_datagram(&fragment(CLIENT_HELLO, 0, b"hello", 0, 5), &mut passed);
        for _ in 0..100 {
            filter.handle_datagram(&record(HANDSHAKE, 1, &[9; 40]), &mut passed);
            filter.handle_datagram(&record(CHANGE_CIPHER_SPEC, 0, &[1]), &mut passed);
        }
        let bound = u64::from(NEXT_EPOCH_RECORDS_MAX) + u64::from(CIPHER_CHANGES_MAX);
        assert_eq!(filter.counters().records, bound);
        assert_eq!(filter.counters().over_bound, 200 - bound);
    }

    #[test]
    fn after_the_handshake_only_encrypted_alerts_pass() {
        let mut filter = Prefilter::new();
        filter.finish();
        let mut passed = Vec::new();
        assert!(filter.handle_datagram(&fragment(CERTIFICATE, 2, b"again", 0, 5), &mut passed).is_repeated);
        assert!(filter.handle_datagram(&record(HANDSHAKE, 1, &[9; 40]), &mut passed).is_repeated);
        filter.handle_datagram(&record(ALERT, 0, &[FATAL, 40]), &mut passed);
        filter.handle_datagram(&record(APPLICATION_DATA, 1, &[9; 40]), &mut passed);
        assert!(passed.is_empty());
        let alert = record(ALERT, 1, &[9; 26]);
        filter.handle_datagram(&alert, &mut passed);
        assert_eq!(passed, alert);
    }

    #[test]
    fn a_fragment_beyond_its_message_is_malformed() {
        let mut filter = Prefilter::new();
        let mut bad = fragment(CLIENT_HELLO, 0, b"hello", 0, 5);
        bad[RECORD_HEADER_BYTES + 8] = 1;
        filter.handle_datagram(&bad, &mut Vec::new());
        assert_eq!(filter.counters().malformed, 1);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_stay_bounded(
            datagrams in proptest::collection::vec(
                (prop_oneof![Just(20u8), Just(21), Just(22), Just(23), any::<u8>()], 0u16..3,
                 proptest::collection::vec(any::<u8>(), 0..200)), 0..50)
        ) {
            let mut filter = Prefilter::new();
            let mut passed = Vec::new();
            for (kind, epoch, body) in datagrams {
                filter.handle_datagram(&record(kind, epoch, &body), &mut passed);
                filter.handle_datagram(&body, &mut passed);
            }
            prop_assert!(filter.messages.len() <= MESSAGES_AHEAD_MAX);
        }

        #[test]
        fn any_cut_and_order_gives_the_message_back(
            cuts in proptest::collection::btree_set(1usize..1_499, 0..FRAGMENTS_MAX - 1), seed: u64
        ) {
            let message = hello();
            let mut edges = vec![0];
            edges.extend(cuts);
            edges.push(message.len());
            let mut pieces: Vec<_> = edges.windows(2).map(|edge| (edge[0], edge[1])).collect();
            let count = pieces.len();
            pieces.rotate_left((seed as usize) % count);
            let mut filter = Prefilter::new();
            let mut passed = Vec::new();
            for (from, to) in pieces {
                filter.handle_datagram(&fragment(CLIENT_HELLO, 0, &message, from, to), &mut passed);
            }
            prop_assert_eq!(&passed[RECORD_HEADER_BYTES..], &whole(CLIENT_HELLO, 0, &message)[..]);
        }
    }
}
