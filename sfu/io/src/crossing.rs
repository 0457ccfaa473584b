//! What goes from shard to shard: one bounded queue for each, into which all others put their batches.
//!
//! Nobody waits at either end. A shard is woken only if it sleeps; emptied batches go back to who sent them, so that nothing
//! is allocated once enough are under way. The queue is the standard library's bounded channel, which takes no lock where
//! neither end waits. Nothing here looks into a batch.

use asamblea_sfu_core::relay::{Batch, Carried};
use mio::Waker;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};

/// Batches that wait for a shard. Each is what a turn of another shard had for it; past this they stay with their sender,
/// which joins what comes later to them.
pub const BATCHES_MAX: usize = 256;

/// Envelopes taken in one turn, but for the rest of a batch, so that other shards do not hold up the sockets of this one.
const ENVELOPES_PER_TURN_MAX: usize = 512;

/// What comes from another shard.
#[derive(Debug)]
pub enum Crossed {
    /// What it has to say about a room.
    Batch(Batch),
    /// It has begun anew, and all that it had is gone.
    Ended,
}

/// Says that something waits, and wakes who sleeps.
#[derive(Debug, Default)]
struct Bell {
    has_rung: AtomicBool,
    is_asleep: AtomicBool,
    waker: OnceLock<Arc<Waker>>,
}

/// A shard as others see it.
#[derive(Debug)]
struct Door {
    crossed: SyncSender<(u16, Crossed)>,
    emptied: SyncSender<Batch>,
    bell: Bell,
}

/// One shard's end of all this.
#[derive(Debug)]
pub struct Crossing {
    own: u16,
    crossed: Receiver<(u16, Crossed)>,
    emptied: Receiver<Batch>,
    doors: Arc<[Door]>,
}

/// The ends of so many shards, in the order of their indices.
pub fn crossings(shards: u16) -> Vec<Crossing> {
    let (mut doors, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..shards {
        let (to, crossed) = sync_channel(BATCHES_MAX);
        let (back, emptied) = sync_channel(BATCHES_MAX);
        doors.push(Door { crossed: to, emptied: back, bell: Bell::default() });
        ends.push((crossed, emptied));
    }
    let doors: Arc<[Door]> = doors.into();
    let ends = (0..shards).zip(ends);
    ends.map(|(own, (crossed, emptied))| Crossing { own, crossed, emptied, doors: doors.clone() }).collect()
}

impl Crossing {
    /// Says how this shard is woken.
    pub(crate) fn set_waker(&self, waker: Arc<Waker>) {
        if let Some(door) = self.own_door() {
            let _ = door.bell.waker.set(waker); // there is one thread for each end
        }
    }

    /// Puts a batch into another shard's queue. There is no such shard or it has stopped: then it is lost.
    pub fn put(&self, to: u16, batch: Batch) -> Carried {
        let Some(door) = self.doors.get(usize::from(to)) else { return Carried::Taken(batch) };
        match door.crossed.try_send((self.own, Crossed::Batch(batch))) {
            Ok(()) => {
                door.bell.ring();
                Carried::Taken(self.emptied.try_recv().unwrap_or_default())
            }
            Err(TrySendError::Full((_, Crossed::Batch(batch)))) => {
                door.bell.ring();
                Carried::Refused(batch)
            }
            Err(TrySendError::Disconnected((_, Crossed::Batch(batch)))) => Carried::Taken(batch),
            Err(_) => Carried::Taken(Batch::default()),
        }
    }

    /// Takes what others have put, until there is nothing more or a turn has its fill. Whether some may be left.
    pub fn take(&self, mut each: impl FnMut(u16, &Crossed)) -> bool {
        let Some(own) = self.own_door() else { return false };
        own.bell.has_rung.store(false, Ordering::SeqCst);
        let mut taken = 0;
        while taken < ENVELOPES_PER_TURN_MAX {
            let Ok((from, crossed)) = self.crossed.try_recv() else { return false };
            each(from, &crossed);
            if let Crossed::Batch(mut batch) = crossed {
                taken += batch.len().max(1);
                batch.clear();
                if let Some(door) = self.doors.get(usize::from(from)) {
                    let _ = door.emptied.try_send(batch); // enough are under way
                }
            }
        }
        true
    }

    /// Tells the others that this shard begins anew. Who has no room for that finds out when it is told nothing more.
    pub fn end(&self) {
        for (place, door) in self.doors.iter().enumerate() {
            if place != usize::from(self.own) && door.crossed.try_send((self.own, Crossed::Ended)).is_ok() {
                door.bell.ring();
            }
        }
    }

    /// To be called before going to sleep: false if something waits, or else whoever puts something wakes this shard.
    pub fn may_sleep(&self) -> bool {
        let Some(own) = self.own_door() else { return true };
        own.bell.is_asleep.store(true, Ordering::SeqCst);
        let may_sleep = !own.bell.has_rung.load(Ordering::SeqCst);
        if !may_sleep {
            self.awake();
        }
        may_sleep
    }

    /// To be called after waking up.
    pub fn awake(&self) {
        if let Some(own) = self.own_door() {
            own.bell.is_asleep.store(false, Ordering::SeqCst);
        }
    }

    fn own_door(&self) -> Option<&Door> {
        self.doors.get(usize::from(self.own))
    }
}

impl Bell {
    /// What was put before is seen by who hears this. Either the sleeper sees that it has rung, or this sees the sleeper:
    /// both write before they read, in one order for all threads.
    fn ring(&self) {
        self.has_rung.store(true, Ordering::SeqCst);
        if self.is_asleep.swap(false, Ordering::SeqCst)
            && let Some(waker) = self.waker.get()
            && let Err(error) = waker.wake()
        {
            tracing::error!(%error, "a shard cannot be woken");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::time::Duration;

    fn is_taken(carried: &Carried) -> bool {
        matches!(carried, Carried::Taken(_))
    }

    #[test]
    fn a_full_queue_gives_a_batch_back_and_emptied_ones_are_used_again() {
        let ends = crossings(2);
        for _ in 0..BATCHES_MAX {
            assert!(is_taken(&ends[0].put(1, Batch::default())));
        }
        assert!(matches!(ends[0].put(1, Batch::default()), Carried::Refused(_)));
        let mut taken = 0;
        assert!(!ends[1].take(|from, crossed| {
            assert!(from == 0 && matches!(crossed, Crossed::Batch(_)));
            taken += 1;
        }));
        assert_eq!(taken, BATCHES_MAX);
        assert_eq!(ends[0].emptied.try_iter().count(), BATCHES_MAX, "they came back");
        assert!(is_taken(&ends[0].put(7, Batch::default())), "there is no such shard");
    }

    #[test]
    fn who_begins_anew_says_so_to_all_others() {
        let ends = crossings(3);
        ends[1].end();
        for (place, end) in ends.iter().enumerate() {
            let mut heard = Vec::new();
            end.take(|from, crossed| heard.push((from, matches!(crossed, Crossed::Ended))));
            assert_eq!(heard, if place == 1 { vec![] } else { vec![(1, true)] });
        }
    }

    #[test]
    fn nothing_that_is_put_while_a_shard_goes_to_sleep_is_slept_through() {
        const ROUNDS: usize = 20_000;
        let mut ends = crossings(2).into_iter();
        let (sender, receiver) = (ends.next().expect("two"), ends.next().expect("two"));
        let mut poll = Poll::new().expect("a poll");
        receiver.set_waker(Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker")));
        let (ask, asked) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while asked.recv().is_ok() {
                    assert!(is_taken(&sender.put(1, Batch::default())));
                }
            });
            let mut events = Events::with_capacity(4);
            for round in 0..ROUNDS {
                ask.send(()).expect("it listens");
                let mut taken = 0;
                while taken == 0 {
                    if receiver.may_sleep() {
                        poll.poll(&mut events, Some(Duration::from_secs(10))).expect("a poll");
                        receiver.awake();
                        assert!(!events.is_empty(), "slept through in round {round}");
                    }
                    receiver.take(|_, _| taken += 1);
                }
            }
            drop(ask);
        });
    }
}
