//! The kernel's batched calls: many datagrams in one receive, a run of equal datagrams in one send.
//!
//! With `slice.rs` the only unsafe code of the media plane. It moves bytes and knows no protocol, keeps nothing between two
//! calls but its buffers, and allocates nothing per packet.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

/// Most datagrams in one GSO send: `UDP_MAX_SEGMENTS` of the kernels before 6.9; newer ones take 128.
pub const SEGMENTS_PER_SEND_MAX: usize = 64;

/// Most bytes in one GSO send: what one IP packet can carry is 65,507; a round number below it.
pub const BYTES_PER_SEND_MAX: usize = 65_000;

/// Room for one coalesced receive: GRO never builds more than one IP packet can carry.
pub const COALESCED_BYTES_MAX: usize = 65_535;

/// `SO_ATTACH_REUSEPORT_CBPF` of asm-generic/socket.h; the libc crate has it for Android only.
const SO_ATTACH_REUSEPORT_CBPF: libc::c_int = 51;

/// Room for the control messages asked for: packet information (20 bytes), a GRO size (4) and a time (16), with headers.
const CONTROL_BYTES: usize = 128;

#[repr(C, align(8))] // as cmsghdr wants it
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// Buffers for one batched receive, made once and used again for every batch. Stays on the thread that made it.
pub struct Inbox {
    bytes_each: usize,
    data: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    slices: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    filled: usize,
}

/// One received message: one datagram, or with GRO a run of them.
#[derive(Debug)]
pub struct Message<'a> {
    /// The bytes.
    pub data: &'a mut [u8],
    /// Length of every datagram in `data` but the last, which may be shorter; never 0.
    pub segment_bytes: usize,
    /// Whether the datagram was longer than the buffer and lost its end.
    pub truncated: bool,
    /// Who sent it.
    pub remote: Option<SocketAddr>,
    /// The local address it was sent to, where the socket was asked to say so.
    pub local: Option<IpAddr>,
    /// When it reached the socket, since 1970 on the machine's own clock, where the socket was asked to say so.
    pub arrived: Option<Duration>,
}

impl Inbox {
    /// Buffers for up to `messages` messages of `bytes_each` bytes in one receive.
    pub fn new(messages: usize, bytes_each: usize) -> Self {
        assert!(messages > 0 && bytes_each > 0, "an inbox holds something");
        // SAFETY: all three are plain C structures for which all-zero bytes are a valid value.
        let (name, slice, header) = unsafe {
            (
                mem::zeroed::<libc::sockaddr_storage>(),
                mem::zeroed::<libc::iovec>(),
                mem::zeroed::<libc::mmsghdr>(),
            )
        };
        Self {
            bytes_each,
            data: vec![0; messages * bytes_each],
            names: vec![name; messages],
            controls: vec![Control([0; CONTROL_BYTES]); messages],
            slices: vec![slice; messages],
            headers: vec![header; messages],
            filled: 0,
        }
    }

    /// How many messages one receive can take.
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Receives what waits at the socket, without blocking; returns the number of messages.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing waits; `ConnectionRefused` and the like report what an ICMP
    /// message said about an earlier send and leave the socket usable.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.filled = 0;
        for (index, header) in self.headers.iter_mut().enumerate() {
            let slice = &mut self.slices[index];
            slice.iov_base = self.data[index * self.bytes_each..].as_mut_ptr().cast();
            slice.iov_len = self.bytes_each;
            header.msg_len = 0;
            let message = &mut header.msg_hdr;
            message.msg_name = ptr::from_mut(&mut self.names[index]).cast();
            message.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            message.msg_iov = slice;
            message.msg_iovlen = 1;
            message.msg_control = self.controls[index].0.as_mut_ptr().cast();
            message.msg_controllen = CONTROL_BYTES as _;
            message.msg_flags = 0;
        }
        // SAFETY: every header points into vectors of `self` that are neither moved nor touched during the call;
        // `bytes_each` bytes behind each slice are inside `data`, whose length is messages * bytes_each.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        if received < 0 {
            return Err(io::Error::last_os_error());
        }
        self.filled = received as usize;
        Ok(self.filled)
    }

    /// The message with this index among those of the last receive.
    ///
    /// # Panics
    /// When the last receive returned no such message.
    pub fn message(&mut self, index: usize) -> Message<'_> {
        assert!(index < self.filled, "only received messages are read");
        let header = &self.headers[index];
        let length = (header.msg_len as usize).min(self.bytes_each);
        let mut segment_bytes = 0;
        let mut local = None;
        let mut arrived = None;
        // SAFETY: the kernel filled msg_control with msg_controllen bytes of well-formed control messages, in a
        // buffer aligned for cmsghdr; the CMSG macros stay inside of it and data is read unaligned.
        unsafe {
            let mut control = libc::CMSG_FIRSTHDR(&header.msg_hdr);
            while !control.is_null() {
                let data = libc::CMSG_DATA(control);
                match ((*control).cmsg_level, (*control).cmsg_type) {
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        segment_bytes = ptr::read_unaligned(data.cast::<libc::c_int>()) as usize;
                    }
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = ptr::read_unaligned(data.cast::<libc::in_pktinfo>());
                        local = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let info = ptr::read_unaligned(data.cast::<libc::in6_pktinfo>());
                        local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                    }
                    (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                        let time = ptr::read_unaligned(data.cast::<libc::timespec>());
                        arrived = Some(Duration::new(time.tv_sec as u64, time.tv_nsec as u32));
                    }
                    _ => {}
                }
                control = libc::CMSG_NXTHDR(&header.msg_hdr, control);
            }
        }
        if segment_bytes == 0 {
            segment_bytes = length.max(1);
        }
        let start = index * self.bytes_each;
        Message {
            segment_bytes,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            remote: socket_address(&self.names[index]),
            local,
            arrived,
            data: &mut self.data[start..start + length],
        }
    }
}

fn socket_address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match name.ss_family as libc::c_int {
        libc::AF_INET => {
            // SAFETY: the family says that this is a sockaddr_in, and sockaddr_storage is larger and aligned.
            let name = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let name = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(name.sin6_port), 0, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Sends on a connected socket, without blocking. With `segment_bytes` the kernel cuts `contents` into datagrams
/// of that length (`UDP_SEGMENT`), the last one may be shorter; without, `contents` is one datagram.
///
/// # Errors
/// What sendmsg(2) says: `WouldBlock` when the send buffer is full; EIO, EINVAL or EMSGSIZE when the kernel or the
/// device does not segment; `ConnectionRefused` and the like report an earlier send, and this one did not go out.
pub fn send(socket: BorrowedFd<'_>, contents: &[u8], segment_bytes: Option<u16>) -> io::Result<()> {
    let Some(segment_bytes) = segment_bytes else { return send_datagram(socket, contents) };
    let mut slice = libc::iovec { iov_base: contents.as_ptr().cast_mut().cast(), iov_len: contents.len() };
    let mut control = Control([0; CONTROL_BYTES]);
    // SAFETY: msghdr is a plain C structure for which all-zero bytes are a valid value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &mut slice;
    message.msg_iovlen = 1;
    put_control(&mut message, &mut control, libc::SOL_UDP, libc::UDP_SEGMENT, segment_bytes);
    // SAFETY: `message` points to `slice`, `contents` and `control`, which all outlive the call; sendmsg only
    // reads them.
    let sent =
        unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One datagram: send(2) has nothing to copy in besides.
fn send_datagram(socket: BorrowedFd<'_>, contents: &[u8]) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: pointer and length describe `contents`, which send only reads.
    let sent = unsafe { libc::send(socket.as_raw_fd(), contents.as_ptr().cast(), contents.len(), flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends one datagram on a socket that is not connected, from this of its addresses, without blocking.
///
/// # Errors
/// What sendmsg(2) says: `WouldBlock` when the send buffer is full; an address that is not ours or no route.
pub fn send_from(
    socket: BorrowedFd<'_>,
    contents: &[u8],
    remote: SocketAddr,
    local: Option<IpAddr>,
) -> io::Result<()> {
    let mut slice = libc::iovec { iov_base: contents.as_ptr().cast_mut().cast(), iov_len: contents.len() };
    let name = socket2::SockAddr::from(remote);
    let mut control = Control([0; CONTROL_BYTES]);
    // SAFETY: msghdr is a plain C structure for which all-zero bytes are a valid value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = name.as_ptr().cast_mut().cast();
    message.msg_namelen = name.len();
    message.msg_iov = &mut slice;
    message.msg_iovlen = 1;
    match local {
        Some(IpAddr::V4(ip)) => {
            let s_addr = u32::from_ne_bytes(ip.octets());
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr },
                ipi_addr: libc::in_addr { s_addr },
            };
            put_control(&mut message, &mut control, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(ip)) => {
            let ipi6_addr = libc::in6_addr { s6_addr: ip.octets() };
            let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
            put_control(&mut message, &mut control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    // SAFETY: `message` points to `name`, `slice`, `contents` and `control`, which all outlive the call; sendmsg only
    // reads them.
    let sent =
        unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `value` the one control message of `message`.
fn put_control<T>(
    message: &mut libc::msghdr,
    control: &mut Control,
    level: libc::c_int,
    kind: libc::c_int,
    value: T,
) {
    assert!(
        mem::size_of::<T>() <= mem::size_of::<libc::in6_pktinfo>(),
        "the control buffer is made for that"
    );
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: the control buffer is aligned, zeroed and larger than one message of an in6_pktinfo.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(mem::size_of::<T>() as _) as _;
        let header = libc::CMSG_FIRSTHDR(message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(mem::size_of::<T>() as _) as _;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast::<T>(), value);
    }
}

/// Has the kernel coalesce datagrams of one sender into runs.
///
/// # Errors
/// When the kernel is older than 5.0.
pub fn enable_coalescing(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, &1)
}

/// Has the kernel say to which local address each datagram was sent.
///
/// # Errors
/// When the socket is not of the family said.
pub fn enable_packet_info(socket: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &1)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, &1)
    }
}

/// Has the kernel say when each datagram reached the socket; of a run that is handed over whole, its first. The first
/// who asks on a machine is told when datagrams were read, for some milliseconds.
///
/// # Errors
/// When the kernel refuses.
pub fn enable_arrival_times(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1)
}

/// Has the kernel give every datagram that no connected socket takes to the first socket bound to this address
/// and port with `SO_REUSEPORT`, whatever others are bound after it.
///
/// # Errors
/// When the kernel is older than 4.5 or the socket was bound without `SO_REUSEPORT`.
pub fn elect_first_of_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    // "return 0": the index within the group, in the order of binding.
    let mut code = [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    set_option(socket, libc::SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Raises the soft limit of open files of this process to its hard limit: every path is a socket, and 1,024 is
/// the usual soft limit. Returns the limit in force.
///
/// # Errors
/// When the limits cannot be read.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live, writable structure of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let wanted = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
    // SAFETY: as above, read only.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) } == 0;
    Ok(if raised { wanted.rlim_cur } else { limit.rlim_cur })
}

fn set_option<T>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length describe one live value that the kernel only reads; a sock_fprog points
    // to its instructions, which the callers keep alive for the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::{Instant, SystemTime};

    fn pair() -> (UdpSocket, UdpSocket) {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        a.connect(b.local_addr().unwrap()).unwrap();
        b.connect(a.local_addr().unwrap()).unwrap();
        (a, b)
    }

    fn receive_some(inbox: &mut Inbox, socket: &UdpSocket) -> usize {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match inbox.receive(socket.as_fd()) {
                Ok(count) => return count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "a datagram arrives");
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn a_segmented_send_arrives_as_equal_datagrams() {
        let (a, b) = pair();
        let contents: Vec<u8> = (0..10_u8).flat_map(|i| vec![i; 100]).chain([10; 40]).collect();
        send(a.as_fd(), &contents, Some(100)).unwrap();
        b.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 2000];
        for i in 0..11 {
            let expected = if i < 10 { vec![i; 100] } else { vec![10; 40] };
            let length = b.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected);
        }
    }

    #[test]
    fn a_coalescing_socket_says_how_long_the_segments_are() {
        let (a, b) = pair();
        enable_coalescing(b.as_fd()).unwrap();
        send(a.as_fd(), &[7; 1050], Some(100)).unwrap();
        let mut inbox = Inbox::new(4, COALESCED_BYTES_MAX);
        assert_eq!(receive_some(&mut inbox, &b), 1);
        let message = inbox.message(0);
        assert_eq!(message.data.len(), 1050);
        assert_eq!(message.segment_bytes, 100);
        assert_eq!(message.data.chunks_mut(message.segment_bytes).count(), 11);
        assert_eq!(message.remote, Some(a.local_addr().unwrap()));
    }

    #[test]
    fn the_kernel_says_when_a_datagram_came_and_not_when_it_was_read() {
        let (a, b) = pair();
        enable_arrival_times(b.as_fd()).unwrap();
        let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let mut inbox = Inbox::new(4, 100);
        for with_run in [false, true] {
            if with_run {
                enable_coalescing(b.as_fd()).unwrap();
            }
            let deadline = Instant::now() + Duration::from_secs(5);
            loop {
                let before = now();
                send(a.as_fd(), &[7; 30], with_run.then_some(10)).unwrap();
                let after = now();
                assert!(receive_some(&mut inbox, &b) > 0);
                let arrived = inbox.message(0).arrived.unwrap();
                if (before..=after).contains(&arrived) {
                    break;
                }
                // The first who asks on a machine waits for the kernel to begin with it; so long, reading is the time.
                assert!(Instant::now() < deadline, "{before:?} {arrived:?} {after:?}");
            }
        }
        let (c, d) = pair();
        c.send(&[1]).unwrap();
        receive_some(&mut inbox, &d);
        assert_eq!(inbox.message(0).arrived, None, "nobody asked");
    }

    #[test]
    fn a_batch_takes_many_datagrams_and_an_empty_one_is_none_of_them() {
        let (a, b) = pair();
        for i in 0..5 {
            a.send(&[i; 10][..usize::from(i)]).unwrap();
        }
        let mut inbox = Inbox::new(8, 100);
        let mut lengths = Vec::new();
        while lengths.len() < 5 {
            for i in 0..receive_some(&mut inbox, &b) {
                let message = inbox.message(i);
                assert!(message.segment_bytes > 0, "chunks of zero bytes would panic");
                lengths.push(message.data.len());
            }
        }
        assert_eq!(lengths, [0, 1, 2, 3, 4]);
        let nothing = inbox.receive(b.as_fd()).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_datagram_longer_than_its_buffer_is_marked() {
        let (a, b) = pair();
        a.send(&[1; 200]).unwrap();
        let mut inbox = Inbox::new(1, 100);
        assert_eq!(receive_some(&mut inbox, &b), 1);
        let message = inbox.message(0);
        assert!(message.truncated);
        assert_eq!(message.data.len(), 100);
    }

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        for (wildcard, asked, is_ipv6) in [("0.0.0.0:0", "127.0.0.5", false), ("[::]:0", "::1", true)] {
            let Ok(b) = UdpSocket::bind(wildcard) else { continue }; // a machine without IPv6
            enable_packet_info(b.as_fd(), is_ipv6).unwrap();
            let asked: IpAddr = asked.parse().unwrap();
            let a = UdpSocket::bind(wildcard).unwrap();
            a.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            a.send_to(b"x", (asked, b.local_addr().unwrap().port())).unwrap();
            let mut inbox = Inbox::new(2, 100);
            assert_eq!(receive_some(&mut inbox, &b), 1);
            let message = inbox.message(0);
            send_from(b.as_fd(), b"answer", message.remote.unwrap(), message.local).unwrap();
            let (length, from) = a.recv_from(&mut [0; 100]).unwrap();
            assert_eq!((length, from.ip()), (6, asked));
        }
    }

    #[test]
    fn packet_information_names_the_address_a_datagram_was_sent_to() {
        for (wildcard, target, is_ipv6) in [("0.0.0.0:0", "127.0.0.5", false), ("[::]:0", "::1", true)] {
            let Ok(b) = UdpSocket::bind(wildcard) else { continue }; // a machine without IPv6
            enable_packet_info(b.as_fd(), is_ipv6).unwrap();
            let target: IpAddr = target.parse().unwrap();
            let a = UdpSocket::bind(wildcard).unwrap();
            a.send_to(b"x", (target, b.local_addr().unwrap().port())).unwrap();
            let mut inbox = Inbox::new(2, 100);
            assert_eq!(receive_some(&mut inbox, &b), 1);
            assert_eq!(inbox.message(0).local, Some(target));
        }
    }
}
