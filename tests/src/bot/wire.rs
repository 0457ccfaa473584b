//! What carries a bot's datagrams, and how an answer is read for each kind of it.

use crate::turn::Relayed;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;

/// What carries a bot's datagrams.
pub(super) enum Wire {
    Udp(UdpSocket),
    /// Frames of RFC 4571 on one connection.
    Stream {
        server: SocketAddr,
        local: SocketAddr,
        write: OwnedWriteHalf,
        inbox: mpsc::Receiver<Vec<u8>>,
    },
    /// Through an allocation of the bridge's relay.
    Relayed(Box<Relayed>),
}

impl Wire {
    pub(super) async fn stream(bridge: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(bridge).await?;
        stream.set_nodelay(true)?;
        let (server, local) = (stream.peer_addr()?, stream.local_addr()?);
        let (mut read, write) = stream.into_split();
        let (sender, inbox) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(length) = read.read_u16().await {
                let mut frame = vec![0; usize::from(length)];
                if read.read_exact(&mut frame).await.is_err() || sender.send(frame).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self::Stream { server, local, write, inbox })
    }

    pub(super) fn local(&self) -> std::io::Result<SocketAddr> {
        match self {
            Self::Udp(udp) => udp.local_addr(),
            Self::Stream { local, .. } => Ok(*local),
            Self::Relayed(relayed) => Ok(relayed.relayed()),
        }
    }

    /// May be cancelled without loss.
    pub(super) async fn receive(&mut self, buffer: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
        match self {
            Self::Udp(udp) => udp.recv_from(buffer).await,
            Self::Stream { server, inbox, .. } => match inbox.recv().await {
                Some(frame) if frame.len() <= buffer.len() => {
                    buffer[..frame.len()].copy_from_slice(&frame);
                    Ok((frame.len(), *server))
                }
                Some(_) => Err(std::io::ErrorKind::InvalidData.into()),
                None => std::future::pending().await,
            },
            Self::Relayed(relayed) => match relayed.receive(buffer).await {
                Ok(received) => Ok(received),
                // The stream to the relay has ended; nothing comes any more.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Bytes as they are, where there is a stream.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Stream { write, .. } => Ok(write.write_all(bytes).await?),
            Self::Relayed(relayed) => relayed.write(bytes),
            Self::Udp(_) => anyhow::bail!("no stream"),
        }
    }

    pub(super) async fn send(&mut self, datagram: &[u8], to: SocketAddr) -> std::io::Result<()> {
        match self {
            Self::Udp(udp) => udp.send_to(datagram, to).await.map(|_| ()),
            Self::Stream { server, write, .. } if to == *server => {
                let length = (datagram.len() as u16).to_be_bytes();
                write.write_all(&[&length, datagram].concat()).await
            }
            Self::Stream { .. } => Err(std::io::ErrorKind::AddrNotAvailable.into()),
            Self::Relayed(relayed) => relayed.send(datagram, to).map_err(std::io::Error::other),
        }
    }
}

/// An answer with its TCP candidates alone. They are shown to the media side as its own kind, since it only sees
/// datagrams: framing them is the wire's business.
pub(super) fn of_streams(sdp: &str) -> String {
    let lines = sdp.split_inclusive("\r\n").filter(|line| !line.contains(" udp "));
    lines.map(|line| line.replace(" tcp ", " udp ").replace(" tcptype passive", "")).collect()
}

/// An answer whose only way to the bridge is this port of this machine.
pub(super) fn through(sdp: &str, port: u16) -> String {
    let mut is_first = true;
    let detour = |line: &str| match line.starts_with("a=candidate:") {
        false => Some(line.to_owned()),
        true if line.contains(" udp ") && std::mem::take(&mut is_first) => {
            let mut words: Vec<&str> = line.split(' ').collect();
            let port = port.to_string();
            (words[4], words[5]) = ("127.0.0.1", &port);
            Some(words.join(" "))
        }
        true => None,
    };
    sdp.split_inclusive("\r\n").filter_map(detour).collect()
}
