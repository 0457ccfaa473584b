//! A client of the relay (TURN, RFC 8656) that shares no code with the bridge: `rtc-turn` over a real socket.
//!
//! To a bot it is a wire like another: what it sends to an address goes through the relay, and what comes from there
//! comes back.

use crate::bot::PATIENCE;
use anyhow::{Context as _, anyhow, bail};
use bytes::BytesMut;
use rtc_shared::{TransportContext, TransportMessage, TransportProtocol};
use rtc_stun::message::TransactionId;
use rtc_turn::client::{Client, ClientConfig, Event};
use rtc_turn::crypto::providers::RingProvider;
use rustls::ClientConfig as TlsConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use sansio::Protocol;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Longest message that a client reads.
const MESSAGE_BYTES_MAX: usize = 2_048;

/// What a client is given to use the relay with.
#[derive(Clone, Debug)]
pub struct RelayCredentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
}

/// How the relay is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over UDP.
    Udp,
    /// Over TCP, in clear.
    Tcp,
    /// Over TLS, whoever signed the certificate.
    Tls {
        /// Whether the client names the protocol that it means (RFC 7443); browsers do not.
        is_named: bool,
    },
}

enum Transport {
    Udp(UdpSocket),
    Stream { inbox: mpsc::Receiver<Vec<u8>>, outbox: mpsc::UnboundedSender<Vec<u8>> },
}

/// See the module.
pub struct Relayed {
    client: Client,
    transport: Transport,
    local: SocketAddr,
    server: SocketAddr,
    relayed: SocketAddr,
    /// Requests for a permission, and for which address each is.
    asked: BTreeMap<SocketAddr, Option<TransactionId>>,
    refused: BTreeSet<SocketAddr>,
    arrived: VecDeque<(SocketAddr, BytesMut)>,
}

impl Relayed {
    /// Gets an allocation of a relay on this machine.
    ///
    /// # Errors
    /// What the network or the relay said instead.
    pub async fn allocate(
        server: SocketAddr,
        way: Way,
        credentials: RelayCredentials,
    ) -> anyhow::Result<Self> {
        let (transport, local, transport_protocol) = match way {
            Way::Udp => {
                let socket = UdpSocket::bind((server.ip(), 0)).await?;
                let local = socket.local_addr()?;
                (Transport::Udp(socket), local, TransportProtocol::UDP)
            }
            Way::Tcp => {
                let stream = TcpStream::connect(server).await?;
                stream.set_nodelay(true)?;
                let local = stream.local_addr()?;
                (Transport::over(stream), local, TransportProtocol::TCP)
            }
            Way::Tls { is_named } => {
                let stream = TcpStream::connect(server).await?;
                let local = stream.local_addr()?;
                let name = ServerName::try_from("localhost")?;
                let stream = TlsConnector::from(tls(is_named)?).connect(name, stream).await?;
                (Transport::over(stream), local, TransportProtocol::TCP)
            }
        };
        let config = ClientConfig {
            turn_serv_addr: server.to_string(),
            local_addr: local,
            transport_protocol,
            username: credentials.username,
            password: credentials.password,
            ..ClientConfig::default()
        };
        let client = Client::new(config, Arc::new(RingProvider::new()))?;
        let mut relayed = Self {
            client,
            transport,
            local,
            server,
            relayed: server,
            asked: BTreeMap::new(),
            refused: BTreeSet::new(),
            arrived: VecDeque::new(),
        };
        relayed.client.allocate(Instant::now())?;
        relayed.relayed = timeout(PATIENCE, relayed.allocated()).await.context("no allocation in time")??;
        Ok(relayed)
    }

    async fn allocated(&mut self) -> anyhow::Result<SocketAddr> {
        loop {
            self.flush()?;
            while let Some(event) = self.client.poll_event() {
                match event {
                    Event::AllocateResponse(_, relayed) => return Ok(relayed),
                    Event::AllocateError(_, error) => bail!("refused: {error}"),
                    Event::TransactionTimeout(_) => bail!("no answer"),
                    _ => {}
                }
            }
            self.wait().await?;
        }
    }

    /// The address that the relay gave.
    pub fn relayed(&self) -> SocketAddr {
        self.relayed
    }

    /// Waits for the relay's word on an address that was sent to; whether it allowed it.
    ///
    /// # Errors
    /// When it says nothing.
    pub async fn allows(&mut self, peer: SocketAddr) -> anyhow::Result<bool> {
        let _ = self.send(b"?", peer);
        let deciding = async {
            loop {
                self.flush()?;
                self.note_events();
                if self.refused.contains(&peer) {
                    return Ok(false);
                }
                if self.client.relay(self.relayed)?.send_to(Instant::now(), b"?", peer).is_ok() {
                    return Ok(true);
                }
                self.wait().await?;
            }
        };
        timeout(PATIENCE, deciding).await?
    }

    /// What comes next through the relay. May be cancelled without loss.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            self.flush().map_err(io::Error::other)?;
            self.note_events();
            if let Some((peer, datagram)) = self.arrived.pop_front() {
                let length = datagram.len().min(buffer.len());
                buffer[..length].copy_from_slice(&datagram[..length]);
                return Ok((length, peer));
            }
            self.wait().await.map_err(io::Error::other)?;
        }
    }

    /// Sends a datagram through the relay. The first to an address asks for a permission and is lost, as on a network.
    ///
    /// # Errors
    /// What the client says.
    pub fn send(&mut self, datagram: &[u8], peer: SocketAddr) -> anyhow::Result<()> {
        let now = Instant::now();
        let mut relay = self.client.relay(self.relayed)?;
        if let Entry::Vacant(asked) = self.asked.entry(peer) {
            asked.insert(relay.create_permission(now, peer)?);
        } else {
            // Without an answer yet, it is lost as well.
            let _ = relay.send_to(now, datagram, peer);
        }
        self.flush()
    }

    /// Writes bytes to the stream to the relay as they are, whatever they say.
    ///
    /// # Errors
    /// When there is no stream, or it has ended.
    pub fn write(&self, bytes: &[u8]) -> anyhow::Result<()> {
        match &self.transport {
            Transport::Udp(_) => bail!("no stream"),
            Transport::Stream { outbox, .. } => {
                outbox.send(bytes.to_vec()).map_err(|_| anyhow!("the stream has ended"))
            }
        }
    }

    fn note_events(&mut self) {
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::DataIndicationOrChannelData(_, peer, data) => self.arrived.push_back((peer, data)),
                Event::CreatePermissionError(id, _) => {
                    let asked = self.asked.iter().find(|(_, asked)| **asked == Some(id));
                    self.refused.extend(asked.map(|(peer, _)| *peer));
                }
                _ => {}
            }
        }
    }

    /// Puts on the wire what the client has to say.
    fn flush(&mut self) -> anyhow::Result<()> {
        while let Some(message) = self.client.poll_write() {
            match &self.transport {
                // A full buffer or a closed port loses it, as a network may.
                Transport::Udp(socket) => drop(socket.try_send_to(&message.message, self.server)),
                Transport::Stream { outbox, .. } => {
                    let mut bytes = message.message.to_vec();
                    bytes.resize(bytes.len().next_multiple_of(4), 0);
                    outbox.send(bytes).map_err(|_| anyhow!("the stream has ended"))?;
                }
            }
        }
        Ok(())
    }

    /// Until something has come or the client's time has.
    async fn wait(&mut self) -> anyhow::Result<()> {
        let idle = Instant::now() + Duration::from_secs(1);
        let wake = self.client.poll_timeout().map_or(idle, |at| at.min(idle));
        let bytes = tokio::select! {
            bytes = self.transport.receive() => Some(bytes?),
            () = tokio::time::sleep_until(wake.into()) => None,
        };
        let now = Instant::now();
        if let Some(bytes) = bytes {
            let transport = TransportContext {
                local_addr: self.local,
                peer_addr: self.server,
                transport_protocol: TransportProtocol::UDP,
                ecn: None,
            };
            let message = BytesMut::from(&bytes[..]);
            self.client.handle_read(TransportMessage { now, transport, message })?;
        }
        self.client.handle_timeout(now)?;
        Ok(())
    }
}

impl Transport {
    fn over(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (mut read, mut write) = tokio::io::split(stream);
        let (sender, inbox) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(message) = read_message(&mut read).await {
                if sender.send(message).await.is_err() {
                    return;
                }
            }
        });
        let (outbox, mut leaving) = mpsc::unbounded_channel::<Vec<u8>>();
        tokio::spawn(async move {
            while let Some(bytes) = leaving.recv().await {
                if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
                    return;
                }
            }
            // The client is gone.
            let _ = write.shutdown().await;
        });
        Self::Stream { inbox, outbox }
    }

    async fn receive(&mut self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Udp(socket) => {
                let mut buffer = vec![0; MESSAGE_BYTES_MAX];
                let length = socket.recv(&mut buffer).await?;
                buffer.truncate(length);
                Ok(buffer)
            }
            Self::Stream { inbox, .. } => inbox.recv().await.ok_or_else(|| anyhow!("the stream has ended")),
        }
    }
}

/// Reads a message as RFC 8656 section 12.5 has it in a stream, without its padding.
async fn read_message(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 4];
    stream.read_exact(&mut message).await?;
    let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
    let (whole, padded) = match message[0] & 0xc0 {
        0x40 => (4 + length, 4 + length.next_multiple_of(4)),
        _ => (20 + length, 20 + length),
    };
    message.resize(padded, 0);
    stream.read_exact(&mut message[4..]).await?;
    message.truncate(whole);
    Ok(message)
}

fn tls(is_named: bool) -> anyhow::Result<Arc<TlsConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = AnyCertificate(provider.signature_verification_algorithms);
    let mut config = TlsConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    if is_named {
        config.alpn_protocols = vec![b"stun.turn".to_vec()];
    }
    Ok(Arc::new(config))
}

/// Takes the certificate that a bridge made for itself.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_schemes()
    }
}
