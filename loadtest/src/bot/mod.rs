//! A participant without an encoder: real ICE, DTLS-SRTP and RTCP on webrtc-rs's sans-IO parts.
//!
//! [`Bot`] holds the connections and their sockets and speaks session descriptions with whoever does its signaling.
//! [`connection`] is one of them sans I/O: [`secure`] the path, [`send`] and [`receive`] the streams, [`rtp`],
//! [`rtcp`] and [`sdp`] what is on the wire.

pub(crate) mod connection;
mod receive;
pub(crate) mod rtcp;
mod rtp;
pub(crate) mod sdp;
pub(crate) mod secure;
mod send;

use crate::peers::Negotiate;
use crate::traffic::Kind;
use anyhow::{bail, ensure};
use asamblea_sfu_io::batch;
use connection::{Connection, Counters, Desk, Now};
use mio::net::UdpSocket;
use rustix::event::{PollFd, PollFlags, Timespec};
use sdp::Features;
use secure::Identity;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Room for datagrams that wait in a socket, in bytes: a thousand and more, so that a driver that was away for some
/// milliseconds does not look like a server that loses.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// How often ICE and DTLS are asked whether something is due while a bot connects without a driver.
const HANDSHAKE_TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// A connection with its socket.
pub(crate) struct Link {
    pub(crate) socket: UdpSocket,
    pub(crate) connection: Connection,
    is_connected: bool,
}

/// What all bots of a run share.
#[derive(Clone)]
pub(crate) struct BotConfig {
    pub(crate) identity: Arc<Identity>,
    pub(crate) features: Features,
    /// Where bots send from.
    pub(crate) local: IpAddr,
    /// The only address they send to.
    pub(crate) server: IpAddr,
    /// When the run began.
    pub(crate) epoch: Instant,
    /// Whether the kernel may hand over runs of datagrams whole (`UDP_GRO`).
    pub(crate) coalesce: bool,
}

impl BotConfig {
    pub(crate) fn now(&self) -> Now {
        let instant = Instant::now();
        Now { instant, ns: instant.duration_since(self.epoch).as_nanos() as u64 }
    }
}

/// See the module.
pub(crate) struct Bot {
    config: BotConfig,
    number: usize,
    /// One that sends, and where the server wants two, one that receives.
    links: Vec<Link>,
    offering: Option<usize>,
}

impl Bot {
    pub(crate) fn new(config: BotConfig, number: usize) -> Self {
        Self { config, number, links: Vec::new(), offering: None }
    }

    /// The offer of a bot that sends: for each line a kind and the run's streams in it, smallest layer first.
    pub(crate) fn offer(
        &mut self,
        sends: &[(Kind, Vec<usize>)],
        receive_audio: usize,
        receive_video: usize,
    ) -> anyhow::Result<String> {
        let at = match self.links.len() {
            0 => self.open()?,
            _ => 0,
        };
        self.offering = Some(at);
        Ok(self.links[at].connection.offer(sends, receive_audio, receive_video))
    }

    fn open(&mut self) -> anyhow::Result<usize> {
        let socket = std::net::UdpSocket::bind((self.config.local, 0))?;
        socket.set_nonblocking(true)?;
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES)?;
        batch::enable_arrival_times(socket.as_fd())?;
        if self.config.coalesce {
            batch::enable_coalescing(socket.as_fd())?;
        }
        let local = socket.local_addr()?;
        let BotConfig { identity, features, .. } = self.config.clone();
        let connection = Connection::new(self.config.now(), identity, local, self.number, features)?;
        self.links.push(Link { socket: UdpSocket::from_std(socket), connection, is_connected: false });
        Ok(self.links.len() - 1)
    }

    pub(crate) fn links(&mut self) -> &mut [Link] {
        &mut self.links
    }

    /// Waits until all of its connections have keys, without a driver.
    ///
    /// # Errors
    /// Why one of them gets none, or that it did not within `limit`.
    pub(crate) fn connect(&mut self, limit: Duration) -> anyhow::Result<()> {
        let end = self.config.now().instant + limit;
        let mut buffer = [0; 2_048];
        for link in &mut self.links {
            while !link.connection.is_connected() {
                let now = self.config.now();
                link.connection.handle_handshake_timeout(now);
                link.flush()?;
                if let Some(failure) = link.connection.failure() {
                    bail!("a bot does not connect: {failure}");
                }
                ensure!(now.instant < end, "a bot has no connection after {} s", limit.as_secs());
                let mut fds = [PollFd::new(&link.socket, PollFlags::IN)];
                match rustix::event::poll(&mut fds, Some(&HANDSHAKE_TICK)) {
                    Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                    result => result?,
                };
                match link.socket.recv_from(&mut buffer) {
                    Ok((length, from)) => {
                        link.connection.handle_handshake(self.config.now(), from, &buffer[..length]);
                        link.flush()?;
                    }
                    // Somebody else's datagram with a wrong checksum, or an ICMP message about an earlier send.
                    Err(error)
                        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Whether it is anywhere at all.
    pub(crate) fn is_open(&self) -> bool {
        !self.links.is_empty()
    }

    /// Whether all that were opened are connected.
    pub(crate) fn is_connected(&self) -> bool {
        !self.links.is_empty() && self.links.iter().all(|link| link.connection.is_connected())
    }

    /// Why one of them is not.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.links.iter().find_map(|link| link.connection.failure())
    }

    /// The connections.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.links.iter().map(|link| &link.connection)
    }

    /// All counters, added up.
    pub(crate) fn counters(&self) -> Counters {
        self.connections().fold(Counters::default(), |sum, connection| sum + connection.counters)
    }
}

impl Negotiate for Bot {
    fn create_offer(&mut self, receive_audio: usize, receive_video: usize) -> anyhow::Result<String> {
        self.offer(&[], receive_audio, receive_video)
    }

    fn accept_answer(&mut self, answer: &str) -> anyhow::Result<()> {
        let at = self.offering.take().ok_or_else(|| anyhow::anyhow!("no offer waits for an answer"))?;
        let now = self.config.now();
        self.links[at].connection.accept_answer(now, answer, self.config.server)?;
        self.links[at].flush()
    }

    fn answer_offer(&mut self, offer: &str) -> anyhow::Result<String> {
        let at = self.open()?;
        let now = self.config.now();
        let answer = self.links[at].connection.answer_offer(now, offer, self.config.server)?;
        self.links[at].flush()?;
        Ok(answer)
    }
}

impl Link {
    /// Sends what ICE and DTLS have to say, and ties the socket to the path once there is one.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        while let Some((to, datagram)) = self.connection.poll_datagram() {
            let sent = match self.is_connected {
                true => self.socket.send(&datagram),
                false => self.socket.send_to(&datagram, to),
            };
            // ICE and DTLS send again what was lost.
            drop(sent);
        }
        if let Some(remote) = self.connection.selected()
            && !self.is_connected
        {
            self.socket.connect(remote)?;
            self.is_connected = true;
        }
        Ok(())
    }

    /// Sends a datagram on the path; false where the kernel would not take it.
    pub(crate) fn send(&self, datagram: &[u8]) -> bool {
        self.socket.send(datagram).is_ok()
    }

    /// Takes a datagram and sends what follows from it.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Now,
        from: SocketAddr,
        datagram: &[u8],
        desk: &mut Desk<'_>,
    ) -> anyhow::Result<()> {
        self.connection.handle_datagram(now, from, datagram, desk);
        self.send_all(desk.outbox);
        // Media have no answer of this kind.
        if datagram.first().is_some_and(|first| *first < 128) { self.flush() } else { Ok(()) }
    }

    /// Takes in that time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Now, desk: &mut Desk<'_>) -> anyhow::Result<()> {
        self.connection.handle_timeout(now, desk);
        self.send_all(desk.outbox);
        self.flush()
    }

    fn send_all(&self, outbox: &mut Vec<Vec<u8>>) {
        for datagram in outbox.drain(..) {
            self.send(&datagram);
        }
    }
}
