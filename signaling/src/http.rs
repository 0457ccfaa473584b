//! The HTTP face: the API, the WebSocket's door, the embedded client, and the headers that keep browsers safe.
//! Keeps nothing about anyone: addresses live in memory only, as keyed hashes, for the rate limit.

use crate::auth::JOIN_TOKEN;
use crate::bridge::Shared;
use crate::crowd::Lines;
use crate::protocol::{LinksResponse, RelayCredentials, TokenResponse};
use crate::registry::MeetingName;
use crate::room::Role;
use crate::tls::Gate;
use crate::ws;
use asamblea_sfu_io::turn::Credentials;
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HOST, LOCATION, ORIGIN,
    REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use governor::clock::DefaultClock;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::SystemTime;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tower::ServiceExt;

/// Tokens a second on average, and at once, for one address: a hall full of people behind one address joins
/// within a minute.
const TOKENS: (u32, u32) = (5, 100);

/// Addresses whose token use is remembered. Those that have been quiet are forgotten first.
const ADDRESSES_MAX: usize = 20_000;

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The other end.
    pub remote: SocketAddr,
    /// Whether TLS protects it.
    pub secure: bool,
}

impl Connected<IncomingStream<'_, Gate>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Gate>) -> Self {
        *stream.remote_addr()
    }
}

/// Nothing is loaded from anywhere else; blob: and data: are pictures and sound that the page made itself.
const POLICY: &str = "default-src 'self'; connect-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; \
    style-src 'self'; script-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; \
    form-action 'self'";

const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(self), microphone=(self), display-capture=(self), geolocation=()"),
    ),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Everything that is served.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let client = asamblea_web::router();
    let api = Router::new()
        .route("/health", get(health))
        .route("/links", get(links))
        .route("/meetings/{name}/token", post(token))
        .route("/socket", get(socket))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "not_found", "there is no such endpoint") })
        .method_not_allowed_fallback(|| async { not_allowed("this endpoint has no such method") });
    Router::new()
        .nest("/api", api)
        .fallback({
            let client = client.clone();
            move |request: Request| serve_client(client.clone(), request)
        })
        .layer(middleware::from_fn_with_state(client, guard))
        .with_state(shared)
}

/// Sends plain HTTP from elsewhere to HTTPS, where browsers allow a camera, shows people a page instead of a refusal, and
/// puts the headers on everything.
async fn guard(
    State(client): State<Router>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request,
    next: Next,
) -> Response {
    let page = PageRequest::of(&client, &request);
    let mut response = match https_target(connection, &request) {
        Some(target) => (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, target)]).into_response(),
        None => next.run(request).await,
    };
    if response.status().is_client_error()
        && let Some(page) = page
    {
        response = page.instead_of(response).await;
    }
    let headers = response.headers_mut();
    headers.extend(HEADERS);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Where a request has to go first, if it came in clear from another machine. A proxy that speaks TLS itself
/// says so in X-Forwarded-Proto; a browser cannot set that header.
fn https_target(connection: Connection, request: &Request) -> Option<HeaderValue> {
    let headers = request.headers();
    let proxied = headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes() == b"https");
    if connection.secure || proxied || request.uri().path() == "/api/health" {
        return None;
    }
    let host = host(headers)?;
    if is_loopback(&host) {
        return None;
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    HeaderValue::try_from(format!("https://{host}{path}")).ok()
}

/// The Host header, if it is well-formed: a name or address with an optional port.
fn host(headers: &HeaderMap) -> Option<axum::http::uri::Authority> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let authority: axum::http::uri::Authority = host.parse().ok()?;
    (!authority.as_str().contains('@')).then_some(authority)
}

fn is_loopback(host: &axum::http::uri::Authority) -> bool {
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether someone is at this machine. Behind a proxy everyone comes over loopback; only who also asked for a loopback
/// host is here for sure.
fn is_here(connection: Connection, headers: &HeaderMap) -> bool {
    connection.remote.ip().to_canonical().is_loopback()
        && host(headers).is_some_and(|host| is_loopback(&host))
}

/// Whether a browser page of another site is behind this request. Programs that are no browser send no Origin.
fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let authority = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.parse::<Uri>().ok())
        .and_then(|origin| origin.authority().cloned());
    // Authorities compare without regard to case.
    authority.is_none() || authority != host(headers)
}

async fn health() -> Response {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })).into_response()
}

/// Where others get here. Addresses of the network are nobody's business who is not at this machine: a proxy's
/// visitors and pages that have a name lead here (DNS rebinding) come with another host or with a word of the proxy.
async fn links(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
) -> Response {
    if is_foreign(&headers) {
        return foreign();
    }
    let is_proxied =
        ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "via"]
            .iter()
            .any(|name| headers.contains_key(*name));
    let links = match is_here(connection, &headers) && !is_proxied {
        true => shared.links.clone(),
        false => LinksResponse { links: Vec::new(), own_certificate: false },
    };
    Json(links).into_response()
}

async fn token(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
    name: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Response {
    if is_foreign(&headers) {
        return foreign();
    }
    if !shared.tokens.allows(connection.remote.ip()) {
        let mut response = refusal(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_requests",
            "too many tokens were asked for from this address; try again in a few seconds",
        );
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        return response;
    }
    let name = match name
        .map_err(|_| "the name is not valid UTF-8".to_owned())
        .and_then(|Path(name)| MeetingName::new(&name).map_err(|invalid| invalid.to_string()))
    {
        Ok(name) => name,
        Err(why) => return refusal(StatusCode::BAD_REQUEST, "invalid_name", &why),
    };
    let now = SystemTime::now();
    let token = shared.signer.join(now, name.as_str(), Role::Member);
    let relay = shared.relay.as_ref().map(|relay| {
        let Credentials { username, password } = relay.server.credentials(now + JOIN_TOKEN, token.as_bytes());
        RelayCredentials { username, credential: password, tls: relay.has_certificate }
    });
    Json(TokenResponse { meeting: name.as_str().to_owned(), token, relay }).into_response()
}

async fn socket(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    mut request: Request,
) -> Response {
    if is_foreign(request.headers()) {
        return foreign();
    }
    let Ok(response) = create_response_with_body(&request, Body::empty) else {
        return refusal(StatusCode::UPGRADE_REQUIRED, "upgrade_required", "this is a WebSocket endpoint");
    };
    let loopback = is_here(connection, request.headers());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // One that is lost before the answer is out never becomes a socket.
        if let Ok(upgraded) = upgrade.await {
            ws::serve(upgraded, connection, loopback, shared).await;
        }
    });
    response
}

/// Files as they are; every other path that is not a file's is the client's page, which reads the meeting's
/// name from it.
async fn serve_client(client: Router, mut request: Request) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = not_allowed("only GET is served here");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let hashed = request.uri().path().starts_with("/assets/");
    if !hashed && !request.uri().path().contains('.') {
        *request.uri_mut() = Uri::from_static("/");
    }
    let mut response = match client.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if response.status() == StatusCode::NOT_FOUND {
        return refusal(StatusCode::NOT_FOUND, "not_found", "there is no such file");
    }
    // Names below /assets/ carry a hash of their content, others do not.
    let caching = if hashed { "public, max-age=31536000, immutable" } else { "no-cache" };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    response
}

/// What a person sees in a browser instead of a refusal for programs: the client's page, which says in their language
/// that no meeting has such a name, and leads to the start page.
struct PageRequest {
    client: Router,
    request: Request,
}

impl PageRequest {
    /// `None` where a program asks, or a page for one of its parts: a browser wants HTML for an address bar only.
    fn of(client: &Router, request: &Request) -> Option<Self> {
        let headers = request.headers();
        let wants_page = headers.get(ACCEPT)?.to_str().ok()?.contains("text/html");
        let mut page = Request::new(Body::empty());
        if let Some(encodings) = headers.get(ACCEPT_ENCODING) {
            page.headers_mut().insert(ACCEPT_ENCODING, encodings.clone());
        }
        wants_page.then(|| Self { client: client.clone(), request: page })
    }

    async fn instead_of(self, refusal: Response) -> Response {
        let mut response = match self.client.oneshot(self.request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        *response.status_mut() = refusal.status();
        let headers = response.headers_mut();
        headers.remove(ETAG);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for name in [ALLOW, RETRY_AFTER] {
            headers.extend(refusal.headers().get(&name).map(|value| (name, value.clone())));
        }
        response
    }
}

fn not_allowed(message: &str) -> Response {
    refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

fn foreign() -> Response {
    refusal(StatusCode::FORBIDDEN, "foreign_origin", "requests of other sites' pages are not served")
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "code": code, "message": message }))).into_response()
}

/// The per-address limit on tokens.
pub(crate) struct TokenLimit {
    limiter: RateLimiter<u64, DashMapStateStore<u64>, DefaultClock>,
    lines: Lines,
}

impl TokenLimit {
    pub(crate) fn new() -> Self {
        let positive = |n| NonZeroU32::new(n).expect("the constants are positive");
        let quota = Quota::per_second(positive(TOKENS.0)).allow_burst(positive(TOKENS.1));
        Self { limiter: RateLimiter::dashmap(quota), lines: Lines::default() }
    }

    fn allows(&self, address: IpAddr) -> bool {
        if self.limiter.len() >= ADDRESSES_MAX {
            self.limiter.retain_recent();
            if self.limiter.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        self.limiter.check_key(&self.lines.of(address)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn pages_of_other_sites_are_foreign() {
        let own = [(HOST, "meet.example:8443"), (ORIGIN, "https://MEET.example:8443")];
        assert!(!is_foreign(&headers(&own)));
        assert!(!is_foreign(&headers(&[(HOST, "meet.example")])), "no browser");
        for origin in
            ["https://evil.example", "https://meet.example", "null", "https://meet.example:8443.evil"]
        {
            assert!(is_foreign(&headers(&[(HOST, "meet.example:8443"), (ORIGIN, origin)])), "{origin}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (host, expected) in [
            ("localhost:8443", true),
            ("127.0.0.1", true),
            ("[::1]:8443", true),
            ("localhost.evil.example", false),
            ("192.168.1.2:8443", false),
        ] {
            let host = host.parse().expect("an authority");
            assert_eq!(is_loopback(&host), expected, "{host}");
        }
    }

    #[test]
    fn one_address_cannot_take_tokens_without_end() {
        let limit = TokenLimit::new();
        let address = IpAddr::from([192, 0, 2, 1]);
        let granted = (0..1000).filter(|_| limit.allows(address)).count();
        assert!((100..110).contains(&granted), "{granted}");
        assert!(limit.allows(IpAddr::from([192, 0, 2, 2])), "others are served");
    }
}
