//! Janus as Debian packages it, with its video room plugin.
//!
//! Publishers offer, subscribers are offered to (<https://janus.conf.meetecho.com/docs/videoroom>): one connection
//! carries any number of feeds (Janus 1.x calls it multistream). Its API is JSON over a WebSocket.

use super::{
    ANSWER_BYTES_MAX, ANSWER_LIMIT, FeedId, Kind, Negotiate, Peer, Published, Running, START_LIMIT,
    ServerOptions, Session, Track, install,
};
use crate::place::{Place, Process, Scratch};
use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// Where Janus listens for WebSockets; in a namespace of its own nobody else does.
const API_PORT: u16 = 8188;
/// Each room takes so many publishers: more than one core carries.
const PUBLISHERS_MAX: u32 = 1_000;
/// The plugin's word for a room that is there already.
const ROOM_EXISTS: u64 = 427;
/// Its word for a publisher that is not there, or not yet connected.
const NO_SUCH_FEED: u64 = 428;
/// How long a feed is waited for, and how often it is asked for: seldom enough to cost the server nothing.
const FEED_LIMIT: Duration = Duration::from_secs(5);
const FEED_RETRY: Duration = Duration::from_millis(50);
/// What the API prints when it listens, which is the last that Janus does before it is ready.
const READY: &str = "Websockets server started";

/// Plugins and transports that are not loaded.
const PLUGINS_OFF: [&str; 11] = [
    "audiobridge",
    "duktape",
    "echotest",
    "lua",
    "nosip",
    "recordplay",
    "sip",
    "streaming",
    "textroom",
    "videocall",
    "voicemail",
];
const TRANSPORTS_OFF: [&str; 5] = ["http", "mqtt", "nanomsg", "pfunix", "rabbitmq"];

/// Debian's Janus.
pub(crate) struct Janus;

impl Peer for Janus {
    fn name(&self) -> &'static str {
        "janus"
    }

    fn prepare(&mut self, may_install: bool) -> anyhow::Result<()> {
        install::packages("the comparison with Janus", &["janus"], Some("janus.service"), may_install)
    }

    fn version(&self) -> anyhow::Result<String> {
        let version = install::version_of("janus").context("Debian's package janus is not installed")?;
        Ok(format!("Janus, Debian's package {version}"))
    }

    fn start(
        &mut self,
        place: &Place,
        core: usize,
        options: &ServerOptions,
    ) -> anyhow::Result<Box<dyn Running>> {
        let address = place.server_address();
        if address.is_loopback() {
            bail!("Janus offers no candidates on loopback: run it in a namespace");
        }
        let folder = Scratch::new()?;
        for (name, text) in configuration(&folder, place, options)? {
            std::fs::write(folder.path().join(name), text).with_context(|| format!("writing {name}"))?;
        }
        let mut command = Command::new("janus");
        command.arg("-F").arg(folder.path()).arg("-C").arg(folder.path().join("janus.jcfg"));
        let process =
            place.spawn(core, command, &folder.path().join("janus.log"))?.with_signaling(is_signaling);
        process.wait_for(START_LIMIT, |line| line.contains(READY).then_some(()))?;
        let api = SocketAddr::new(address, API_PORT);
        let running = RunningJanus { processes: [process], api, feedback: options.feedback, _folder: folder };
        // The one thing that is still missing then is the loop that accepts.
        running.session()?;
        Ok(Box::new(running))
    }
}

/// Media runs in one loop for each connection, everything else serves the API.
fn is_signaling(_process: &str, thread: &str) -> bool {
    !thread.starts_with("hloop")
}

fn configuration(
    folder: &Scratch,
    place: &Place,
    options: &ServerOptions,
) -> anyhow::Result<[(&'static str, String); 3]> {
    let files =
        |names: &[&str]| names.iter().map(|name| format!("libjanus_{name}.so")).collect::<Vec<_>>().join(",");
    let library = library_folder()?;
    let folder = folder.path().display();
    let address = place.server_address();
    let (from, to) = (options.ports.start(), options.ports.end());
    let janus = format!(
        r#"general: {{
  configs_folder = "{folder}"
  plugins_folder = "{library}/plugins"
  transports_folder = "{library}/transports"
  events_folder = "{library}/events"
  loggers_folder = "{library}/loggers"
  debug_level = 4
  debug_colors = false
  # Bots do not keep their sessions alive: they end with their WebSocket.
  session_timeout = 0
}}
media: {{
  ipv6 = false
  rtp_port_range = "{from}-{to}"
}}
nat: {{
  # As on a server with a public address, and as the others do it.
  ice_lite = true
  ice_enforce_list = "{address}"
}}
plugins: {{ disable = "{}" }}
transports: {{ disable = "{}" }}
"#,
        files(&PLUGINS_OFF),
        files(&TRANSPORTS_OFF),
    );
    let websockets = format!(
        "general: {{ ws = true, ws_port = {API_PORT}, ws_ip = \"{address}\", wss = false }}\n\
         admin: {{ admin_ws = false }}\n"
    );
    Ok([
        ("janus.jcfg", janus),
        ("janus.transport.websockets.jcfg", websockets),
        ("janus.plugin.videoroom.jcfg", "general: { string_ids = true }\n".to_owned()),
    ])
}

/// Where the package keeps its plugins: in the folder of this machine's architecture.
fn library_folder() -> anyhow::Result<String> {
    let output = Command::new("dpkg-query").args(["-L", "janus"]).output().context("dpkg-query")?;
    let list = String::from_utf8_lossy(&output.stdout);
    let plugins = list.lines().find(|line| line.ends_with("/janus/plugins")).context("janus's plugins")?;
    Ok(plugins.trim_end_matches("/plugins").to_owned())
}

struct RunningJanus {
    processes: [Process; 1],
    api: SocketAddr,
    feedback: bool,
    _folder: Scratch,
}

impl Running for RunningJanus {
    fn processes(&self) -> &[Process] {
        &self.processes
    }

    fn address(&self) -> SocketAddr {
        self.api
    }

    fn session(&self) -> anyhow::Result<Box<dyn Session>> {
        let open = || {
            let mut api = Api::connect(self.api)?;
            let id = api.id(json!({ "janus": "create" }))?;
            Ok(JanusSession { api, id, feedback: self.feedback, publisher: None, subscriber: None })
        };
        let session =
            open().map_err(|error: anyhow::Error| self.processes[0].explain(&format!("{error:#}")))?;
        Ok(Box::new(session))
    }
}

struct JanusSession {
    api: Api,
    id: u64,
    feedback: bool,
    publisher: Option<u64>,
    subscriber: Option<Subscriber>,
}

struct Subscriber {
    handle: u64,
    /// Which m-line carries which feed.
    mids: HashMap<FeedId, String>,
}

impl JanusSession {
    fn attach(&mut self) -> anyhow::Result<u64> {
        self.api.id(json!({ "janus": "attach", "session_id": self.id, "plugin": "janus.plugin.videoroom" }))
    }

    /// A request to the plugin: gives what the plugin says, and the description with it.
    fn ask(
        &mut self,
        handle: u64,
        body: Value,
        jsep: Option<Value>,
    ) -> anyhow::Result<(Value, Option<String>)> {
        let what = body["request"].as_str().unwrap_or_default().to_owned();
        let mut request =
            json!({ "janus": "message", "session_id": self.id, "handle_id": handle, "body": body });
        if let Some(jsep) = jsep {
            request["jsep"] = jsep;
        }
        let mut reply = self.api.ask(request).context(what.clone())?;
        let data = reply["plugindata"]["data"].take();
        if let Some(error) = data["error"].as_str()
            && data["error_code"].as_u64() != Some(ROOM_EXISTS)
        {
            let code = data["error_code"].as_u64();
            return Err(Refusal { code, text: format!("the video room refuses {what}: {error}") }.into());
        }
        Ok((data, reply["jsep"]["sdp"].as_str().map(str::to_owned)))
    }

    /// Joins as a subscriber. A feed is there once its publisher's connection is up, which Janus sees a little after
    /// the publisher does and tells only other publishers: so it is asked again for a while.
    fn join(&mut self, handle: u64, join: &Value) -> anyhow::Result<(Value, Option<String>)> {
        let deadline = Instant::now() + FEED_LIMIT;
        loop {
            let result = self.ask(handle, join.clone(), None);
            let is_early = result.as_ref().is_err_and(|error| {
                error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.code == Some(NO_SUCH_FEED))
            });
            if !is_early || Instant::now() > deadline {
                return result;
            }
            std::thread::sleep(FEED_RETRY);
        }
    }

    fn make_room(&mut self, handle: u64, room: &str) -> anyhow::Result<()> {
        let body = json!({
            "request": "create", "room": room, "permanent": false, "publishers": PUBLISHERS_MAX,
            // No limit, and no key frame unless one is asked for.
            "bitrate": 0, "fir_freq": 0,
            "audiocodec": "opus", "videocodec": "vp8",
            "transport_wide_cc_ext": self.feedback, "audiolevel_ext": true,
            "videoorient_ext": false, "playoutdelay_ext": false,
        });
        self.ask(handle, body, None).map(drop)
    }
}

impl Session for JanusSession {
    fn publish(&mut self, room: &str, offer: &str, tracks: &[Track]) -> anyhow::Result<Published> {
        if self.publisher.is_some() {
            bail!("this bot publishes already");
        }
        let handle = self.attach()?;
        self.publisher = Some(handle);
        self.make_room(handle, room)?;
        let join = json!({ "request": "join", "ptype": "publisher", "room": room });
        let (joined, _) = self.ask(handle, join, None)?;
        let id = joined["id"].as_str().context("the publisher's id")?.to_owned();
        // Left the choice, Janus would be the DTLS client, as no other server here; so it is not left it.
        let offer = offer.replace("a=setup:actpass", "a=setup:active");
        let jsep = json!({ "type": "offer", "sdp": offer, "trickle": false });
        let (configured, answer) = self.ask(handle, json!({ "request": "publish" }), Some(jsep))?;
        let streams = configured["streams"].as_array().context("the publisher's streams")?;
        if streams.len() != tracks.len() {
            bail!("the video room takes {} tracks of {}", streams.len(), tracks.len());
        }
        let feed = |(stream, track): (&Value, &Track)| {
            let expected = if track.kind == Kind::Audio { "audio" } else { "video" };
            if stream["type"] != expected {
                bail!("the video room takes {} for {expected}", stream["type"]);
            }
            let mid = stream["mid"].as_str().context("a stream's mid")?;
            Ok(FeedId(format!("{id}/{mid}")))
        };
        let feeds = streams.iter().zip(tracks).map(feed).collect::<anyhow::Result<_>>()?;
        Ok(Published { answer: answer.context("the answer")?, feeds })
    }

    fn subscribe(&mut self, room: &str, feeds: &[FeedId], bot: &mut dyn Negotiate) -> anyhow::Result<()> {
        if self.subscriber.is_some() {
            bail!("this bot receives already");
        }
        let split = |feed: &FeedId| {
            let (id, mid) =
                feed.0.split_once('/').with_context(|| format!("{:?} is no feed of Janus's", feed.0))?;
            Ok(json!({ "feed": id, "mid": mid }))
        };
        let streams = feeds.iter().map(split).collect::<anyhow::Result<Vec<_>>>()?;
        let handle = self.attach()?;
        let join = json!({ "request": "join", "ptype": "subscriber", "room": room, "streams": streams });
        let (attached, offer) = self.join(handle, &join)?;
        let mid_of = |stream: &Value| {
            let text = |name: &str| stream[name].as_str().map(str::to_owned);
            Some((FeedId(format!("{}/{}", text("feed_id")?, text("feed_mid")?)), text("mid")?))
        };
        let mids: HashMap<_, _> =
            attached["streams"].as_array().into_iter().flatten().filter_map(mid_of).collect();
        if let Some(missing) = feeds.iter().find(|feed| !mids.contains_key(feed)) {
            bail!("the video room leaves out {:?}", missing.0);
        }
        self.subscriber = Some(Subscriber { handle, mids });
        let answer = bot.answer_offer(&offer.context("the offer")?)?;
        let jsep = json!({ "type": "answer", "sdp": answer, "trickle": false });
        self.ask(handle, json!({ "request": "start" }), Some(jsep)).map(drop)
    }

    fn prefer(&mut self, feed: &FeedId, spatial: u8) -> anyhow::Result<()> {
        let subscriber = self.subscriber.as_ref().context("this bot does not receive yet")?;
        let mid = subscriber.mids.get(feed).with_context(|| format!("{:?} is not received", feed.0))?;
        let handle = subscriber.handle;
        let streams = [json!({ "mid": mid, "substream": spatial, "temporal": 2 })];
        self.ask(handle, json!({ "request": "configure", "streams": streams }), None).map(drop)
    }
}

/// The plugin's no, with its code.
#[derive(Debug)]
struct Refusal {
    code: Option<u64>,
    text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refusal {}

/// The WebSocket with its requests and answers.
struct Api {
    socket: WebSocket<TcpStream>,
    transactions: u64,
}

impl Api {
    fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT).context("connecting to its API")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let mut request = format!("ws://{address}/").into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("janus-protocol"));
        let config = WebSocketConfig::default().max_message_size(Some(ANSWER_BYTES_MAX));
        let (socket, _) = tungstenite::client::client_with_config(request, stream, Some(config))
            .map_err(|error| anyhow!("its API takes no WebSocket: {error}"))?;
        Ok(Self { socket, transactions: 0 })
    }

    /// What makes something, and answers with its id.
    fn id(&mut self, request: Value) -> anyhow::Result<u64> {
        self.ask(request)?["data"]["id"].as_u64().context("an id")
    }

    fn ask(&mut self, mut request: Value) -> anyhow::Result<Value> {
        self.transactions += 1;
        let transaction = self.transactions.to_string();
        request["transaction"] = transaction.clone().into();
        self.socket.send(Message::text(request.to_string())).context("its API")?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.get_ref().set_read_timeout(Some(left))?;
            let message = self.socket.read().context("waiting for its API")?;
            let Message::Text(text) = message else { continue };
            let reply: Value = serde_json::from_str(&text).context("its API")?;
            // Everything else is an event that nobody waits for.
            if reply["transaction"] != transaction.as_str() || reply["janus"] == "ack" {
                continue;
            }
            if reply["janus"] == "error" {
                bail!("it refuses: {}", reply["error"]["reason"].as_str().unwrap_or("without a reason"));
            }
            return Ok(reply);
        }
    }
}
