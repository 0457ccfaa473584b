//! One TCP port for HTTP, HTTPS, media and the TURN relay, in clear or in TLS: the first bytes of a connection tell them
//! apart, and the protocol that TLS agreed on. Bounds how many connections there are and how long one may be silent;
//! never looks at what is said on them.

use crate::certificate::{self, Certificate};
use crate::crowd::{Crowd, Cut, HalfOpen, Place};
use crate::http::Connection;
use crate::media::MediaPlane;
use crate::stream::{self, FRAME_BYTES_MAX};
use crate::turn;
use anyhow::Context as _;
use rustls::ServerConfig;
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Most connections at one time, idle ones included: a few for each of a thousand people, within the usual
/// limit of open files. How many of them one line may have says [`crate::crowd`].
pub const CONNECTIONS_MAX: usize = 4096;

/// How long the first byte and the TLS handshake or the first frame may take.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// First byte of a TLS record that carries a handshake (RFC 8446 section 5.1); no HTTP method starts with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// TURN, as TLS names it (RFC 7443).
pub const TURN_PROTOCOL: &[u8] = b"stun.turn";

/// Accepts connections and hands them over once they are ready to be served.
pub struct Gate {
    ready: mpsc::Receiver<(Stream, Connection)>,
}

impl Gate {
    /// Starts to accept; streams of media go to the plane. The task ends, and with it the listener, once the gate is
    /// dropped.
    pub(crate) fn open(
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        plane: Arc<dyn MediaPlane>,
        crowd: Arc<Crowd>,
        idle: Duration,
    ) -> (Self, JoinHandle<()>) {
        let (sender, ready) = mpsc::channel(16);
        let task = tokio::spawn(accept(listener, TlsAcceptor::from(tls), plane, crowd, idle, sender));
        (Self { ready }, task)
    }
}

impl axum::serve::Listener for Gate {
    type Io = Stream;
    type Addr = Connection;

    async fn accept(&mut self) -> (Stream, Connection) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task only ends after this gate; there is nothing to serve any more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Connection> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    plane: Arc<dyn MediaPlane>,
    crowd: Arc<Crowd>,
    idle: Duration,
    ready: mpsc::Sender<(Stream, Connection)>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        match accepted {
            Ok((tcp, remote)) => {
                let Some((counted, half_open)) = crowd.enter(remote.ip()) else { continue };
                let entrant = Entrant { tcp, remote, half_open, place: (counted, place) };
                tokio::spawn(let_in(
                    entrant,
                    tls.clone(),
                    Arc::clone(&plane),
                    Arc::clone(&crowd),
                    idle,
                    ready.clone(),
                ));
            }
            // Out of files, or the peer was gone already: the next one may fare better, in a moment.
            Err(error) => {
                tracing::warn!(kind = ?error.kind(), "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A connection of which nothing is known yet.
struct Entrant {
    tcp: TcpStream,
    remote: SocketAddr,
    half_open: HalfOpen,
    place: (Place, OwnedSemaphorePermit),
}

/// Finds out what a connection is for and hands it over, or serves it until it ends.
async fn let_in(
    entrant: Entrant,
    tls: TlsAcceptor,
    plane: Arc<dyn MediaPlane>,
    crowd: Arc<Crowd>,
    idle: Duration,
    ready: mpsc::Sender<(Stream, Connection)>,
) {
    let Entrant { tcp, remote, mut half_open, place } = entrant;
    let greeted = tokio::select! {
        greeted = timeout(HANDSHAKE, greet(tcp, tls)) => greeted.unwrap_or_else(|late| Err(late.into())),
        () = half_open.crowded_out() => return,
    };
    let ended = match greeted {
        Ok(Greeted::Served { wire, secure }) => {
            wire.give_up_after(idle);
            let stream = Stream { wire, idle, idles: Box::pin(sleep(idle)), _place: place };
            // A gate that is closed takes nobody in.
            let _ = ready.send((stream, Connection { remote, secure })).await;
            return;
        }
        Ok(Greeted::Framed { tcp, first }) => {
            // Its first frame is judged at once.
            drop(half_open);
            stream::carry(tcp, &first, remote, plane).await
        }
        Ok(Greeted::Turn { wire, head }) => match plane.turn() {
            Some(server) => turn::serve(wire, head, remote, server, half_open).await,
            None => Err(io::ErrorKind::PermissionDenied.into()),
        },
        Err(error) => Err(error),
    };
    let cut = ended.err().and_then(|error| match error.kind() {
        io::ErrorKind::TimedOut => Some(Cut::Silent),
        io::ErrorKind::InvalidData => Some(Cut::Senseless),
        io::ErrorKind::PermissionDenied => Some(Cut::Unknown),
        // They have ended by themselves.
        _ => None,
    });
    if let Some(cut) = cut {
        crowd.note(cut);
    }
    drop(place);
}

enum Greeted {
    /// A connection of HTTP.
    Served { wire: Wire, secure: bool },
    /// A stream of framed datagrams and the first of them.
    Framed { tcp: TcpStream, first: Vec<u8> },
    /// A client of the relay and what was read of it already.
    Turn { wire: Wire, head: Vec<u8> },
}

async fn greet(mut tcp: TcpStream, tls: TlsAcceptor) -> io::Result<Greeted> {
    tcp.set_nodelay(true)?;
    let mut first = [0u8; 1];
    if tcp.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] == TLS_HANDSHAKE {
        let mut tls = Box::new(tls.accept(tcp).await?);
        let is_turn = match tls.get_ref().1.alpn_protocol() {
            Some(protocol) => protocol == TURN_PROTOCOL,
            // Browsers name none for TURN. No HTTP method begins with what is first in STUN.
            None => matches!(tls.fill_buf().await?, [0, ..]),
        };
        let wire = Wire::Tls(tls);
        Ok(match is_turn {
            true => Greeted::Turn { wire, head: Vec::new() },
            false => Greeted::Served { wire, secure: true },
        })
    } else if stream::is_framed(first[0]) {
        let length = tcp.read_u16().await?;
        if length == turn::ALLOCATE {
            return Ok(Greeted::Turn { wire: Wire::Plain(tcp), head: length.to_be_bytes().to_vec() });
        }
        let first = stream::read_rest(&mut tcp, length, &mut [0; FRAME_BYTES_MAX]).await?.to_vec();
        Ok(Greeted::Framed { tcp, first })
    } else {
        Ok(Greeted::Served { wire: Wire::Plain(tcp), secure: false })
    }
}

/// A connection that is served.
pub struct Stream {
    wire: Wire,
    /// How long nothing may go either way.
    idle: Duration,
    /// Ends when nothing has for that long.
    idles: Pin<Box<Sleep>>,
    _place: (Place, OwnedSemaphorePermit),
}

impl Stream {
    fn note_traffic(&mut self) {
        self.idles.as_mut().reset(Instant::now() + self.idle);
    }
}

pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Has the kernel end the connection when nobody takes what is sent for this long (RFC 5482, `TCP_USER_TIMEOUT` in tcp(7)):
    /// who is asked nothing is found to be gone by what they are told. The kernel's own patience is a quarter of an hour.
    fn give_up_after(&self, time: Duration) {
        // Without it that patience is what there is.
        let _ = SockRef::from(self.tcp()).set_tcp_user_timeout(Some(time));
    }

    /// The connection below, whatever protects it.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

macro_rules! on_wire {
    ($self:ident, $wire:ident => $call:expr) => {
        match $self.get_mut() {
            Wire::Plain(tcp) => {
                let $wire = Pin::new(tcp);
                $call
            }
            Wire::Tls(tls) => {
                let $wire = Pin::new(tls.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, wire => wire.poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_wire!(self, wire => wire.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, wire => wire.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, wire => wire.poll_shutdown(cx))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &mut *self;
        let read = Pin::new(&mut stream.wire).poll_read(cx, buf);
        if read.is_ready() {
            stream.note_traffic();
            return read;
        }
        stream.idles.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        let written = Pin::new(&mut stream.wire).poll_write(cx, buf);
        if written.is_ready() {
            stream.note_traffic();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(cx)
    }
}

/// TLS with this certificate.
///
/// # Errors
/// When the certificate and the key do not belong together.
pub fn server_config(certificate: Certificate) -> anyhow::Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(certificate::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificate.chain, certificate.key)
        .context("the certificate and the key do not go together")?;
    // WebSockets travel over HTTP/1.1 here.
    config.alpn_protocols = vec![b"http/1.1".to_vec(), TURN_PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_is_told_when_to_give_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let wire = Wire::Plain(tcp);
        let minute = Duration::from_secs(60);
        wire.give_up_after(minute);
        assert_eq!(SockRef::from(wire.tcp()).tcp_user_timeout().unwrap(), Some(minute));
    }
}
