//! The doorkeeper of the port: what comes from an address that has no path yet.
//!
//! One thread receives in batches, has each datagram authenticated without keeping anything of it, and puts the
//! authentic checks into the mailbox of the shard that they name. A client of the TURN relay is asked for credentials here,
//! which is all that is ever sent to someone unknown, and goes to the relay's thread with them. It never waits, and costs
//! a flood a few hashes a datagram at most.

use crate::batch::{self, Inbox};
use crate::shard::{CheckMail, CheckSender};
use crate::stats::{ListenerCounters, ListenerStats};
use crate::turn::{TurnMail, TurnSender, TurnServer};
use asamblea_sfu_core::transport::ice::{self, NodeSecret};
use asamblea_sfu_core::transport::stun::StunDrop;
use asamblea_sfu_core::turn::{self, Stranger};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::Socket;
use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Datagrams taken in one receive: enough to make the call cheap beside the integrity checks.
const BATCH_DATAGRAMS: usize = 32;

/// Room for one datagram; longer ones are cut by the kernel and dropped. No connectivity check exceeds an Ethernet
/// frame.
const DATAGRAM_BYTES_MAX: usize = 1_500;

/// Batches taken from one socket before the other family has its turn.
const BATCHES_PER_TURN: usize = 8;

/// Answers to strangers in a second, all together: each thousand people's browsers ask a few times when they join. What
/// this server can be made to send to others in someone's name stays below 3 Mbit/s.
const ANSWERS_PER_SECOND_MAX: u32 = 5_000;

const WAKE: Token = Token(usize::MAX);

/// Says which shard a datagram is for, if it is authentic.
pub trait Gate: Send + 'static {
    /// The shard's index.
    ///
    /// # Errors
    /// Why the datagram is dropped.
    fn admit(&self, datagram: &[u8]) -> Result<u16, StunDrop>;
}

impl Gate for Arc<NodeSecret> {
    fn admit(&self, datagram: &[u8]) -> Result<u16, StunDrop> {
        ice::authenticate_check(self, datagram).map(|check| check.shard)
    }
}

/// Where clients of the relay are sent on.
#[derive(Debug)]
pub(crate) struct Strangers {
    pub(crate) turn: Arc<TurnServer>,
    pub(crate) sender: TurnSender,
}

/// The running thread.
#[derive(Debug)]
pub struct Listener {
    counters: Arc<ListenerCounters>,
    stopping: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Starts to listen on these sockets, on behalf of these shards.
    ///
    /// # Errors
    /// When the system gives no thread or no poll descriptor.
    pub(crate) fn start<G: Gate>(
        sockets: Vec<Socket>,
        gate: G,
        shards: Vec<CheckSender>,
        strangers: Option<Strangers>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (index, socket) in sockets.iter().enumerate() {
            poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(index), Interest::READABLE)?;
        }
        let waker = Waker::new(poll.registry(), WAKE)?;
        let counters = Arc::new(ListenerCounters::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let state = Listening {
            sockets,
            gate,
            shards,
            strangers,
            counters: counters.clone(),
            stopping: stopping.clone(),
            answered: Cell::new((Instant::now(), 0)),
        };
        let thread =
            std::thread::Builder::new().name("media-listener".into()).spawn(move || state.run(poll))?;
        Ok(Self { counters, stopping, waker, thread: Some(thread) })
    }

    /// What was counted so far.
    pub fn stats(&self) -> ListenerStats {
        self.counters.snapshot()
    }

    /// Ends the thread and closes the sockets; returns when both is done.
    pub fn stop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            if let Err(error) = self.waker.wake() {
                tracing::error!(%error, "the listener cannot be woken to stop; its thread is left behind");
                return;
            }
            if thread.join().is_err() {
                tracing::error!("the listener had panicked");
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Listening<G> {
    sockets: Vec<Socket>,
    gate: G,
    shards: Vec<CheckSender>,
    strangers: Option<Strangers>,
    counters: Arc<ListenerCounters>,
    stopping: Arc<AtomicBool>,
    /// Since when answers are counted, and how many were given.
    answered: Cell<(Instant, u32)>,
}

impl<G: Gate> Listening<G> {
    fn run(self, mut poll: Poll) {
        let mut events = Events::with_capacity(self.sockets.len() + 1);
        let mut inbox = Inbox::new(BATCH_DATAGRAMS, DATAGRAM_BYTES_MAX);
        let mut unfinished = false;
        while !self.stopping.load(Ordering::Acquire) {
            let timeout = unfinished.then_some(Duration::ZERO);
            if let Err(error) = poll.poll(&mut events, timeout) {
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                tracing::error!(%error, "the listener cannot wait for its sockets; no one new can connect");
                return;
            }
            // Two sockets at most: asking both costs less than knowing which.
            unfinished = false;
            for socket in &self.sockets {
                unfinished |= self.drain(socket, &mut inbox);
            }
        }
    }

    /// Whether something may still wait.
    fn drain(&self, socket: &Socket, inbox: &mut Inbox) -> bool {
        for _ in 0..BATCHES_PER_TURN {
            match inbox.receive(socket.as_fd()) {
                Ok(count) => {
                    for index in 0..count {
                        self.take(socket, inbox, index);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => self.counters.receive_errors.add(1),
            }
        }
        true
    }

    fn take(&self, socket: &Socket, inbox: &mut Inbox, index: usize) {
        let message = inbox.message(index);
        let counters = &self.counters;
        counters.datagrams.add(1);
        if message.truncated {
            counters.dropped_too_long.add(1);
            return;
        }
        if let (Some(strangers), Some(remote), true) =
            (&self.strangers, message.remote, turn::is_turn(message.data))
        {
            return self.greet(strangers, socket, remote, message.local, message.data);
        }
        let shard = match self.gate.admit(message.data) {
            Ok(shard) => shard,
            Err(reason) => {
                match reason {
                    StunDrop::Malformed => &counters.dropped_malformed,
                    StunDrop::NotARequest => &counters.dropped_not_a_request,
                    StunDrop::Fingerprint => &counters.dropped_fingerprint,
                    StunDrop::NoCredentials => &counters.dropped_no_credentials,
                    StunDrop::UnknownUser => &counters.dropped_unknown_user,
                    StunDrop::Integrity => &counters.dropped_integrity,
                }
                .add(1);
                return;
            }
        };
        let (Some(shard), Some(remote)) = (self.shards.get(usize::from(shard)), message.remote) else {
            counters.dropped_unknown_user.add(1);
            return;
        };
        let mail = CheckMail { remote, local: message.local, datagram: (&*message.data).into() };
        if shard.try_send(mail) {
            counters.admitted.add(1);
        } else {
            counters.dropped_mailbox_full.add(1);
        }
    }

    /// Whether one more answer to strangers is given in this second.
    fn may_answer(&self) -> bool {
        let now = Instant::now();
        let (since, count) = match self.answered.get() {
            (since, count) if now.duration_since(since) < Duration::from_secs(1) => (since, count),
            _ => (now, 0),
        };
        self.answered.set((since, count.saturating_add(1)));
        count < ANSWERS_PER_SECOND_MAX
    }

    /// Someone wants the relay.
    fn greet(
        &self,
        strangers: &Strangers,
        socket: &Socket,
        remote: SocketAddr,
        local: Option<IpAddr>,
        datagram: &[u8],
    ) {
        let counters = &self.counters;
        match strangers.turn.greet(remote, datagram) {
            Stranger::Admit => {
                let mail = TurnMail { remote, local, datagram: datagram.into() };
                if strangers.sender.try_send(mail) {
                    counters.turn_admitted.add(1);
                } else {
                    counters.dropped_mailbox_full.add(1);
                }
            }
            Stranger::Answer(_) if !self.may_answer() => counters.dropped_turn_busy.add(1),
            Stranger::Answer(answer) => {
                counters.turn_answered.add(1);
                // A full buffer loses it, as a network may; the client asks again.
                let _ = batch::send_from(socket.as_fd(), &answer, remote, local);
            }
            Stranger::Drop(_) => counters.dropped_turn.add(1),
        }
    }
}
