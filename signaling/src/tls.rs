//! One TCP port for HTTP, HTTPS, media and the TURN relay, in clear or in TLS: the first bytes of a connection tell them
//! apart, and the protocol that TLS agreed on. Bounds how many connections there are and how long one may be silent;
//! never looks at what is said on them.

use crate::http::Connection;
use crate::media::MediaPlane;
use crate::stream::{self, FRAME_BYTES_MAX};
use crate::turn;
use anyhow::Context as _;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Most connections at one time, idle ones included: a few for each of a thousand people, within the usual
/// limit of open files.
pub const CONNECTIONS_MAX: usize = 4096;

/// How long the first byte and the TLS handshake or the first frame may take.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection on which nothing arrives for this long is closed. WebSockets are pinged far more often.
pub const IDLE: Duration = Duration::from_secs(60);

/// First byte of a TLS record that carries a handshake (RFC 8446 section 5.1); no HTTP method starts with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// TURN, as TLS names it (RFC 7443).
pub const TURN_PROTOCOL: &[u8] = b"stun.turn";

const DAY: Duration = Duration::from_secs(86_400);

/// A certificate that the machine makes for itself is good for this long: browsers take no more than 398 days.
const CERTIFICATE: Duration = DAY.saturating_mul(397);

/// Accepts connections and hands them over once they are ready to be served.
pub struct Gate {
    ready: mpsc::Receiver<(Stream, Connection)>,
}

impl Gate {
    /// Starts to accept; streams of media go to the plane. The task ends, and with it the listener, once the gate is
    /// dropped.
    pub fn open(
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        plane: Arc<dyn MediaPlane>,
    ) -> (Self, JoinHandle<()>) {
        let (sender, ready) = mpsc::channel(16);
        let task = tokio::spawn(accept(listener, TlsAcceptor::from(tls), plane, sender));
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
                let (tls, plane, ready) = (tls.clone(), Arc::clone(&plane), ready.clone());
                tokio::spawn(async move {
                    match timeout(HANDSHAKE, greet(tcp, tls)).await {
                        Ok(Ok(Greeted::Served { wire, secure })) => {
                            let stream = Stream { wire, idle: Box::pin(sleep(IDLE)), _place: place };
                            // A gate that is closed takes nobody in.
                            let _ = ready.send((stream, Connection { remote, secure })).await;
                        }
                        Ok(Ok(Greeted::Framed { tcp, first })) => {
                            stream::carry(tcp, &first, remote, plane).await;
                            drop(place);
                        }
                        Ok(Ok(Greeted::Turn { wire, head })) => {
                            if let Some(server) = plane.turn() {
                                turn::serve(wire, head, remote, server).await;
                            }
                            drop(place);
                        }
                        Ok(Err(_)) | Err(_) => {}
                    }
                });
            }
            // Out of files, or the peer was gone already: the next one may fare better, in a moment.
            Err(error) => {
                tracing::warn!(kind = ?error.kind(), "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
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
    idle: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
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
            stream.idle.as_mut().reset(Instant::now() + IDLE);
            return read;
        }
        stream.idle.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(cx)
    }
}

/// TLS with the certificate and key of these PEM files.
///
/// # Errors
/// When a file cannot be read or the two do not belong together.
pub fn from_files(certificate: &Path, key: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read a certificate from {}", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read a private key from {}", key.display()))?;
    server_config(chain, key).context("the certificate and the key do not go together")
}

/// TLS with a certificate that is made now, for these addresses and `localhost`.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn self_signed(addresses: &[IpAddr]) -> anyhow::Result<Arc<ServerConfig>> {
    let mut params = CertificateParams::new(["localhost".to_owned()])?;
    params.subject_alt_names.extend(addresses.iter().map(|&address| SanType::IpAddress(address)));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Asamblea");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Clocks differ: it begins a day ago.
    let now = SystemTime::now();
    let ((year, month, day), end) = (date(now - DAY), date(now - DAY + CERTIFICATE));
    params.not_before = rcgen::date_time_ymd(year, month, day);
    params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    server_config(vec![certificate.into()], key)
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // WebSockets travel over HTTP/1.1 here.
    config.alpn_protocols = vec![b"http/1.1".to_vec(), TURN_PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

/// Year, month and day of a time.
fn date(time: SystemTime) -> (i32, u8, u8) {
    civil(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / DAY.as_secs()))
}

/// The Gregorian date of a number of days since 1970: 400 years are 146,097 days; years are counted from March,
/// so that the leap day comes last.
fn civil(days: u64) -> (i32, u8, u8) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = (day - (153 * month + 2) / 5 + 1) as u8;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    ((era * 400 + year + next) as i32, month as u8, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(19_722), (2023, 12, 31));
        assert_eq!(civil(20_513), (2026, 3, 1));
    }

    #[test]
    fn a_certificate_can_be_made_for_any_address() {
        assert!(self_signed(&[]).is_ok());
        assert!(self_signed(&["192.0.2.1".parse().expect("v4"), "2001:db8::1".parse().expect("v6")]).is_ok());
    }
}
