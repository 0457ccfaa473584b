//! The real server over real sockets, with a media plane that only writes down what it is told.

use asamblea::config::Timing;
use asamblea::media::{EventSink, MediaPlane};
use asamblea::protocol::{
    ByeReason, ClientMessage, ErrorCode, FRAME_BYTES_MAX, LinksResponse, ServerMessage, TokenResponse,
};
use asamblea::{Bridge, Config};
use asamblea_seam::{Command, DisconnectReason, Event, PeerId, UpKind, UpState};
use futures_util::{SinkExt, StreamExt};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// Nothing on one machine takes longer, however busy it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// A media plane that answers offers and remembers commands.
struct Recorder {
    commands: Mutex<Vec<Command>>,
    sink: EventSink,
}

impl MediaPlane for Recorder {
    fn handle(&self, command: Command) {
        self.commands.lock().expect("no panic").push(command.clone());
        if let Command::Offer { peer, revision, sdp, .. } = command {
            (self.sink)(Event::Answer { peer, revision, sdp: format!("answer to {sdp}") });
        }
    }

    fn yield_port(&self) {}

    fn stop(&self) {}
}

thread_local! {
    /// What was logged on this thread: a test's runtime has just one, on which its bridge lives, too.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Captured;

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct World {
    bridge: Bridge,
    plane: Arc<Recorder>,
}

async fn world() -> World {
    world_with(Config::default()).await
}

async fn world_with(config: Config) -> World {
    // One subscriber for all tests: whether a log line is of interest is cached for the process.
    static CAPTURE: Once = Once::new();
    CAPTURE.call_once(|| {
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(|| Captured);
        tracing::subscriber::set_global_default(subscriber.finish()).expect("nobody else set one");
    });
    let config = Config { port: 0, bind: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), ..config };
    let made = Mutex::new(None);
    let bridge = Bridge::start_with(config, |_, _, sink| {
        let plane = Arc::new(Recorder { commands: Mutex::default(), sink });
        *made.lock().expect("no panic") = Some(Arc::clone(&plane));
        Ok(plane)
    })
    .await
    .expect("a free port");
    let plane = made.into_inner().expect("no panic").expect("made");
    World { bridge, plane }
}

impl World {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.bridge.port())).await.expect("the bridge listens")
    }

    /// One HTTP exchange: the status, the head in lower case, the body.
    async fn http(&self, method: &str, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
        exchange(self.connect().await, method, path, headers).await
    }

    async fn token(&self, meeting: &str) -> String {
        let path = format!("/api/meetings/{meeting}/token");
        let (status, _, body) = self.http("POST", &path, "Host: localhost\r\n").await;
        assert_eq!(status, 200);
        serde_json::from_slice::<TokenResponse>(&body).expect("a token").token
    }

    async fn socket(&self) -> Client {
        let (socket, _) =
            client_async("ws://localhost/api/socket", self.connect().await).await.expect("the door is open");
        Client { socket }
    }

    async fn join(&self, meeting: &str, name: &str) -> (Client, Welcome) {
        self.join_with(meeting, name, None).await
    }

    async fn join_with(&self, meeting: &str, name: &str, resume: Option<String>) -> (Client, Welcome) {
        let mut client = self.socket().await;
        client.hello(self.token(meeting).await, name, resume).await;
        let ServerMessage::Welcome { member, resume, resumed, revision, members, .. } = client.next().await
        else {
            panic!("no welcome")
        };
        let names = members.into_iter().map(|member| member.name).collect();
        (client, Welcome { member, resume, resumed, revision, names })
    }
}

struct Welcome {
    member: PeerId,
    resume: String,
    resumed: bool,
    revision: u32,
    names: Vec<String>,
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    headers: &str,
) -> (u16, String, Vec<u8>) {
    let request =
        format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut response = Vec::new();
    // A TLS peer may end without a farewell.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut response)).await.expect("an answer in time");
    let end = response.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(response[..end].to_vec()).expect("ASCII");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_lowercase(), response[end + 4..].to_vec())
}

struct Client {
    socket: WebSocketStream<TcpStream>,
}

impl Client {
    async fn say(&mut self, message: &ClientMessage) {
        self.text(&serde_json::to_string(message).expect("serialises")).await;
    }

    async fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("sent");
    }

    async fn hello(&mut self, token: String, name: &str, resume: Option<String>) {
        self.say(&ClientMessage::Hello { versions: vec![1], token, name: name.into(), resume }).await;
    }

    async fn rename(&mut self, name: &str) {
        self.say(&ClientMessage::Rename { name: name.into() }).await;
    }

    async fn frame(&mut self) -> Option<Result<Message, Error>> {
        timeout(PATIENCE, self.socket.next()).await.expect("something in time")
    }

    /// The next message but for pings, which are answered.
    async fn next(&mut self) -> ServerMessage {
        loop {
            match self.frame().await {
                Some(Ok(Message::Text(text))) => {
                    match serde_json::from_str(&text).expect("of the protocol") {
                        ServerMessage::Ping { nonce } => self.say(&ClientMessage::Pong { nonce }).await,
                        message => return message,
                    }
                }
                other => panic!("no message but {other:?}"),
            }
        }
    }

    async fn until(&mut self, wanted: impl Fn(&ServerMessage) -> bool) -> ServerMessage {
        loop {
            let message = self.next().await;
            if wanted(&message) {
                return message;
            }
        }
    }

    async fn error(&mut self) -> (ErrorCode, bool) {
        let is_error = |message: &ServerMessage| matches!(message, ServerMessage::Error { .. });
        match self.until(is_error).await {
            ServerMessage::Error { code, fatal, .. } => (code, fatal),
            _ => unreachable!(),
        }
    }

    async fn ends(&mut self) {
        while let Some(Ok(_)) = self.frame().await {}
    }

    /// What this client says is still heard by itself and so by the room.
    async fn is_served(&mut self, name: &str) {
        self.rename(name).await;
        self.until(|message| matches!(message, ServerMessage::Changed { member } if member.name == name))
            .await;
    }
}

#[tokio::test]
async fn two_people_meet_and_their_offers_are_answered() {
    let world = world().await;
    let (mut ana, welcome) = world.join("Plaza%20Mayor", "  Ana <b>\u{202e}").await;
    assert_eq!(welcome.names, ["Ana <b>"]);
    let (_luis, second) = world.join("plaza-mayor", &"ñ".repeat(10_000)).await;
    assert_eq!(second.names[1].chars().count(), 64);
    assert!(matches!(ana.next().await, ServerMessage::Joined { member } if member.id == second.member));
    ana.say(&ClientMessage::Offer { revision: 1, sdp: "v=0\r\na=mid:0\r\n".into(), ups: vec![] }).await;
    assert_eq!(
        ana.next().await,
        ServerMessage::Answer { revision: 1, sdp: "answer to v=0\r\na=mid:0\r\n".into() }
    );
    let ups = vec![UpState { kind: UpKind::Camera, active: true, height_px: 720 }];
    ana.say(&ClientMessage::Publish { ups: ups.clone() }).await;
    assert!(matches!(ana.next().await, ServerMessage::Changed { member } if member.ups == ups));
    ana.say(&ClientMessage::Leave {}).await;
    assert_eq!(ana.next().await, ServerMessage::Bye { reason: ByeReason::Left });
    ana.ends().await;
    let commands = world.plane.commands.lock().expect("no panic").clone();
    let kinds: Vec<&str> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Join { peer, loopback, .. } if *peer == welcome.member => {
                Some(if *loopback { "here" } else { "there" })
            }
            Command::Offer { .. } => Some("offer"),
            Command::Publish { .. } => Some("publish"),
            Command::Leave { peer } if *peer == welcome.member => Some("leave"),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, ["here", "offer", "publish", "leave"]);
}

#[tokio::test]
async fn bad_messages_get_a_typed_error_and_the_connection_lives_on() {
    let world = world().await;
    let (mut ana, _) = world.join("plaza", "Ana").await;
    for bad in [
        "",
        "null",
        "{}",
        "[1]",
        "{\"type\":\"conquer\"}",
        "{\"type\":\"rename\"}",
        "{\"type\":\"rename\",\"name\":7}",
        "{\"type\":\"rename\",\"name\":\"x\",\"member\":5}",
        "{\"type\":\"leave\",\"member\":5}",
        "{\"type\":\"view\",\"slots\":[{\"mid\":\"a b\",\"up\":null,\"height_px\":1}]}",
        &"[".repeat(100_000),
    ] {
        ana.text(bad).await;
        assert_eq!(ana.error().await, (ErrorCode::Malformed, false), "{:.40}", bad);
    }
    ana.socket.send(Message::binary(vec![0; 10])).await.expect("sent");
    assert_eq!(ana.error().await, (ErrorCode::Malformed, false));
    ana.hello("t".into(), "Ana", None).await;
    assert_eq!(ana.error().await, (ErrorCode::AlreadyJoined, false));
    ana.text("{\"type\":\"view\",\"slots\":[{\"mid\":\"1\",\"up\":null,\"height_px\":1}]}").await;
    assert_eq!(ana.error().await, (ErrorCode::UnknownReference, false));
    ana.is_served("Ana still here").await;
}

#[tokio::test]
async fn at_the_door_only_a_hello_with_a_genuine_token_is_served() {
    let world = world().await;
    let mut client = world.socket().await;
    client.rename("x").await;
    assert_eq!(client.error().await, (ErrorCode::NotJoined, true));
    client.ends().await;

    let mut client = world.socket().await;
    client.text("{\"type\":\"hello\",\"versions\":[7,9],\"shape\":\"of the future\"}").await;
    assert_eq!(client.error().await, (ErrorCode::UnsupportedVersion, true));

    let genuine = world.token("plaza").await;
    let mut forged = genuine.clone();
    forged.replace_range(30..31, if &genuine[30..31] == "A" { "B" } else { "A" });
    for token in [forged, String::new(), "a.b.c".into(), "x".repeat(100_000)] {
        let mut client = world.socket().await;
        client.hello(token, "x", None).await;
        assert_eq!(client.error().await, (ErrorCode::InvalidToken, true));
        client.ends().await;
    }
    // A resume token is no join token, and a forged one begins a new membership.
    let (_ana, welcome) = world.join("plaza", "Ana").await;
    let mut client = world.socket().await;
    client.hello(welcome.resume.clone(), "x", None).await;
    assert_eq!(client.error().await, (ErrorCode::InvalidToken, true));
    let (_, other) = world.join_with("plaza", "x", Some(format!("{}x", welcome.resume))).await;
    assert!(!other.resumed && other.member != welcome.member);
    // A resume token of one meeting opens no membership in another.
    let (_, other) = world.join_with("elsewhere", "x", Some(welcome.resume)).await;
    assert!(!other.resumed);
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_its_socket_alone() {
    let world = world().await;
    let (mut luis, _) = world.join("plaza", "Luis").await;
    for (size, is_told) in [(FRAME_BYTES_MAX + 1, true), (1_000_000, true), (3_000_000, false)] {
        let (mut ana, _) = world.join("plaza", "Ana").await;
        // The server may close before all of it is sent.
        let _ = ana.socket.send(Message::text("x".repeat(size))).await;
        if is_told {
            assert_eq!(ana.error().await, (ErrorCode::TooLarge, true), "{size}");
        }
        ana.ends().await;
        luis.until(|message| matches!(message, ServerMessage::Changed { member } if !member.present)).await;
    }
    luis.is_served("Luis still here").await;
}

#[tokio::test]
async fn a_flood_is_refused_and_the_meeting_next_door_does_not_notice() {
    let world = world().await;
    let (mut ana, _) = world.join("plaza", "Ana").await;
    let (mut luis, _) = world.join("next-door", "Luis").await;
    for n in 0..1000u32 {
        ana.rename(&format!("name {n}")).await;
    }
    let began = Instant::now();
    luis.is_served("Luis still here").await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(ana.error().await, (ErrorCode::TooManyRequests, false));
    let (mut eva, _) = world.join("plaza", "Eva").await;
    eva.is_served("Eva too").await;
}

#[tokio::test]
async fn a_cut_socket_is_resumed_without_a_new_join() {
    let world = world().await;
    let (mut luis, _) = world.join("plaza", "Luis").await;
    let (mut ana, welcome) = world.join("plaza", "Ana").await;
    ana.say(&ClientMessage::Offer { revision: 3, sdp: "v=0".into(), ups: vec![] }).await;
    ana.until(|message| matches!(message, ServerMessage::Answer { .. })).await;
    drop(ana);
    let absent =
        |message: &ServerMessage| matches!(message, ServerMessage::Changed { member } if !member.present);
    luis.until(absent).await;
    let (mut ana, again) = world.join_with("plaza", "Ana", Some(welcome.resume)).await;
    assert!(again.resumed);
    assert_eq!((again.member, again.revision, again.names.len()), (welcome.member, 3, 2));
    luis.until(|message| matches!(message, ServerMessage::Changed { member } if member.present)).await;
    ana.is_served("Ana is back").await;
    let commands = world.plane.commands.lock().expect("no panic").clone();
    assert!(!commands.contains(&Command::Leave { peer: welcome.member }), "media was left alone");
}

#[tokio::test]
async fn a_membership_that_goes_on_in_another_tab_ends_here() {
    let world = world().await;
    let (mut here, welcome) = world.join("plaza", "Ana").await;
    let (mut there, _) = world.join_with("plaza", "Ana", Some(welcome.resume)).await;
    assert_eq!(here.next().await, ServerMessage::Bye { reason: ByeReason::Replaced });
    here.ends().await;
    there.is_served("Ana goes on").await;
}

#[tokio::test]
async fn a_slow_reader_is_cut_off_and_may_resume() {
    let world = world().await;
    let (mut luis, _) = world.join("plaza", "Luis").await;
    let (mut ana, welcome) = world.join("plaza", "Ana").await;
    ana.say(&ClientMessage::Offer { revision: 1, sdp: "v=0".into(), ups: vec![] }).await;
    ana.until(|message| matches!(message, ServerMessage::Answer { .. })).await;
    // More than the kernel's buffers and the queue hold, while Ana does not read.
    let answer = Event::Answer { peer: welcome.member, revision: 1, sdp: "x".repeat(40_000) };
    for _ in 0..700 {
        (world.plane.sink)(answer.clone());
    }
    luis.until(|message| matches!(message, ServerMessage::Changed { member } if !member.present)).await;
    luis.is_served("Luis still here").await;
    let (mut back, again) = world.join_with("plaza", "Ana", Some(welcome.resume)).await;
    assert!(again.resumed);
    back.is_served("Ana is back").await;
    ana.ends().await;
}

#[tokio::test]
async fn silence_ends_a_socket_and_a_socket_that_never_says_hello() {
    let hundredth = |time: Duration| time / 100;
    let usual = Timing::default();
    let timing = Timing {
        hello: hundredth(usual.hello),
        // Four times before it is given up, so that a busy machine does so twice.
        ping: hundredth(usual.ping) / 2,
        silence: hundredth(usual.silence),
        ..usual
    };
    let world = world_with(Config { timing, ..Config::default() }).await;
    let (mut ana, _) = world.join("plaza", "Ana").await;
    let mut mute = world.socket().await;
    assert_eq!(mute.error().await, (ErrorCode::NotJoined, true));
    let mut pings = 0;
    while let Some(Ok(frame)) = ana.frame().await {
        pings += usize::from(frame.into_text().is_ok_and(|text| text.contains("\"ping\"")));
    }
    assert!(pings >= 2, "{pings}");
    // The membership waits for its return.
    assert_eq!(world.bridge.meetings(), 1);
}

#[tokio::test]
async fn a_socket_whose_media_arrive_may_be_silent_until_they_do_not() {
    let timing = Timing {
        ping: Duration::from_millis(250),
        silence: Duration::from_secs(1),
        idle: Duration::from_secs(4),
        renew: Duration::from_secs(1),
        ..Timing::default()
    };
    let world = world_with(Config { timing, ..Config::default() }).await;
    let (mut ana, welcome) = world.join("plaza", "Ana").await;
    (world.plane.sink)(Event::Connected { peer: welcome.member });
    ana.until(|message| matches!(message, ServerMessage::Media { .. })).await;
    let (mut luis, second) = world.join("plaza", "Luis").await;
    (world.plane.sink)(Event::Connected { peer: second.member });
    // Ana says nothing meanwhile, for five times as long as is allowed to others, and longer than nothing may go either way.
    let mut renewals = 0;
    while renewals < 5 {
        match luis.next().await {
            ServerMessage::Resume { .. } => renewals += 1,
            ServerMessage::Changed { member } => panic!("{} is taken for lost", member.name),
            _ => {}
        }
    }
    (world.plane.sink)(Event::Disconnected {
        peer: welcome.member,
        reason: DisconnectReason::ConsentExpired,
    });
    luis.until(|message| matches!(message, ServerMessage::Changed { member } if !member.present)).await;
    let (mut before, mut pings) = (Vec::new(), 0);
    let mut is_over = false;
    while let Some(Ok(frame)) = ana.frame().await {
        let text = frame.into_text().expect("text");
        is_over |= text.contains("disconnected");
        pings += usize::from(is_over && text.contains("\"ping\""));
        if !is_over {
            before.push(text.to_string());
        }
    }
    assert!(pings >= 1, "she is asked before she is given up");
    let is_renewal = |text: &String| text.contains("\"resume\"");
    let kinds = before.iter().filter(|text| !text.contains("joined")).collect::<Vec<_>>();
    assert!(kinds.iter().all(|text| is_renewal(text)) && kinds.len() >= 2, "{kinds:?}");
}

#[tokio::test]
async fn an_empty_meeting_vanishes_and_its_name_is_free_again() {
    let world = world().await;
    let (mut ana, first) = world.join("plaza", "Ana").await;
    ana.say(&ClientMessage::Leave {}).await;
    ana.ends().await;
    while world.bridge.meetings() > 0 {
        tokio::task::yield_now().await;
    }
    let (_ana, second) = world.join_with("plaza", "Ana", Some(first.resume)).await;
    assert!(!second.resumed, "a membership of the earlier meeting of this name");
    assert_eq!(world.bridge.meetings(), 1);
}

#[tokio::test]
async fn a_stop_says_bye_to_everyone_in_time() {
    let world = world().await;
    let (mut ana, _) = world.join("plaza", "Ana").await;
    let mut at_the_door = world.socket().await;
    let began = Instant::now();
    let watch = async {
        assert_eq!(ana.next().await, ServerMessage::Bye { reason: ByeReason::Stopping });
        ana.ends().await;
        assert_eq!(at_the_door.next().await, ServerMessage::Bye { reason: ByeReason::Stopping });
        at_the_door.ends().await;
    };
    tokio::join!(world.bridge.stop(), watch);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_person_gets_a_page_for_what_is_not_there_and_a_program_a_code() {
    let world = world().await;
    let person =
        "Host: localhost\r\nAccept: text/html,application/xhtml+xml,*/*;q=0.8\r\nIf-None-Match: *\r\n";
    for (method, path, status, code) in [
        ("GET", "/unknown.png", 404, "not_found"),
        ("GET", "/assets/unknown.js", 404, "not_found"),
        ("POST", "/plaza", 405, "method_not_allowed"),
        ("GET", "/api/unknown", 404, "not_found"),
        ("GET", "/api/meetings/plaza/token", 405, "method_not_allowed"),
        ("POST", "/api/health", 405, "method_not_allowed"),
        ("GET", "/api/socket", 426, "upgrade_required"),
        ("POST", "/api/meetings/p%00/token", 400, "invalid_name"),
    ] {
        let (shown, head, body) = world.http(method, path, person).await;
        assert_eq!(shown, status, "{method} {path}");
        assert!(
            head.contains("content-type: text/html") && head.contains("cache-control: no-store"),
            "{head}"
        );
        assert!(String::from_utf8_lossy(&body).contains("id=\"app\""), "the client's page");
        let (shown, _, body) = world.http(method, path, "Host: localhost\r\nAccept: */*\r\n").await;
        let refusal: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((shown, refusal["code"].as_str()), (status, Some(code)), "{method} {path}");
    }
    let elsewhere = format!("{person}Origin: https://elsewhere.example\r\n");
    let (shown, head, _) = world.http("GET", "/api/links", &elsewhere).await;
    assert!(shown == 403 && head.contains("content-type: text/html"), "{head}");
    for _ in 0..200 {
        let (shown, head, _) = world.http("POST", "/api/meetings/plaza/token", person).await;
        if shown == 429 {
            assert!(head.contains("content-type: text/html") && head.contains("retry-after: 5"), "{head}");
            return;
        }
    }
    panic!("nobody asks for two hundred tokens at once");
}

#[tokio::test]
async fn only_who_is_at_this_machine_is_told_where_others_reach_it() {
    let public_address = vec!["192.0.2.7".parse().expect("an address")];
    let world = world_with(Config { public_address, ..Config::default() }).await;
    let port = world.bridge.port();
    for (headers, expected) in [
        ("Host: localhost:1\r\n", 1),
        ("Host: 127.0.0.1\r\n", 1),
        ("Host: meet.example\r\nX-Forwarded-Proto: https\r\n", 0),
        ("Host: localhost\r\nX-Forwarded-For: 192.0.2.9\r\n", 0),
        ("Host: localhost\r\nVia: 1.1 proxy\r\n", 0),
    ] {
        let (status, _, body) = world.http("GET", "/api/links", headers).await;
        assert_eq!(status, 200, "{headers}");
        let told: LinksResponse = serde_json::from_slice(&body).expect("links");
        assert_eq!(told.links, vec![format!("https://192.0.2.7:{port}"); expected], "{headers}");
        assert_eq!(told.own_certificate, expected == 1);
    }
    let (status, _, _) =
        world.http("GET", "/api/links", "Host: localhost\r\nOrigin: https://evil.example\r\n").await;
    assert_eq!(status, 403);
    let (status, head, _) = world.http("GET", "/api/links", "Host: rebound.example\r\n").await;
    assert!(status == 307 && head.contains("https://rebound.example/"), "{head}");
}

#[tokio::test]
async fn every_response_carries_the_headers_that_keep_browsers_safe() {
    let world = world().await;
    for (method, path, expected) in [
        ("GET", "/", 200),
        ("GET", "/plaza-mayor", 200),
        ("GET", "/reuni%C3%B3n", 200),
        ("GET", "/index.html", 200),
        ("GET", "/api/health", 200),
        ("POST", "/api/meetings/plaza/token", 200),
        ("POST", "/api/meetings/a%2Fb/token", 400),
        ("POST", "/api/meetings/%FF/token", 400),
        ("POST", "/api/meetings/api/token", 400),
        ("GET", "/api/meetings/plaza/token", 405),
        ("GET", "/api/unknown", 404),
        ("GET", "/api/socket", 426),
        ("GET", "/assets/unknown.js", 404),
        ("GET", "/unknown.png", 404),
        ("POST", "/plaza", 405),
    ] {
        let (status, head, _) = world.http(method, path, "Host: localhost:1\r\n").await;
        assert_eq!(status, expected, "{method} {path}");
        for header in [
            "content-security-policy: default-src 'self'; connect-src 'self'; ",
            "frame-ancestors 'none'",
            "permissions-policy: camera=(self), microphone=(self), display-capture=(self)",
            "referrer-policy: no-referrer",
            "x-content-type-options: nosniff",
            "cross-origin-opener-policy: same-origin",
            "cache-control: ",
        ] {
            assert!(head.contains(header), "{method} {path} lacks {header}: {head}");
        }
        let policies = head.matches("content-security-policy:").count();
        assert_eq!(policies, 1, "{head}");
    }
}

#[tokio::test]
async fn the_client_is_served_compressed_and_cached_by_what_its_names_say() {
    let world = world().await;
    let (_, head, body) = world.http("GET", "/", "Host: localhost\r\n").await;
    assert!(head.contains("content-type: text/html") && head.contains("cache-control: no-cache"), "{head}");
    let page = String::from_utf8(body).expect("HTML");
    let (_, head, _) = world.http("GET", "/any-meeting", "Host: localhost\r\n").await;
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("an etag");
    let (status, ..) = world.http("GET", "/", &format!("Host: localhost\r\nIf-None-Match: {etag}\r\n")).await;
    assert_eq!(status, 304);
    let script =
        page.split('"').find(|part| part.starts_with("/assets/") && part.ends_with(".js")).expect("a script");
    for (accept, encoding) in [("br, gzip", "br"), ("gzip", "gzip")] {
        let headers = format!("Host: localhost\r\nAccept-Encoding: {accept}\r\n");
        let (status, head, _) = world.http("GET", script, &headers).await;
        assert_eq!(status, 200);
        assert!(head.contains(&format!("content-encoding: {encoding}")), "{head}");
        assert!(head.contains("cache-control: public, max-age=31536000, immutable"), "{head}");
    }
}

#[tokio::test]
async fn pages_of_other_sites_get_neither_token_nor_socket() {
    let world = world().await;
    let foreign = "Host: localhost\r\nOrigin: https://evil.example\r\n";
    assert_eq!(world.http("POST", "/api/meetings/plaza/token", foreign).await.0, 403);
    let upgrade =
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(world.http("GET", "/api/socket", &format!("{foreign}{upgrade}")).await.0, 403);
}

#[tokio::test]
async fn plain_and_tls_share_one_port_and_plain_from_elsewhere_is_redirected() {
    let folder = std::env::temp_dir().join(format!("asamblea-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    let made = rcgen::generate_simple_self_signed(["meet.example".to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let config = Config { tls_cert: Some(certificate), tls_key: Some(key), ..Config::default() };
    let world = world_with(config).await;

    let host = "Host: meet.example:8443\r\n";
    let (status, head, _) = world.http("GET", "/plaza?x=1", host).await;
    assert_eq!(status, 307);
    assert!(head.contains("location: https://meet.example:8443/plaza?x=1"), "{head}");
    let proxied = format!("{host}X-Forwarded-Proto: https\r\n");
    assert_eq!(world.http("GET", "/plaza", &proxied).await.0, 200);

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a trust anchor");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's own versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("meet.example").expect("a name");
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, world.connect().await)
        .await
        .expect("a TLS session");
    assert_eq!(exchange(tls, "GET", "/plaza", host).await.0, 200);
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[tokio::test]
async fn logs_at_info_name_no_person_address_or_meeting() {
    let world = world().await;
    let (mut ana, welcome) = world.join("secretmeeting", "Secretname").await;
    let (_again, _) = world.join_with("secretmeeting", "Secretname", Some(welcome.resume)).await;
    ana.ends().await;
    let (mut ana, _) = world.join("secretmeeting", "Secretname").await;
    let _ = ana.socket.send(Message::text("x".repeat(1_000_000))).await;
    ana.ends().await;
    world.http("GET", "/secretmeeting", "Host: localhost\r\n").await;
    world.bridge.stop().await;
    let log = LOG.with_borrow(|log| String::from_utf8_lossy(log).into_owned());
    assert!(log.contains("the bridge is up"), "nothing was captured: {log}");
    for secret in ["secretmeeting", "Secretname", "127.0.0.1"] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
}
