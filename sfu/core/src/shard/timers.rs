//! Who wants to be woken when: a heap that forgets lazily.
//!
//! An owner's deadline often moves later (a packet came, consent was renewed) and seldom earlier. So the heap
//! holds at most one live entry an owner, at its earliest known deadline; when that fires too early the owner is
//! asked again and filed anew. Nothing is allocated once the heap has grown to the number of owners.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// What an owner keeps of its place in the heap.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filed(Option<Instant>);

/// A heap of deadlines for owners of type `O`.
#[derive(Debug)]
pub(super) struct Timers<O: Ord + Copy> {
    heap: BinaryHeap<Reverse<(Instant, O)>>,
}

impl<O: Ord + Copy> Timers<O> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Files the owner's deadline if it is earlier than the one on file.
    pub(super) fn file(&mut self, owner: O, filed: &mut Filed, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if filed.0.is_none_or(|known| deadline < known) {
            filed.0 = Some(deadline);
            self.heap.push(Reverse((deadline, owner)));
        }
    }

    /// The earliest deadline on file; it may turn out to be too early, never too late.
    pub(super) fn earliest(&self) -> Option<(Instant, O)> {
        self.heap.peek().map(|Reverse(entry)| *entry)
    }

    /// Takes the next entry that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, O)> {
        if self.earliest()?.0 > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Whether a popped entry is the owner's live one; if so it is no longer on file.
    pub(super) fn claim(filed: &mut Filed, at: Instant) -> bool {
        let is_live = filed.0 == Some(at);
        if is_live {
            filed.0 = None;
        }
        is_live
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn base() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
        Instant::now()
    }

    #[test]
    fn an_earlier_deadline_overtakes_and_the_stale_entry_is_not_claimed() {
        let (start, mut timers, mut filed) = (base(), Timers::new(), Filed::default());
        let at = |ms| start + Duration::from_millis(ms);
        timers.file(1, &mut filed, Some(at(50)));
        timers.file(1, &mut filed, Some(at(20)));
        timers.file(1, &mut filed, Some(at(90))); // later: the owner is asked again at 20
        let mut claimed = Vec::new();
        while let Some((due, _)) = timers.pop_due(at(100)) {
            if Timers::<i32>::claim(&mut filed, due) {
                claimed.push(due);
            }
        }
        assert_eq!(claimed, [at(20)]);
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let (start, mut timers, mut filed) = (base(), Timers::new(), Filed::default());
        timers.file(7, &mut filed, Some(start + Duration::from_millis(1)));
        assert_eq!(timers.pop_due(start), None);
        assert!(timers.pop_due(start + Duration::from_millis(1)).is_some());
    }
}
