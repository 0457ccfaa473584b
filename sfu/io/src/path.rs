//! One path's own socket: connected, on the server's port, so that the kernel tells the paths apart.
//!
//! Between bind and connect a socket of the port would receive what strangers send. Two things stand before that.
//! The listener goes first until then: by the port's group program (see [`crate::batch::elect_first_of_port`])
//! where it listens on all addresses, by its more precise address where it listens on one. And a filter drops
//! everything until the socket is connected, so that a path never hears a stranger. It has no protocol and no queue:
//! what the kernel does not take at once is dropped and counted.

use crate::batch::{self, BYTES_PER_SEND_MAX, SEGMENTS_PER_SEND_MAX};
use crate::carrier::Carriage;
use crate::port::{self, LocalPort};
use crate::stats::ShardCounters;
use socket2::{SockFilter, Socket};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Send buffer asked for a path, bytes: a key frame of a tall layer to a screen full of slots at once. The kernel
/// caps it at net.core.wmem_max.
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// Receive buffer asked for a path, bytes: 200 ms of 20 Mbit/s, should its shard be late. The kernel caps it at
/// net.core.rmem_max.
const RECEIVE_BUFFER_BYTES: usize = 512 << 10;

/// "return 0": accept no byte of any datagram.
const DROP_ALL: [SockFilter; 1] = [SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0)];

/// A connected socket on the server's port.
#[derive(Debug)]
pub struct PathSocket {
    socket: Socket,
    remote: SocketAddr,
    local: Option<IpAddr>,
    segments: bool,
}

impl PathSocket {
    /// Opens the path to `remote`, sending from `local`, the address its first check was sent to.
    ///
    /// # Errors
    /// No address of that family is bound, or what socket(2), bind(2) or connect(2) say: no descriptor left, no
    /// route.
    pub fn open(port: &LocalPort, remote: SocketAddr, local: Option<IpAddr>) -> io::Result<Self> {
        let bound = port.toward(&remote).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let wanted = local.or((!bound.ip().is_unspecified()).then_some(bound.ip()));
        // Bound to every address, the socket stands behind the listener until it is connected; then it has the
        // address that the routing table says.
        let everywhere = match remote {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let routed = Self::open_at(SocketAddr::new(everywhere, port.port), remote);
        match (routed, wanted) {
            (Ok(path), wanted) if wanted.is_none() || path.local == wanted => Ok(path),
            // It would be another address than the one that was asked: take that one by name. It stands before the
            // listener, so a stranger's datagram may be lost until it is connected.
            (_, Some(wanted)) => Self::open_at(SocketAddr::new(wanted, port.port), remote),
            (routed, None) => routed,
        }
    }

    fn open_at(bound: SocketAddr, remote: SocketAddr) -> io::Result<Self> {
        let socket = deaf_socket(bound)?;
        socket.connect(&remote.into())?;
        // A server that takes over binds its listener beside this: the kernel would put the two into one group, with
        // this one first, and strangers' datagrams would end here.
        socket.set_reuse_port(false)?;
        socket.detach_filter()?;
        // Each of these has a default to live with.
        let _ = socket.set_send_buffer_size(SEND_BUFFER_BYTES);
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        let _ = batch::enable_coalescing(socket.as_fd());
        let local = socket.local_addr()?.as_socket().map(|address| address.ip());
        Ok(Self { socket, remote, local, segments: true })
    }

    /// The other end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The address that this end sends from.
    pub fn local(&self) -> Option<IpAddr> {
        self.local
    }

    /// Sends a run of datagrams, all but the last exactly `segment_bytes` long, in as few calls as the kernel
    /// allows. What it refuses is dropped and counted.
    pub(crate) fn send(&mut self, contents: &[u8], segment_bytes: usize, counters: &ShardCounters) {
        let segment_bytes = segment_bytes.clamp(1, contents.len().max(1));
        let per_send = SEGMENTS_PER_SEND_MAX.min(BYTES_PER_SEND_MAX / segment_bytes).max(1);
        for run in contents.chunks(segment_bytes * per_send) {
            if run.len() > segment_bytes && self.segments {
                match self.send_counted(
                    run,
                    Some(segment_bytes as u16),
                    run.len().div_ceil(segment_bytes),
                    counters,
                ) {
                    Sent::Done => continue,
                    Sent::Dropped => continue,
                    Sent::NotSegmented => {
                        self.segments = false;
                        counters.sockets.paths_without_segmentation.add(1);
                    }
                }
            }
            for datagram in run.chunks(segment_bytes) {
                self.send_counted(datagram, None, 1, counters);
            }
        }
    }

    /// Sends one datagram, from any thread. What the kernel refuses is dropped.
    pub(crate) fn send_one(&self, datagram: &[u8]) -> Carriage {
        // An ICMP error of an earlier datagram is reported in place of this send: clear it and send once more.
        for _ in 0..2 {
            match batch::send(self.socket.as_fd(), datagram, None) {
                Ok(()) => return Carriage::Taken,
                Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {}
                Err(_) => break,
            }
        }
        Carriage::Full
    }

    fn send_counted(
        &self,
        contents: &[u8],
        segment_bytes: Option<u16>,
        datagrams: usize,
        counters: &ShardCounters,
    ) -> Sent {
        // An ICMP error of an earlier datagram is reported in place of this send: clear it and send once more.
        for _ in 0..2 {
            let Err(error) = batch::send(self.socket.as_fd(), contents, segment_bytes) else {
                counters.sent(datagrams, contents.len());
                return Sent::Done;
            };
            match error.raw_os_error() {
                Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE) if segment_bytes.is_some() => {
                    return Sent::NotSegmented;
                }
                Some(libc::EAGAIN | libc::ENOBUFS) => {
                    counters.sockets.dropped_send_full.add(datagrams as u64);
                    return Sent::Dropped;
                }
                Some(libc::ECONNREFUSED | libc::EINTR) => {}
                _ => break,
            }
        }
        counters.sockets.dropped_send_failed.add(datagrams as u64);
        Sent::Dropped
    }

    /// Has every further run go out datagram by datagram, as if the kernel had refused to segment.
    #[cfg(test)]
    pub(crate) fn refuse_segmentation(&mut self) {
        self.segments = false;
    }
}

/// A socket of the port that is bound, not yet connected, and hears nothing.
fn deaf_socket(bound: SocketAddr) -> io::Result<Socket> {
    let socket = port::shared_socket(&bound)?;
    socket.attach_filter(&DROP_ALL)?;
    socket.bind(&bound.into())?;
    Ok(socket)
}

enum Sent {
    Done,
    Dropped,
    NotSegmented,
}

impl AsFd for PathSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for PathSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::net::UdpSocket;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    fn client() -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client
    }

    fn drain(socket: &Socket) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        let mut inbox = batch::Inbox::new(8, batch::COALESCED_BYTES_MAX);
        while let Ok(count) = inbox.receive(socket.as_fd()) {
            for i in 0..count {
                let message = inbox.message(i);
                datagrams.extend(message.data.chunks(message.segment_bytes).map(<[u8]>::to_vec));
            }
        }
        datagrams
    }

    /// What a socket hears, at least this many datagrams: a busy kernel delivers after the send has returned.
    fn heard(socket: &Socket, at_least: usize) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut datagrams = drain(socket);
        while datagrams.len() < at_least && Instant::now() < deadline {
            std::thread::yield_now();
            datagrams.extend(drain(socket));
        }
        datagrams
    }

    #[test]
    fn each_of_many_paths_on_one_port_hears_its_own_remote_only() {
        let (port, listeners) = port::open("0.0.0.0:0".parse().unwrap()).unwrap();
        let server = SocketAddr::new([127, 0, 0, 1].into(), port.port);
        let clients: Vec<_> = (0..100).map(|_| client()).collect();
        let paths: Vec<_> = clients
            .iter()
            .map(|client| PathSocket::open(&port, client.local_addr().unwrap(), Some(server.ip())).unwrap())
            .collect();
        for (i, client) in clients.iter().enumerate() {
            client.send_to(&(i as u32).to_be_bytes(), server).unwrap();
        }
        client().send_to(b"stranger", server).unwrap();
        for (i, path) in paths.iter().enumerate() {
            assert_eq!(heard(&path.socket, 1), [(i as u32).to_be_bytes().to_vec()], "path {i}");
        }
        assert_eq!(heard(&listeners[0], 1), [b"stranger".to_vec()]);
    }

    /// Opens paths while a stranger hammers the port; returns what it sent and what the listener heard of it.
    fn hammered(bind: &str) -> (usize, usize) {
        const OPENED_MIN: usize = 200;
        const OPENED_MAX: usize = 5_000;
        const SENT_MIN: usize = 2_000;
        // What waits unread stays below what the smallest usual receive buffer holds: none is lost to that.
        const UNREAD_MAX: usize = 50;
        let (port, listeners) = port::open(bind.parse().unwrap()).unwrap();
        let server = SocketAddr::new([127, 0, 0, 1].into(), port.port);
        let (stop, drains, sent) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let stranger = client();
        let mut heard = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // A failed assertion beside it must not leave it hammering.
                let deadline = Instant::now() + Duration::from_secs(20);
                while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
                    let before = drains.load(Ordering::Relaxed);
                    for _ in 0..UNREAD_MAX {
                        stranger.send_to(b"stranger", server).unwrap();
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    while drains.load(Ordering::Relaxed) < before + 2
                        && !stop.load(Ordering::Relaxed)
                        && Instant::now() < deadline
                    {
                        std::thread::yield_now();
                    }
                }
            });
            let clients: Vec<_> = (0..OPENED_MIN).map(|_| client()).collect();
            let mut paths = VecDeque::new();
            for opened in 0..OPENED_MAX {
                if opened >= OPENED_MIN {
                    if sent.load(Ordering::Relaxed) >= SENT_MIN {
                        break;
                    }
                    paths.pop_front();
                }
                let remote = clients[opened % OPENED_MIN].local_addr().unwrap();
                let path = PathSocket::open(&port, remote, Some(server.ip())).unwrap();
                assert_eq!(drain(&path.socket), Vec::<Vec<u8>>::new(), "a new path hears no stranger");
                paths.push_back(path);
                heard += drain(&listeners[0]).len();
                drains.fetch_add(1, Ordering::Relaxed);
            }
            stop.store(true, Ordering::Relaxed);
            for path in &paths {
                assert_eq!(drain(&path.socket), Vec::<Vec<u8>>::new(), "an old path hears no stranger");
            }
        });
        let sent = sent.into_inner();
        // A busy kernel delivers after the send has returned.
        let deadline = Instant::now() + Duration::from_secs(2);
        while heard < sent && Instant::now() < deadline {
            heard += drain(&listeners[0]).len();
            std::thread::yield_now();
        }
        (sent, heard)
    }

    /// With a path between bind and connect, sends from a stranger; says what the listener and the path heard.
    fn between_bind_and_connect(listen_at: &str, path_at: &str) -> (usize, usize) {
        const DATAGRAMS: usize = 40;
        let (port, listeners) = port::open(listen_at.parse().unwrap()).unwrap();
        let (stranger, remote) = (client(), client());
        let path = deaf_socket(SocketAddr::new(path_at.parse().unwrap(), port.port)).unwrap();
        // From many ports: without the group program they would be shared out by a hash of it.
        for _ in 0..DATAGRAMS {
            client().send_to(b"stranger", ("127.0.0.1", port.port)).unwrap();
        }
        path.connect(&remote.local_addr().unwrap().into()).unwrap();
        path.detach_filter().unwrap();
        // In the order of sending: once these are here, so is what came before them.
        stranger.send_to(b"last", ("127.0.0.1", port.port)).unwrap();
        remote.send_to(b"first", ("127.0.0.1", port.port)).unwrap();
        let mut at_path = heard(&path, 1);
        assert_eq!(at_path.pop().unwrap(), b"first");
        let mut at_listener = heard(&listeners[0], 1);
        let deadline = Instant::now() + Duration::from_secs(5);
        while at_listener.last().unwrap() != b"last" && Instant::now() < deadline {
            at_listener.extend(drain(&listeners[0]));
        }
        assert_eq!(at_listener.pop().unwrap(), b"last");
        (at_listener.len() * 100 / DATAGRAMS, at_path.len())
    }

    #[test]
    fn between_bind_and_connect_the_listener_hears_every_stranger() {
        assert_eq!(between_bind_and_connect("0.0.0.0:0", "0.0.0.0"), (100, 0));
        assert_eq!(between_bind_and_connect("127.0.0.1:0", "0.0.0.0"), (100, 0));
    }

    #[test]
    fn a_path_bound_by_name_stands_before_the_listener_and_still_hears_no_stranger() {
        assert_eq!(between_bind_and_connect("0.0.0.0:0", "127.0.0.1"), (0, 0));
    }

    #[test]
    fn opening_paths_takes_no_strangers_datagram_and_next_to_none_is_lost() {
        for bind in ["0.0.0.0:0", "127.0.0.1:0"] {
            let (sent, heard) = hammered(bind);
            assert!((sent - heard) * 100 <= sent, "at {bind} the listener heard {heard} of {sent}");
        }
    }

    #[test]
    fn a_path_answers_from_the_address_that_was_asked() {
        let (port, _listeners) = port::open("0.0.0.0:0".parse().unwrap()).unwrap();
        let client = client();
        let asked: IpAddr = [127, 0, 0, 77].into();
        let mut path = PathSocket::open(&port, client.local_addr().unwrap(), Some(asked)).unwrap();
        assert_eq!(path.local(), Some(asked));
        path.send(b"hello", 5, &ShardCounters::default());
        let (length, from) = client.recv_from(&mut [0; 100]).unwrap();
        assert_eq!((length, from), (5, SocketAddr::new(asked, port.port)));
        client.send_to(b"back", from).unwrap();
        assert_eq!(heard(&path.socket, 1), [b"back".to_vec()]);
    }

    #[test]
    fn ipv6_paths_live_on_the_same_port() {
        let (port, _listeners) = port::open("[::]:0".parse().unwrap()).unwrap();
        let Ok(client) = UdpSocket::bind("[::1]:0") else { return }; // a machine without IPv6
        let local = "::1".parse().unwrap();
        let path = PathSocket::open(&port, client.local_addr().unwrap(), Some(local)).unwrap();
        client.send_to(b"six", SocketAddr::new(local, port.port)).unwrap();
        assert_eq!(heard(&path.socket, 1), [b"six".to_vec()]);
    }

    fn open_to(client: &UdpSocket) -> (PathSocket, Vec<Socket>) {
        let (port, listeners) = port::open("127.0.0.1:0".parse().unwrap()).unwrap();
        (PathSocket::open(&port, client.local_addr().unwrap(), None).unwrap(), listeners)
    }

    #[test]
    fn a_run_longer_than_one_send_may_be_is_split() {
        let client = client();
        let (mut path, _listeners) = open_to(&client);
        let counters = ShardCounters::default();
        let contents: Vec<u8> = (0..130_u8).flat_map(|i| [i; 500]).chain([130; 77]).collect();
        path.send(&contents, 500, &counters);
        let mut buffer = [0; 2000];
        for i in 0..131_u8 {
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..length], vec![i; if i < 130 { 500 } else { 77 }]);
        }
        let stats = counters.snapshot();
        assert_eq!((stats.sockets.sends, stats.sockets.datagrams_sent), (3, 131));
        assert_eq!(stats.runs, [0, 0, 1, 0, 0, 0, 2]);
    }

    #[test]
    fn without_segmentation_the_same_datagrams_go_out_one_by_one() {
        let client = client();
        let (mut path, _listeners) = open_to(&client);
        path.refuse_segmentation();
        let counters = ShardCounters::default();
        path.send(&[9; 350], 100, &counters);
        let mut buffer = [0; 2000];
        for expected in [100, 100, 100, 50] {
            assert_eq!(client.recv(&mut buffer).unwrap(), expected);
        }
        assert_eq!(counters.snapshot().runs, [4, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_refusal_of_the_kernel_falls_back_and_is_remembered() {
        let client = client();
        let (mut path, _listeners) = open_to(&client);
        // What a device without checksum offload does: the kernel answers EIO or EINVAL. SO_NO_CHECK has it do so
        // on any device.
        no_checksums(&path);
        let counters = ShardCounters::default();
        path.send(&[9; 350], 100, &counters);
        let mut buffer = [0; 2000];
        for expected in [100, 100, 100, 50] {
            assert_eq!(client.recv(&mut buffer).unwrap(), expected);
        }
        path.send(&[9; 200], 100, &counters);
        let stats = counters.snapshot();
        assert_eq!(stats.sockets.paths_without_segmentation, 1);
        assert_eq!(stats.runs[0], 6);
    }

    #[allow(unsafe_code)]
    fn no_checksums(path: &PathSocket) {
        let on: libc::c_int = 1;
        // SAFETY: pointer and length describe one live integer.
        let result = unsafe {
            libc::setsockopt(
                path.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NO_CHECK,
                std::ptr::from_ref(&on).cast(),
                4,
            )
        };
        assert_eq!(result, 0);
    }

    #[test]
    fn a_remote_that_is_gone_costs_nothing_but_its_datagrams() {
        let gone = client();
        let (mut path, _listeners) = open_to(&gone);
        drop(gone);
        let counters = ShardCounters::default();
        for _ in 0..10 {
            path.send(b"anyone?", 7, &counters);
        }
        let stats = counters.snapshot().sockets;
        assert_eq!(stats.sends + stats.dropped_send_failed, 10);
    }
}
