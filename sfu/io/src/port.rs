//! The one UDP port: which addresses it is bound to, and how its listening sockets come to be.
//!
//! Every socket of the port is bound with `SO_REUSEADDR` and `SO_REUSEPORT`, so that a path can have its own. That
//! would let a second server start on the same port and take half of the traffic unnoticed; a bind without these
//! options goes first and finds out. Only a server that is to take over from another does without: the port's group
//! elects the socket that listened first, so the earlier server gets everything until it closes its own. IPv4 and
//! IPv6 have a socket each: no address is ever IPv4-mapped.

use crate::batch;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

/// Receive buffer asked for a listening socket, bytes: a second of honest checks of a full node, so that a
/// flood has to be large to crowd one out. The kernel caps it at net.core.rmem_max.
const LISTEN_BUFFER_BYTES: usize = 4 << 20;

/// How often a free port is drawn when none is asked for and the other family has the drawn one in use.
const DRAWS_MAX: usize = 16;

/// Why the port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another program has it, or another instance of this one.
    #[error(
        "UDP port {port} is in use: stop what holds it (`ss -ulpn 'sport = :{port}'` names it) or choose another port"
    )]
    InUse {
        /// The port.
        port: u16,
    },
    /// The system keeps it for the administrator.
    #[error("UDP port {port} needs more rights: choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE")]
    NotAllowed {
        /// The port.
        port: u16,
    },
    /// The address is not one of this machine.
    #[error(
        "{address} is not an address of this machine: use one that `ip address` shows, or leave it out for all"
    )]
    NotOurAddress {
        /// The address.
        address: IpAddr,
    },
    /// Something else.
    #[error("the UDP socket could not be opened ({0}): see that this user may open sockets")]
    Socket(#[from] io::Error),
}

/// The addresses that the port is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPort {
    /// The number.
    pub port: u16,
    /// The IPv4 address, unspecified for all of them; `None` without IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address, unspecified for all of them; `None` without IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl LocalPort {
    /// The bound address of the family of `remote`.
    pub fn toward(&self, remote: &SocketAddr) -> Option<SocketAddr> {
        let ip = match remote {
            SocketAddr::V4(_) => self.ipv4.map(IpAddr::V4),
            SocketAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        };
        ip.map(|ip| SocketAddr::new(ip, self.port))
    }

    /// The address to show: IPv6 where there is one, since it stands for both when unspecified.
    pub fn address(&self) -> SocketAddr {
        let ipv4 = self.ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED).into();
        SocketAddr::new(self.ipv6.map_or(ipv4, IpAddr::V6), self.port)
    }
}

/// Opens the port. The unspecified IPv6 address means every address of both families, and IPv4 alone on a machine
/// without IPv6. Port 0 draws a free one.
///
/// # Errors
/// See [`PortError`].
pub fn open(bind: SocketAddr) -> Result<(LocalPort, Vec<Socket>), PortError> {
    open_as(bind, false)
}

/// Like [`open`], but the port may be open already, by another server of the same user. That one gets everything until
/// it closes its sockets.
///
/// # Errors
/// See [`PortError`].
pub fn take_over(bind: SocketAddr) -> Result<(LocalPort, Vec<Socket>), PortError> {
    open_as(bind, true)
}

fn open_as(bind: SocketAddr, take_over: bool) -> Result<(LocalPort, Vec<Socket>), PortError> {
    let draws =
        if bind.port() == 0 && bind.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) { DRAWS_MAX } else { 1 };
    for _ in 1..draws {
        match open_once(bind, take_over) {
            Err(PortError::InUse { .. }) => {}
            result => return result,
        }
    }
    open_once(bind, take_over)
}

/// A new socket of the port: not blocking, allowed to share the address.
pub(crate) fn shared_socket(address: &SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(*address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    Ok(socket)
}

fn open_once(bind: SocketAddr, take_over: bool) -> Result<(LocalPort, Vec<Socket>), PortError> {
    let mut local = LocalPort { port: bind.port(), ipv4: None, ipv6: None };
    let mut sockets = Vec::new();
    match bind.ip() {
        IpAddr::V4(ip) => {
            sockets.push(listen(ip.into(), &mut local.port, take_over)?);
            local.ipv4 = Some(ip);
        }
        IpAddr::V6(ip) if ip != Ipv6Addr::UNSPECIFIED => {
            sockets.push(listen(ip.into(), &mut local.port, take_over)?);
            local.ipv6 = Some(ip);
        }
        IpAddr::V6(ip) => {
            match listen(ip.into(), &mut local.port, take_over) {
                Ok(socket) => {
                    sockets.push(socket);
                    local.ipv6 = Some(ip);
                }
                Err(error @ (PortError::InUse { .. } | PortError::NotAllowed { .. })) => return Err(error),
                Err(error) => tracing::debug!(%error, "no IPv6 here; IPv4 alone"),
            }
            sockets.push(listen(Ipv4Addr::UNSPECIFIED.into(), &mut local.port, take_over)?);
            local.ipv4 = Some(Ipv4Addr::UNSPECIFIED);
        }
    }
    Ok((local, sockets))
}

fn listen(ip: IpAddr, port: &mut u16, take_over: bool) -> Result<Socket, PortError> {
    let explain = |error: io::Error, port: u16| match error.kind() {
        io::ErrorKind::AddrInUse => PortError::InUse { port },
        io::ErrorKind::PermissionDenied => PortError::NotAllowed { port },
        io::ErrorKind::AddrNotAvailable => PortError::NotOurAddress { address: ip },
        _ => PortError::Socket(error),
    };
    let asked = SocketAddr::new(ip, *port);
    let alone = Socket::new(Domain::for_address(asked), Type::DGRAM, Some(Protocol::UDP))?;
    if asked.is_ipv6() {
        alone.set_only_v6(true)?;
    }
    let bound = if take_over && *port != 0 {
        *port
    } else {
        alone.bind(&asked.into()).map_err(|error| explain(error, *port))?;
        alone.local_addr()?.as_socket().map_or(*port, |address| address.port())
    };
    // From here on others that share may bind as well, and still none that do not: no gap between the two.
    alone.set_reuse_address(true)?;

    let address = SocketAddr::new(ip, bound);
    let socket = shared_socket(&address)?;
    socket.bind(&address.into()).map_err(|error| explain(error, bound))?;
    drop(alone);
    batch::enable_packet_info(socket.as_fd(), address.is_ipv6())?;
    if let Err(error) = batch::elect_first_of_port(socket.as_fd()) {
        tracing::debug!(%error, "no group program; a check may be lost while a path opens, and is repeated");
    }
    if let Err(error) = socket.set_recv_buffer_size(LISTEN_BUFFER_BYTES) {
        tracing::debug!(%error, "the listening socket keeps its default buffer");
    }
    *port = bound;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_said_with_the_next_step() {
        let (local, _sockets) = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), local.port);
        let again = open(address).unwrap_err();
        assert!(matches!(again, PortError::InUse { port } if port == local.port), "{again:?}");
        assert!(again.to_string().contains("choose another port"));
    }

    #[test]
    fn a_foreign_address_is_said_with_the_next_step() {
        let error = open("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert!(matches!(error, PortError::NotOurAddress { .. }), "{error:?}");
    }

    #[test]
    fn every_address_of_both_families_has_the_same_port() {
        let (local, sockets) = open("[::]:0".parse().unwrap()).unwrap();
        assert_ne!(local.port, 0);
        for socket in &sockets {
            assert_eq!(socket.local_addr().unwrap().as_socket().unwrap().port(), local.port);
        }
        assert_eq!(local.ipv4, Some(Ipv4Addr::UNSPECIFIED));
        assert_eq!(local.toward(&"127.0.0.1:9".parse().unwrap()).unwrap().port(), local.port);
    }

    #[test]
    fn a_port_is_free_again_when_its_sockets_are_gone() {
        let (local, sockets) = open("127.0.0.1:0".parse().unwrap()).unwrap();
        drop(sockets);
        open(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), local.port)).unwrap();
    }

    /// Which of two servers' sockets gets what a stranger sends to the port.
    fn elected<'a>(port: u16, sockets: &[&'a Socket]) -> Vec<&'a Socket> {
        // Many strangers: without the election the kernel would choose by their addresses.
        let strangers: Vec<_> = (0..32).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for stranger in &strangers {
            // Delivered within the call, as loopback does.
            stranger.send_to(b"?", (Ipv4Addr::LOCALHOST, port)).unwrap();
        }
        let mut buffer = [std::mem::MaybeUninit::uninit(); 8];
        let mut count = |socket: &Socket| std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count();
        let counts: Vec<_> = sockets.iter().map(|socket| (*socket, count(socket))).collect();
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<usize>(), strangers.len(), "none is lost");
        counts.into_iter().filter(|(_, count)| *count > 0).map(|(socket, _)| socket).collect()
    }

    #[test]
    fn the_earlier_server_gets_everything_until_it_closes_and_then_the_one_that_takes_over() {
        for address in ["127.0.0.1:0", "[::]:0"] {
            let (local, mut first) = open(address.parse().unwrap()).unwrap();
            let bind = SocketAddr::new(address.parse::<SocketAddr>().unwrap().ip(), local.port);
            assert!(matches!(open(bind), Err(PortError::InUse { .. })), "not without being told");
            let friend = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let _before = crate::path::PathSocket::open(&local, friend.local_addr().unwrap(), None).unwrap();
            let (_, mut second) = take_over(bind).unwrap();
            // The IPv4 socket comes last.
            let (earlier, later) = (first.pop().unwrap(), second.pop().unwrap());
            assert!(std::ptr::eq(elected(local.port, &[&earlier, &later])[0], &earlier));
            // A path of the earlier server opens between the two.
            let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let remote = stranger.local_addr().unwrap();
            let _path = crate::path::PathSocket::open(&local, remote, None).unwrap();
            let got = elected(local.port, &[&earlier, &later]);
            assert!(got.len() == 1 && std::ptr::eq(got[0], &earlier));
            drop((first, earlier));
            assert_eq!(elected(local.port, &[&later]).len(), 1);
        }
    }
}
