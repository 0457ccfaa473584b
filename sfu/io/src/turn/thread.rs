//! Clients of the relay over UDP: one thread, and a connected socket for each allocation, so that a flood of strangers
//! does not crowd out what is relayed.
//!
//! A browser may use one socket for the relay and for direct ways as well. A connectivity check that arrives where an
//! allocation is goes the way of any other; the path that it opens is a newer socket of the same addresses, and gets
//! what comes from then on. Nothing is lost by that: a browser that reaches us directly needs no relay.

use super::{TurnClient, TurnServer, Wire};
use crate::batch::{COALESCED_BYTES_MAX, Inbox};
use crate::carrier::Carriage;
use crate::listener::Gate;
use crate::path::PathSocket;
use crate::port::LocalPort;
use crate::shard::{CheckMail, CheckSender};
use crate::slice;
use asamblea_sfu_core::transport::ice::NodeSecret;
use asamblea_sfu_core::turn;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Requests that wait for the thread. They are repeated by their senders, so past this they are dropped.
const STRANGERS_MAX: usize = 256;

/// Requests taken in one turn, so that a burst of them does not hold up what is relayed.
const STRANGERS_PER_TURN: usize = 16;

/// Messages taken from one socket before the next has its turn; each may be a run of many datagrams.
const MESSAGES_PER_SOCKET: usize = 8;

/// Sockets that are read before the mailbox is looked at again.
const SOCKETS_PER_TURN: usize = 64;

/// Readiness taken in one poll.
const READY_MAX: usize = 256;

/// How often allocations are looked at that have come to their end: they live for minutes.
const SWEEP: Duration = Duration::from_secs(5);

const WAKE: Token = Token(usize::MAX);

/// A request from someone without an allocation, judged to be authentic.
#[derive(Debug)]
pub(crate) struct TurnMail {
    pub(crate) remote: SocketAddr,
    /// The address it was sent to.
    pub(crate) local: Option<IpAddr>,
    pub(crate) datagram: Box<[u8]>,
}

/// The lossy end of the thread's mailbox.
#[derive(Clone, Debug)]
pub(crate) struct TurnSender {
    mail: SyncSender<TurnMail>,
    waker: Arc<Waker>,
}

impl TurnSender {
    /// Puts a request into the mailbox; false if there was no room for it.
    pub(crate) fn try_send(&self, mail: TurnMail) -> bool {
        self.mail.try_send(mail).is_ok() && self.waker.wake().is_ok()
    }
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct TurnThread {
    sender: TurnSender,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TurnThread {
    /// Starts it; `secret` and `shards` are for checks that are no TURN.
    ///
    /// # Errors
    /// When the system gives no thread or no poll descriptor.
    pub(crate) fn start(
        port: LocalPort,
        server: Arc<TurnServer>,
        secret: Arc<NodeSecret>,
        shards: Vec<CheckSender>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (mail, inbox) = sync_channel(STRANGERS_MAX);
        let stopping = Arc::new(AtomicBool::new(false));
        let state = Relaying {
            port,
            server,
            secret,
            shards,
            mail: inbox,
            stopping: stopping.clone(),
            clients: HashMap::new(),
            by_address: HashMap::new(),
            ready: VecDeque::new(),
            begun: 0,
        };
        let thread = std::thread::Builder::new().name("media-turn".into()).spawn(move || state.run(poll))?;
        Ok(Self { sender: TurnSender { mail, waker }, stopping, thread: Some(thread) })
    }

    pub(crate) fn sender(&self) -> TurnSender {
        self.sender.clone()
    }

    /// Ends the thread and closes the sockets; returns when both is done.
    pub(crate) fn stop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            if let Err(error) = self.sender.waker.wake() {
                tracing::error!(%error, "the relay cannot be woken to stop; its thread is left behind");
                return;
            }
            if thread.join().is_err() {
                tracing::error!("the relay had panicked");
            }
        }
    }
}

impl Drop for TurnThread {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A client's own socket, for as long as it has its allocation: once that has ended, whatever comes from the same
/// address is a stranger's again.
#[derive(Clone)]
struct Socket(Weak<PathSocket>);

impl Wire for Socket {
    const IS_STREAM: bool = false;

    fn send(&self, message: &[u8]) -> Carriage {
        self.0.upgrade().map_or(Carriage::Gone, |socket| socket.send_one(message))
    }
}

struct Client {
    /// The one strong reference, but for the moment of a send.
    socket: Arc<PathSocket>,
    turn: TurnClient<Socket>,
    address: (SocketAddr, Option<IpAddr>),
    is_ready: bool,
}

struct Relaying {
    port: LocalPort,
    server: Arc<TurnServer>,
    secret: Arc<NodeSecret>,
    shards: Vec<CheckSender>,
    mail: Receiver<TurnMail>,
    stopping: Arc<AtomicBool>,
    /// Bounded by the server's ledger.
    clients: HashMap<Token, Client>,
    by_address: HashMap<(SocketAddr, Option<IpAddr>), Token>,
    /// Clients that have something to read, in the order of their turns.
    ready: VecDeque<Token>,
    begun: usize,
}

impl Relaying {
    fn run(mut self, mut poll: Poll) {
        slice::ask_for_short();
        let mut events = Events::with_capacity(READY_MAX);
        let mut inbox = Inbox::new(MESSAGES_PER_SOCKET, COALESCED_BYTES_MAX);
        let mut mail_waits = false;
        let mut swept = Instant::now();
        while !self.stopping.load(Ordering::Acquire) {
            let timeout = match (mail_waits || !self.ready.is_empty(), self.clients.is_empty()) {
                (true, _) => Some(Duration::ZERO),
                (false, false) => Some(SWEEP),
                (false, true) => None,
            };
            if let Err(error) = poll.poll(&mut events, timeout) {
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                tracing::error!(%error, "the relay cannot wait for its sockets; nobody is relayed over UDP any more");
                return;
            }
            for event in &events {
                if let Some(client) = self.clients.get_mut(&event.token())
                    && !client.is_ready
                {
                    client.is_ready = true;
                    self.ready.push_back(event.token());
                }
            }
            mail_waits = self.take_mail(&poll);
            for _ in 0..SOCKETS_PER_TURN {
                let Some(token) = self.ready.pop_front() else { break };
                self.receive(token, &mut inbox);
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                let ended = |(token, client): (&Token, &Client)| {
                    (client.turn.expires_at() <= swept).then_some(*token)
                };
                let ended: Vec<Token> = self.clients.iter().filter_map(ended).collect();
                ended.into_iter().for_each(|token| self.end(token));
            }
        }
    }

    /// Whether some may be left for the next turn.
    fn take_mail(&mut self, poll: &Poll) -> bool {
        for _ in 0..STRANGERS_PER_TURN {
            let Ok(mail) = self.mail.try_recv() else { return false };
            if let Err(error) = self.admit(poll, mail) {
                tracing::debug!(%error, "an allocation could not be made");
            }
        }
        true
    }

    fn admit(&mut self, poll: &Poll, TurnMail { remote, local, datagram }: TurnMail) -> io::Result<()> {
        // It was sent once more before the socket was there.
        if let Some(token) = self.by_address.get(&(remote, local))
            && let Some(client) = self.clients.get_mut(token)
        {
            client.turn.handle(&datagram);
            return Ok(());
        }
        let socket = Arc::new(PathSocket::open(&self.port, remote, local)?);
        let turn = match self.server.admit(remote, &datagram, Socket(Arc::downgrade(&socket))) {
            Ok(turn) => turn,
            Err(answer) => {
                if let Some(answer) = answer {
                    socket.send_one(&answer);
                }
                return Ok(());
            }
        };
        let token = Token(self.begun);
        self.begun += 1;
        poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        let address = (remote, local);
        self.by_address.insert(address, token);
        self.clients.insert(token, Client { socket, turn, address, is_ready: false });
        Ok(())
    }

    fn receive(&mut self, token: Token, inbox: &mut Inbox) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        let count = match inbox.receive(client.socket.as_fd()) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                client.is_ready = false;
                return;
            }
            // What became of an earlier send; there may still be something to read behind it.
            Err(_) => {
                self.ready.push_back(token);
                return;
            }
        };
        if count == inbox.capacity() {
            self.ready.push_back(token);
        } else {
            client.is_ready = false; // the kernel had no more, and says so when it has
        }
        let (remote, local) = (client.socket.remote(), client.socket.local());
        for index in 0..count {
            let message = inbox.message(index);
            for datagram in message.data.chunks_mut(message.segment_bytes) {
                if turn::is_turn(datagram) {
                    if !client.turn.handle(datagram) {
                        return self.end(token);
                    }
                } else if let Ok(shard) = self.secret.admit(datagram)
                    && let Some(shard) = self.shards.get(usize::from(shard))
                {
                    shard.try_send(CheckMail { remote, local, datagram: (&*datagram).into() });
                }
            }
        }
    }

    fn end(&mut self, token: Token) {
        // Closing the descriptor takes it out of the poll.
        if let Some(client) = self.clients.remove(&token) {
            self.by_address.remove(&client.address);
        }
    }
}
