//! The whole bridge in one process: starts the parts, knows how they hang together, stops them. Decides nothing
//! about meetings.

use crate::auth::{SECRET_BYTES_MIN, Signer};
use crate::certificate;
use crate::config::{Config, Timing};
use crate::crowd::{ConnectionStats, Crowd};
use crate::greeting;
use crate::http::{self, Connection, TokenLimit};
use crate::media::{self, EVENTS_MAX, EventSink, MediaPlane};
use crate::protocol::LinksResponse;
use crate::registry::{MEETINGS_MAX, Registry, Service};
use crate::state;
use crate::tls::{self, CONNECTIONS_MAX, Gate};
use asamblea_sfu_io::batch;
use asamblea_sfu_io::turn::TurnServer;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long the last words to everyone may take: people must not wait for their terminal.
const STOP: Duration = Duration::from_millis(1300);

/// How long the media plane's threads may take to end after that.
const STOP_MEDIA: Duration = Duration::from_millis(500);

/// Connections that the kernel completes before they are accepted: a meeting that comes back at once.
const BACKLOG: i32 = 1024;

/// How often a free port is tried that is free for TCP but not for UDP.
const FREE_PORT_TRIES: usize = 20;

/// Why the bridge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something else listens there, on TCP or UDP.
    #[error("port {0} is in use")]
    PortTaken(u16),
    /// Ports below 1024 need a permission.
    #[error("port {0} is not allowed")]
    PortForbidden(u16),
    /// The address to listen on belongs to another machine.
    #[error("{0} is not an address of this machine")]
    ForeignAddress(IpAddr),
    /// Nothing can listen on such an address: a multicast group, or a link-local one that names no link.
    #[error("{0} is no address to listen on")]
    UnusableAddress(IpAddr),
    /// The limit of open files is too low to begin with.
    #[error("too many open files")]
    TooFewFiles,
    /// Any other reason why the address cannot be listened on.
    #[error("cannot listen: {0}")]
    Listen(io::Error),
    /// The certificate or key cannot be used.
    #[error("{0:#}")]
    Tls(anyhow::Error),
    /// The file with the secret cannot be used.
    #[error("the secret file cannot be used: {0}")]
    Secret(String),
    /// No random bytes.
    #[error("the operating system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// The log filter cannot be understood.
    #[error("--log: {0}")]
    Log(#[from] tracing_subscriber::filter::ParseError),
    /// The media plane did not start.
    #[error(transparent)]
    Media(#[from] asamblea_sfu_io::plane::StartError),
}

impl StartError {
    /// The error of binding a port, told apart by what to do about it.
    pub fn of_bind(address: Option<IpAddr>, port: u16, error: io::Error) -> Self {
        match (error.kind(), address) {
            (io::ErrorKind::AddrInUse, _) => Self::PortTaken(port),
            (io::ErrorKind::PermissionDenied, _) => Self::PortForbidden(port),
            (io::ErrorKind::AddrNotAvailable, Some(address)) => Self::ForeignAddress(address),
            (io::ErrorKind::InvalidInput, Some(address)) => Self::UnusableAddress(address),
            _ => Self::of_system(error),
        }
    }

    /// The error of anything else that the operating system was asked for at the start.
    pub fn of_system(error: io::Error) -> Self {
        match error.raw_os_error() {
            // ENFILE and EMFILE, which have no kind of their own.
            Some(23 | 24) => Self::TooFewFiles,
            _ => Self::Listen(error),
        }
    }
}

/// What the parts share.
pub(crate) struct Shared {
    pub(crate) registry: Arc<Registry>,
    pub(crate) signer: Arc<Signer>,
    pub(crate) tokens: TokenLimit,
    /// None without a media plane that has one.
    pub(crate) relay: Option<Relay>,
    pub(crate) timing: Timing,
    /// What whoever sits at this machine is told about how others get here.
    pub(crate) links: LinksResponse,
    /// One permit for each WebSocket that lives.
    pub(crate) places: Arc<Semaphore>,
}

/// The TURN relay as people are told of it.
pub(crate) struct Relay {
    pub(crate) server: Arc<TurnServer>,
    /// Whether there is a certificate that browsers may take for TURN over TLS.
    pub(crate) has_certificate: bool,
}

/// A bridge that runs.
pub struct Bridge {
    port: u16,
    network: Vec<IpAddr>,
    plane: Arc<dyn MediaPlane>,
    crowd: Arc<Crowd>,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
    /// Ends when the listener is closed.
    accepting: Mutex<JoinHandle<()>>,
    router: JoinHandle<()>,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.server.abort();
        self.router.abort();
    }
}

impl Bridge {
    /// Starts the bridge with its own media plane. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let signer = Arc::new(signer(&config)?);
        let secret = signer.turn_secret();
        Self::start_signing(config, signer, |config, port, sink| media::start(config, secret, port, sink))
            .await
    }

    /// Starts the bridge with another media plane: `plane` is told the configuration, the port and where its events
    /// go.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn start_with(
        config: Config,
        plane: impl Fn(&Config, u16, EventSink) -> Result<Arc<dyn MediaPlane>, StartError>,
    ) -> Result<Self, StartError> {
        let signer = Arc::new(signer(&config)?);
        Self::start_signing(config, signer, plane).await
    }

    async fn start_signing(
        config: Config,
        signer: Arc<Signer>,
        plane: impl Fn(&Config, u16, EventSink) -> Result<Arc<dyn MediaPlane>, StartError>,
    ) -> Result<Self, StartError> {
        let network = network_addresses(&config);
        let tls = match (&config.tls_cert, &config.tls_key) {
            (Some(certificate), Some(key)) => certificate::from_files(certificate, key),
            _ => {
                let own = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                let addresses: Vec<IpAddr> = own.iter().chain(&network).copied().collect();
                certificate::own(state::folder(config.state_dir.as_deref()).as_deref(), &addresses)
            }
        }
        .and_then(tls::server_config)
        .map_err(StartError::Tls)?;
        let (sink, events) = media::events(EVENTS_MAX);
        let (listener, port, plane) = listen(&config, |port| plane(&config, port, Arc::clone(&sink))).await?;

        let (members_max, timing) = (config.members_max, config.timing);
        let registry =
            Registry::new(Arc::clone(&plane), Arc::clone(&signer), MEETINGS_MAX, members_max, timing);
        let router = tokio::spawn(Arc::clone(&registry).route(events));
        let shared = Arc::new(Shared {
            registry,
            signer,
            tokens: TokenLimit::new(),
            relay: plane.turn().map(|server| Relay { server, has_certificate: config.tls_cert.is_some() }),
            timing: config.timing,
            links: LinksResponse {
                links: network.iter().map(|address| greeting::origin(*address, port)).collect(),
                own_certificate: config.tls_cert.is_none(),
            },
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        });
        let crowd = Arc::new(Crowd::default());
        let (gate, accepting) =
            Gate::open(listener, tls, Arc::clone(&plane), Arc::clone(&crowd), config.timing.idle);
        let app = http::router(Arc::clone(&shared));
        let mut service = shared.registry.service();
        let server = tokio::spawn(async move {
            let serve = axum::serve(gate, app.into_make_service_with_connect_info::<Connection>());
            let stopped = async move {
                // An error means that the bridge was dropped, which is as good as stopping.
                let _ = service.wait_for(|service| *service != Service::Open).await;
            };
            // The listener never fails, so neither does this.
            let _ = serve.with_graceful_shutdown(stopped).await;
        });
        tracing::info!("the bridge is up");
        Ok(Self { port, network, plane, crowd, shared, server, accepting: Mutex::new(accepting), router })
    }

    /// The port of HTTP, HTTPS and media.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The addresses at which others may reach this machine.
    pub fn network(&self) -> &[IpAddr] {
        &self.network
    }

    /// How many meetings there are.
    pub fn meetings(&self) -> usize {
        self.shared.registry.meetings()
    }

    /// What has become of the TCP connections.
    pub fn connections(&self) -> ConnectionStats {
        self.crowd.stats()
    }

    /// Makes place for another process that has the port, or will have it: gives the listeners up, then has everyone
    /// move over, and forwards what flows until they did, but no longer than [`Timing::moving`]. What is left after
    /// that is for [`Self::stop`].
    pub async fn make_place(&self) {
        let registry = &self.shared.registry;
        registry.close();
        let plane = Arc::clone(&self.plane);
        // Joins a thread, which is not for a task to wait for.
        let media = tokio::task::spawn_blocking(move || plane.yield_port());
        // Only when both are closed does everyone who is told reach the other process.
        let mut accepting = self.accepting.lock().await;
        let closed = async { tokio::join!(media, &mut *accepting) };
        if timeout(STOP_MEDIA, closed).await.is_err() {
            tracing::warn!("the port is not given up in time");
        }
        tracing::info!("the bridge makes place for another");
        if timeout(self.shared.timing.moving, registry.make_place()).await.is_err() {
            tracing::info!("not everyone has moved in time");
        }
    }

    /// Says `bye` to everyone, ends every meeting and stops, in less than two seconds.
    pub async fn stop(self) {
        let orderly = async {
            self.shared.registry.stop().await;
            // All permits back means that every socket has had its last words.
            let _ = self.shared.places.acquire_many(CONNECTIONS_MAX as u32).await;
        };
        if timeout(STOP, orderly).await.is_err() {
            tracing::debug!("some sockets did not take their last words in time");
        }
        self.server.abort();
        let plane = Arc::clone(&self.plane);
        // Joins threads, which is not for a task to wait for.
        let stopped = tokio::task::spawn_blocking(move || plane.stop());
        if timeout(STOP_MEDIA, stopped).await.is_err() {
            tracing::warn!("the media plane did not stop in time");
        }
        tracing::info!("the bridge has stopped");
    }
}

/// Takes the port for TCP and starts the media plane on the same one for UDP.
async fn listen(
    config: &Config,
    plane: impl Fn(u16) -> Result<Arc<dyn MediaPlane>, StartError>,
) -> Result<(TcpListener, u16, Arc<dyn MediaPlane>), StartError> {
    for attempt in 1.. {
        let listener = bind(config.bind, config.port, config.take_over)
            .map_err(|e| StartError::of_bind(config.bind, config.port, e))?;
        let port = listener.local_addr().map_err(StartError::Listen)?.port();
        match plane(port) {
            Ok(plane) => return Ok((listener, port, plane)),
            Err(StartError::PortTaken(_)) if config.port == 0 && attempt < FREE_PORT_TRIES => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("the last attempt returns")
}

/// On all addresses where none is given: on IPv6 and IPv4 at once, or on IPv4 where there is no IPv6.
fn bind(address: Option<IpAddr>, port: u16, take_over: bool) -> io::Result<TcpListener> {
    if let Some(address) = address {
        return bind_to(SocketAddr::new(address, port), take_over);
    }
    match bind_to((Ipv6Addr::UNSPECIFIED, port).into(), take_over) {
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable)
            || error.raw_os_error() == Some(97) /* EAFNOSUPPORT */ =>
        {
            bind_to((Ipv4Addr::UNSPECIFIED, port).into(), take_over)
        }
        bound => bound,
    }
}

/// A listener that another process of the same user may join, if it is told to take over. It is shared after it was
/// bound, so that a second server does not start by mistake.
fn bind_to(address: SocketAddr, take_over: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address == SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())) {
        socket.set_only_v6(false)?;
    }
    // Connections of an earlier process may still linger on the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if take_over {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    socket.listen(BACKLOG)?;
    // Who listened first gets every connection, until that one closes.
    batch::elect_first_of_port(socket.as_fd())?;
    TcpListener::from_std(socket.into())
}

/// With the secret that outlives the process, if there is a place for it.
fn signer(config: &Config) -> Result<Signer, StartError> {
    if let Some(file) = &config.secret_file {
        let secret = std::fs::read(file).map_err(|error| StartError::Secret(error.to_string()))?;
        if secret.len() < SECRET_BYTES_MIN {
            return Err(StartError::Secret(format!("it has fewer than {SECRET_BYTES_MIN} bytes")));
        }
        return Ok(Signer::new(&secret)?);
    }
    match state::folder(config.state_dir.as_deref()).map(|folder| state::secret(&folder)) {
        Some(Ok(secret)) => return Ok(Signer::new(&secret)?),
        Some(Err(error)) => tracing::warn!(
            %error,
            "the state folder cannot be used: after a restart people come back as newcomers (--state-dir)"
        ),
        None => {
            tracing::warn!("no state folder: after a restart people come back as newcomers (--state-dir)")
        }
    }
    Ok(Signer::random()?)
}

/// Where others reach this machine: what was configured, else the interfaces' addresses, IPv4 first. Link-local
/// IPv6 addresses are left out: they make no link that a browser opens.
fn network_addresses(config: &Config) -> Vec<IpAddr> {
    let mut addresses = config.public_address.clone();
    if let Some(bound) = config.bind.filter(|bound| !bound.is_unspecified()) {
        if !bound.is_loopback() {
            addresses.push(bound);
        }
    } else {
        // Without the list of interfaces the bridge still works on this machine.
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let mut own: Vec<IpAddr> = interfaces
            .iter()
            .map(|interface| interface.ip())
            .filter(|ip| !ip.is_loopback() && !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()))
            .collect();
        own.sort_unstable();
        addresses.extend(own);
    }
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses
}
