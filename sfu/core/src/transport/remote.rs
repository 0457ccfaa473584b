//! What a path runs over and where it leads.

use std::net::SocketAddr;

/// Names one carrier of datagrams for the life of the process: a TCP stream, or a relayed address towards one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CarrierId(pub u64);

/// The other end of a path. Two paths are the same if this is: an address alone does not say so, since the same
/// number may be a UDP port of one program and a TCP port of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// A UDP address; the shell opens a connected socket to it.
    Udp(SocketAddr),
    /// A carrier that is there already and ends when it wants to.
    Carried {
        /// Which.
        carrier: CarrierId,
        /// The address that is told in answer to a check: a stream's other end, or the relayed address.
        address: SocketAddr,
    },
}

impl Remote {
    /// Where the peer is seen to be.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Udp(address) | Self::Carried { address, .. } => *address,
        }
    }
}

impl From<SocketAddr> for Remote {
    fn from(address: SocketAddr) -> Self {
        Self::Udp(address)
    }
}
