//! The real server as a process that dies, is started again, or makes place for another, and people who follow
//! `docs/protocol.md` and share no code with it.

use asamblea_tests::bot::{Bot, BotConfig, PATIENCE};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Within this everyone is back after a crash.
const BACK: Duration = Duration::from_secs(5);

/// The longest gap of a planned restart.
const GAP_MAX: Duration = Duration::from_secs(1);

/// A state folder that is gone after the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("asamblea-{name}-{}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program, killed when dropped.
struct Server {
    child: Child,
    port: u16,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Server {
    async fn start(folder: &Folder, port: u16, flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_asamblea"))
            .args(["--bind", "127.0.0.1", "--shards", "1", "--port", &port.to_string()])
            .args(flags)
            .arg("--state-dir")
            .arg(&folder.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program is built");
        let output = child.stdout.take().expect("piped");
        let mut lines = BufReader::new(output).lines();
        let port = timeout(PATIENCE, async {
            loop {
                let line = lines.next_line().await.expect("readable").expect("it says where it listens");
                if let Some(port) = line.strip_prefix("listening on port ") {
                    return port.parse().expect("a number");
                }
            }
        });
        let port = port.await.expect("it starts in time");
        Self { child, port, _output: lines }
    }

    fn terminate(&self) {
        let id = self.child.id().expect("it runs");
        let told = std::process::Command::new("kill").args(["-TERM", &id.to_string()]).status();
        assert!(told.expect("kill is there").success());
    }

    async fn ends(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").expect("it can be waited for")
    }
}

/// Comes back, and has a slot for each of the loudest.
fn someone(port: u16, number: u32) -> BotConfig {
    BotConfig { returns: true, slots: (4, 4), ..BotConfig::new(port, "plaza", number) }
}

async fn people(port: u16) -> Vec<Bot> {
    let mut bots = Vec::new();
    for number in 1..=3 {
        let config = someone(port, number);
        bots.push(Bot::join(config).await.expect("let in"));
    }
    hear_each_other(&bots).await;
    bots
}

/// Waits until everyone hears and sees everyone else anew.
async fn hear_each_other(bots: &[Bot]) {
    for (me, bot) in (1..).zip(bots) {
        for other in (1..=bots.len() as u32).filter(|other| *other != me) {
            for kind in [0, 1] {
                let count = |seen: &asamblea_tests::bot::Seen| {
                    seen.counts.get(&(other, kind)).copied().unwrap_or_default()
                };
                let before = count(&bot.seen());
                bot.until(&format!("{kind} of {other} at {me}"), |seen| count(seen) > before + 10).await;
            }
        }
    }
}

fn members(bots: &[Bot]) -> Vec<u64> {
    bots.iter().map(|bot| bot.seen().member).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_everyone_is_back_in_the_same_meeting_as_who_they_were() {
    let folder = Folder::new("crash");
    let mut server = Server::start(&folder, 0, &[]).await;
    let bots = people(server.port).await;
    let before = members(&bots);
    server.child.kill().await.expect("killed");
    let began = Instant::now();
    let again = Server::start(&folder, server.port, &[]).await;
    // A newcomer who is faster than all of them, or not: they meet.
    let eva = Bot::join(BotConfig::new(again.port, "plaza", 9)).await.expect("let in");
    for bot in &bots {
        bot.until("to be welcomed again", |seen| seen.welcomes == 2 && seen.is_connected).await;
    }
    hear_each_other(&bots).await;
    assert!(began.elapsed() < BACK, "{:?}", began.elapsed());
    assert_eq!(members(&bots), before);
    assert!(bots.iter().all(|bot| !bot.seen().is_resumed), "media starts afresh");
    eva.until("everyone", |seen| before.iter().all(|member| seen.members.contains_key(member))).await;
    assert_eq!(eva.seen().members.len(), 4);
    let mut left: Vec<_> =
        std::fs::read_dir(&folder.0).expect("there").map(|it| it.expect("one").file_name()).collect();
    left.sort_unstable();
    assert_eq!(left, ["certificate.pem", "secret"], "nothing else is on the disk");
}

/// Someone who accepted the certificate that the server keeps in its folder, and no other.
struct Guest(TlsConnector);

impl Guest {
    fn of(folder: &Folder) -> Self {
        let kept = folder.0.join("certificate.pem");
        let mut accepted = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(kept).expect("there") {
            accepted.add(certificate.expect("whole")).expect("a certificate");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that it has")
            .with_root_certificates(accepted)
            .with_no_client_auth();
        Self(TlsConnector::from(Arc::new(config)))
    }

    async fn is_let_in(&self, port: u16, name: &str) -> bool {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("accepted");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        timeout(PATIENCE, self.0.connect(name, tcp)).await.expect("in time").is_ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_accepted_the_certificate_is_not_asked_again_after_a_restart() {
    let folder = Folder::new("certificate");
    let mut server = Server::start(&folder, 0, &[]).await;
    let guest = Guest::of(&folder);
    assert!(guest.is_let_in(server.port, "localhost").await);
    assert!(guest.is_let_in(server.port, "127.0.0.1").await);
    server.child.kill().await.expect("killed");
    let mut again = Server::start(&folder, server.port, &[]).await;
    assert!(guest.is_let_in(again.port, "127.0.0.1").await, "after a crash");
    let second = Server::start(&folder, again.port, &["--take-over"]).await;
    again.terminate();
    assert!(again.ends().await.success());
    assert!(guest.is_let_in(second.port, "127.0.0.1").await, "by the process that took over");

    let elsewhere = Folder::new("another-certificate");
    let stranger = Server::start(&elsewhere, 0, &[]).await;
    assert!(!guest.is_let_in(stranger.port, "127.0.0.1").await, "another machine has another");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_restart_moves_everyone_without_a_gap() {
    let folder = Folder::new("move");
    let mut first = Server::start(&folder, 0, &[]).await;
    let bots = people(first.port).await;
    let before = members(&bots);
    let second = Server::start(&folder, first.port, &["--take-over"]).await;
    // Who comes while both are there comes to the first.
    let eva = BotConfig { voice_dbov: None, ..someone(first.port, 4) };
    let eva = Bot::join(eva).await.expect("let in");
    assert_eq!(eva.seen().members.len(), 4, "the one meeting there is");
    hear_each_other(&bots).await;
    let began = Instant::now();
    first.terminate();
    for bot in bots.iter().chain([&eva]) {
        bot.until("to have moved", |seen| seen.welcomes == 2 && seen.is_connected).await;
    }
    assert!(first.ends().await.success());
    assert_eq!(members(&bots), before);
    hear_each_other(&bots).await;
    for bot in bots.iter().chain([&eva]) {
        let seen = bot.seen();
        assert_eq!((seen.byes.as_slice(), seen.members.len()), (["moving".to_owned()].as_slice(), 4));
    }
    for (me, bot) in (1u32..).zip(&bots) {
        for other in (1..=3).filter(|other| *other != me) {
            let gap = bot.seen().longest_gap(other, began);
            assert!(gap < GAP_MAX, "{me} did not hear {other} for {gap:?}");
        }
    }
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_end_says_so_goes_on_forwarding_for_a_while_and_ends_well() {
    let folder = Folder::new("end");
    let mut server = Server::start(&folder, 0, &[]).await;
    let bots = people(server.port).await;
    server.terminate();
    for bot in &bots {
        bot.until("the word", |seen| seen.byes == ["moving"]).await;
    }
    hear_each_other(&bots).await;
    assert!(server.ends().await.success());
    let again = Server::start(&folder, server.port, &[]).await;
    hear_each_other(&bots).await;
    assert!(bots.iter().all(|bot| bot.seen().welcomes == 2));
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_does_not_start_by_mistake() {
    let folder = Folder::new("mistake");
    let server = Server::start(&folder, 0, &[]).await;
    let second = Command::new(env!("CARGO_BIN_EXE_asamblea"))
        .args(["--bind", "127.0.0.1", "--port", &server.port.to_string(), "--state-dir", ""])
        .env("LC_ALL", "C")
        .kill_on_drop(true)
        .output();
    let second = timeout(PATIENCE, second).await.expect("it ends").expect("the program is built");
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("already in use"));
}
