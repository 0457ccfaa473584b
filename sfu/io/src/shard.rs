//! One shard's thread: it drains what arrived, tells the heart, does what the heart says, and sleeps until the next
//! of these or the heart's own deadline.
//!
//! Generic over the [`Heart`]. No lock and no await on the packet path; all that one turn takes in has one time. Nothing
//! it does waits for a socket, a subscriber or signaling. A heart that panics takes its peers with it and nobody else:
//! they are reported as lost and a fresh heart goes on.

mod heart;
mod quiet;
mod turn;

pub use heart::{Heart, Membership};

use crate::carrier::{CARRIED_MAX, CarriedMail, CarriedSender};
use crate::crossing::Crossing;
use crate::port::LocalPort;
use crate::slice;
use crate::stats::{ShardCounters, ShardStats};
use asamblea_seam::{Event, PeerId};
use mio::{Poll, Waker};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;
use turn::{Loop, WAKE};

/// Commands that wait for a shard. Signaling sends a few a second and peer; past this its callers wait for the
/// shard, which is at most a turn away, so that none is lost.
pub const COMMANDS_MAX: usize = 1_024;

/// Checks that wait for a shard. They are repeated by their senders, so past this they are dropped.
pub const CHECKS_MAX: usize = 256;

/// Where a shard's events go. Called on the shard's thread: it must neither block, nor panic, nor send to a shard.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// A check on its way from the listener.
#[derive(Debug)]
pub struct CheckMail {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The address it was sent to.
    pub local: Option<IpAddr>,
    /// The binding request, authentic.
    pub datagram: Box<[u8]>,
}

/// The lossy end of a shard's mailbox, for the listener.
#[derive(Clone, Debug)]
pub struct CheckSender {
    checks: SyncSender<CheckMail>,
    waker: Arc<Waker>,
}

impl CheckSender {
    /// Puts a check into the mailbox; false if there was no room for it.
    pub fn try_send(&self, mail: CheckMail) -> bool {
        let sent = self.checks.try_send(mail).is_ok();
        sent && self.waker.wake().is_ok()
    }
}

/// A running shard.
#[derive(Debug)]
pub struct ShardThread<C> {
    commands: SyncSender<C>,
    checks: CheckSender,
    carried: CarriedSender,
    counters: Arc<ShardCounters>,
    stopping: Arc<AtomicBool>,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl<C: Send + 'static> ShardThread<C> {
    /// Starts the thread of the shard with this index. `make` makes its heart, and another after each panic; `crossing` is
    /// its way to the other shards.
    ///
    /// # Errors
    /// When the system gives no thread or no poll descriptor.
    pub fn start<H: Heart<Command = C> + 'static>(
        index: u16,
        port: LocalPort,
        make: impl FnMut(Instant) -> H + Send + 'static,
        events: EventSink,
        crossing: Crossing,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        crossing.set_waker(waker.clone());
        let (commands, command_mail) = sync_channel(COMMANDS_MAX);
        let (checks, check_mail) = sync_channel(CHECKS_MAX);
        let (carried, carried_mail) = sync_channel(CARRIED_MAX);
        let carried = CarriedSender { mail: carried, waker: waker.clone() };
        let counters = Arc::new(ShardCounters::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name(format!("media-shard-{index}")).spawn({
            let (counters, stopping) = (counters.clone(), stopping.clone());
            move || {
                run(
                    poll,
                    port,
                    make,
                    Mail { commands: command_mail, checks: check_mail, carried: carried_mail, crossing },
                    events,
                    counters,
                    stopping,
                )
            }
        })?;
        Ok(Self {
            commands,
            checks: CheckSender { checks, waker },
            carried,
            counters,
            stopping,
            thread: std::sync::Mutex::new(Some(thread)),
        })
    }

    /// Sends a command. Waits while the mailbox is full: commands are reliable. After [`Self::stop`] it does
    /// nothing.
    pub fn send(&self, command: C) {
        match self.commands.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(command)) => {
                tracing::warn!("a shard's mailbox is full; signaling waits for it");
                let _ = self.checks.waker.wake();
                if self.commands.send(command).is_err() {
                    return;
                }
            }
            Err(TrySendError::Disconnected(_)) => return,
        }
        if let Err(error) = self.checks.waker.wake() {
            tracing::error!(%error, "a shard cannot be woken");
        }
    }

    /// The listener's end of the mailbox.
    pub fn checks(&self) -> CheckSender {
        self.checks.clone()
    }

    /// The carriers' end of the mailbox.
    pub(crate) fn carried(&self) -> CarriedSender {
        self.carried.clone()
    }

    /// What was counted so far.
    pub fn stats(&self) -> ShardStats {
        self.counters.snapshot()
    }

    /// Ends the thread and closes its paths; returns when both is done.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(thread) = thread {
            if let Err(error) = self.checks.waker.wake() {
                tracing::error!(%error, "a shard cannot be woken to stop; its thread is left behind");
                return;
            }
            if thread.join().is_err() {
                tracing::error!("a shard's thread had panicked");
            }
        }
    }
}

impl<C> Drop for ShardThread<C> {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        let _ = self.checks.waker.wake();
    }
}

struct Mail<C> {
    commands: Receiver<C>,
    checks: Receiver<CheckMail>,
    carried: Receiver<CarriedMail>,
    crossing: Crossing,
}

/// The thread: one heart after another until it is told to stop.
fn run<H: Heart>(
    mut poll: Poll,
    port: LocalPort,
    mut make: impl FnMut(Instant) -> H,
    mail: Mail<H::Command>,
    events: EventSink,
    counters: Arc<ShardCounters>,
    stopping: Arc<AtomicBool>,
) {
    slice::ask_for_short();
    // Outside of what may unwind: who has to hear of it.
    let mut peers = BTreeSet::new();
    loop {
        let mut heart = None;
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            let heart = heart.insert(make(Instant::now()));
            Loop::new(port, heart, &mail, &*events, &counters, &stopping, &mut peers).run(&mut poll)
        }));
        match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                tracing::error!(%error, "a shard cannot wait for its sockets and starts afresh")
            }
            Err(_) => tracing::error!("a shard panicked; its peers are lost and it starts afresh"),
        }
        // What a panic left of it may panic again while it is taken apart.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(heart)));
        counters.sockets.panics.add(1);
        counters.sockets.paths.set(0);
        counters.sockets.paths_quiet.set(0);
        counters.sockets.carriers.set(0);
        counters.sockets.peers.set(0);
        mail.crossing.end();
        let peers: Vec<PeerId> = std::mem::take(&mut peers).into_iter().collect();
        if !peers.is_empty() {
            events(Event::Lost { peers });
        }
    }
}

#[cfg(test)]
mod tests;
