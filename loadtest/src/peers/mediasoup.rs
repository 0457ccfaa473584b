//! mediasoup, behind a small Node server of ours: `loadtest/peers/mediasoup/server.mjs`.
//!
//! Publishers offer, subscribers are offered to, as in its own client library: a bot has one connection to send and
//! one to receive.

use super::{
    FeedId, Negotiate, Peer, Published, Running, START_LIMIT, ServerOptions, Session, Track, http, install,
};
use crate::place::{Place, Process, Scratch};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The worker's path, as mediasoup itself takes it.
const WORKER: &str = "MEDIASOUP_WORKER_BIN";
const WHY: &str = "the comparison with mediasoup";

/// The npm package `mediasoup`.
#[derive(Default)]
pub(crate) struct Mediasoup {
    /// A UDP port for each connection, as mediasoup was before it had `WebRtcServer`; else one for all.
    pub(crate) has_port_each: bool,
}

impl Peer for Mediasoup {
    fn name(&self) -> &'static str {
        "mediasoup"
    }

    fn prepare(&mut self, may_install: bool) -> anyhow::Result<()> {
        let folder = folder();
        install::npm_packages(WHY, &folder, may_install)?;
        if worker().is_ok() || !may_install {
            return worker().map(drop);
        }
        eprintln!("Fetching mediasoup's worker, which its npm package downloads from its releases: {WHY}.");
        // npm no longer runs this by itself.
        let status = Command::new("node")
            .args(["npm-scripts.mjs", "postinstall"])
            .current_dir(folder.join("node_modules/mediasoup"))
            .stdin(Stdio::null())
            .status()
            .context("node does not start")?;
        worker().with_context(|| format!("the download ended with {status}")).map(drop)
    }

    fn version(&self) -> anyhow::Result<String> {
        let path = folder().join("node_modules/mediasoup/package.json");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let package: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let output = Command::new("node").arg("--version").output().context("node does not start")?;
        let node = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let origin =
            if std::env::var_os(WORKER).is_some() { "its worker given by us" } else { "its own worker" };
        let version = package["version"].as_str().context("mediasoup's version")?;
        Ok(format!("mediasoup {version}, {origin}, Node {node}"))
    }

    fn start(
        &mut self,
        place: &Place,
        core: usize,
        options: &ServerOptions,
    ) -> anyhow::Result<Box<dyn Running>> {
        let worker = worker()?;
        let scratch = Scratch::new()?;
        let address = place.server_address();
        let mut command = Command::new("node");
        command
            .arg("server.mjs")
            .arg(address.to_string())
            .args([options.ports.start(), options.ports.end()].map(u16::to_string))
            .arg(if self.has_port_each { "port-each" } else { "one-port" })
            .arg(if options.feedback { "feedback" } else { "no-feedback" })
            .arg(if options.repair { "repair" } else { "no-repair" })
            .env(WORKER, worker)
            .env_remove("DEBUG")
            .env_remove("NODE_OPTIONS")
            .current_dir(folder());
        let process = place
            .spawn(core, command, &scratch.path().join("mediasoup.log"))?
            .with_signaling(|process, _| process == "node");
        let port = process.wait_for(START_LIMIT, |line| line.strip_prefix("ready ")?.parse().ok())?;
        let api = SocketAddr::new(address, port);
        Ok(Box::new(RunningMediasoup { processes: [process], api, _scratch: scratch }))
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/mediasoup")
}

fn worker() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os(WORKER).map(PathBuf::from) {
        if !given.is_file() {
            bail!("{WORKER} is {}, where there is no file", given.display());
        }
        return Ok(given);
    }
    let own = folder().join("node_modules/mediasoup/worker/out/Release/mediasoup-worker");
    if !own.is_file() {
        bail!(
            "mediasoup's worker is missing. Its npm package downloads one: run with --install. Where that is not to \
             be had, build one from mediasoup's source and give its path in {WORKER}."
        );
    }
    Ok(own)
}

struct RunningMediasoup {
    processes: [Process; 1],
    api: SocketAddr,
    _scratch: Scratch,
}

impl Running for RunningMediasoup {
    fn processes(&self) -> &[Process] {
        &self.processes
    }

    fn address(&self) -> SocketAddr {
        self.api
    }

    fn session(&self) -> anyhow::Result<Box<dyn Session>> {
        let api = http::Client::connect(self.api)
            .map_err(|error| self.processes[0].explain(&format!("is not reached ({error:#})")))?;
        Ok(Box::new(MediasoupSession { api, has_published: false, subscriber: None }))
    }
}

struct MediasoupSession {
    api: http::Client,
    has_published: bool,
    subscriber: Option<String>,
}

impl Session for MediasoupSession {
    fn publish(&mut self, room: &str, offer: &str, tracks: &[Track]) -> anyhow::Result<Published> {
        if std::mem::replace(&mut self.has_published, true) {
            bail!("this bot publishes already");
        }
        let mut reply = self.api.post("publish", &json!({ "room": room, "offer": offer }))?;
        let feeds: Vec<String> = serde_json::from_value(reply["feeds"].take()).context("the producers")?;
        if feeds.len() != tracks.len() {
            bail!("it takes {} tracks of {}", feeds.len(), tracks.len());
        }
        let answer = reply["answer"].as_str().context("the answer")?.to_owned();
        Ok(Published { answer, feeds: feeds.into_iter().map(FeedId).collect() })
    }

    fn subscribe(&mut self, room: &str, feeds: &[FeedId], bot: &mut dyn Negotiate) -> anyhow::Result<()> {
        if self.subscriber.is_some() {
            bail!("this bot receives already");
        }
        let names: Vec<&str> = feeds.iter().map(|feed| feed.0.as_str()).collect();
        let reply = self.api.post("subscribe", &json!({ "room": room, "feeds": names }))?;
        let subscriber = reply["subscriber"].as_str().context("the subscriber")?.to_owned();
        self.subscriber = Some(subscriber.clone());
        let answer = bot.answer_offer(reply["offer"].as_str().context("the offer")?)?;
        self.api.post("answer", &json!({ "subscriber": subscriber, "answer": answer })).map(drop)
    }

    fn prefer(&mut self, feed: &FeedId, spatial: u8) -> anyhow::Result<()> {
        let subscriber = self.subscriber.as_ref().context("this bot does not receive yet")?;
        let body = json!({ "subscriber": subscriber, "feed": feed.0, "spatial": spatial });
        self.api.post("prefer", &body).map(drop)
    }
}
