//! Queues that nobody waits in: they belong to no subscriber, but to who is handed a packet next.
//!
//! Few have packets waiting at a time, since they are flushed before the next have their turn. So the same few queues go from hand to
//! hand: their memory is still in the cache when the next packet is written there, and whoever waits for nothing holds none.

use super::{Queued, Subscriber};

/// The queues of one room that are empty.
#[derive(Debug, Default)]
pub struct SpareQueues {
    /// The one that was used last at the end.
    queues: Vec<Vec<Queued>>,
}

impl SpareQueues {
    /// Has a subscriber use one, if it has none. To be called before something is queued; without it nothing is lost but memory
    /// that was used before.
    pub fn lend(&mut self, subscriber: &mut Subscriber) {
        if subscriber.queue.capacity() == 0
            && let Some(queue) = self.queues.pop()
        {
            subscriber.queue = queue;
        }
    }

    /// Takes a subscriber's back, if nothing waits in it. No more than `most` are kept.
    pub fn take_back(&mut self, subscriber: &mut Subscriber, most: usize) {
        if subscriber.queue.is_empty() && subscriber.queue.capacity() > 0 {
            let queue = std::mem::take(&mut subscriber.queue);
            if self.queues.len() < most {
                self.queues.push(queue);
            }
        }
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.queues.iter().map(Vec::capacity).sum::<usize>() * size_of::<Queued>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::PeerKey;
    use crate::rtp::{sequence::Sequence, vp8};
    use crate::up::LayerRef;
    use asamblea_seam::UpKind;

    fn queued() -> Queued {
        Queued {
            slot: 0,
            payload_bytes: 1_000,
            marker: false,
            is_repeat: false,
            original: None,
            source: LayerRef { peer: PeerKey::default(), kind: UpKind::Camera, layer: 0 },
            kept: Sequence(1),
            sequence: Sequence(1),
            timestamp: 0,
            vp8_shift: vp8::Shift::default(),
        }
    }

    #[test]
    fn what_one_has_emptied_is_the_next_ones() {
        let (mut spare, mut ana, mut luis) =
            (SpareQueues::default(), Subscriber::default(), Subscriber::default());
        spare.lend(&mut ana);
        assert!(ana.enqueue(queued()), "there is none yet: it is made");
        spare.take_back(&mut ana, 1);
        assert_eq!((ana.queue.len(), spare.memory_bytes()), (1, 0), "something waits in it");
        ana.queue.clear();
        spare.take_back(&mut ana, 1);
        assert_eq!(ana.queue.capacity(), 0);
        assert!(spare.memory_bytes() > 0);
        spare.lend(&mut luis);
        assert!(luis.queue.capacity() > 0);
        assert_eq!(spare.memory_bytes(), 0);
        let place = luis.queue.as_ptr();
        spare.lend(&mut luis);
        assert_eq!(luis.queue.as_ptr(), place, "it has one");
    }

    #[test]
    fn no_more_are_kept_than_is_said() {
        let mut spare = SpareQueues::default();
        for _ in 0..3 {
            let mut subscriber = Subscriber::default();
            subscriber.queue.reserve(10);
            spare.take_back(&mut subscriber, 2);
            assert_eq!(subscriber.queue.capacity(), 0);
        }
        assert_eq!(spare.queues.len(), 2);
    }
}
