//! A participant without a browser: [`crate::peer::Peer`] over a real socket, with the signaling protocol.
//!
//! Written from `docs/protocol.md`: messages are read and written as plain JSON, without the bridge's types. A bot
//! runs as a task of its own, sends stamped media while it is told to, shows whoever is there and writes down what
//! it gets.

mod door;
mod line;
mod runner;
mod seen;
mod wire;

pub use door::{connect, relay_credentials, token};
pub use seen::Seen;

use crate::turn::Way;
use runner::Runner;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Nothing that is waited for on one machine takes longer, however busy it is.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How a bot takes part.
#[derive(Clone, Debug)]
pub struct BotConfig {
    /// The bridge's port on this machine.
    pub port: u16,
    /// Which of this machine's loopback addresses the bridge is reached at.
    pub host: IpAddr,
    /// The meeting's name.
    pub meeting: String,
    /// The name to show.
    pub name: String,
    /// Stamps the bot's media; the tests' own numbering.
    pub number: u32,
    /// The level of its voice in -dBov, 0 loudest to 127, or no microphone.
    pub voice_dbov: Option<u8>,
    /// Whether its camera is on.
    pub camera: bool,
    /// Receive slots to offer: audio and video.
    pub slots: (usize, usize),
    /// The height at which it shows the others, in pixels.
    pub height_px: u16,
    /// Where on this machine its media goes instead of to the bridge: an emulator's port.
    pub media_port: Option<u16>,
    /// Whether its media travels over TCP (RFC 6544), UDP being blocked.
    pub over_tcp: bool,
    /// How its media reaches the bridge's relay (RFC 8656), if it goes through that.
    pub relayed: Option<Way>,
    /// Whether it shakes hands once a path is there; one that does not never has media.
    pub shakes_hands: bool,
    /// Whether it comes back when its socket ends: after a fault, and when the bridge moves.
    pub returns: bool,
}

impl BotConfig {
    /// Someone who talks and shows their face.
    pub fn new(port: u16, meeting: &str, number: u32) -> Self {
        Self {
            port,
            host: Ipv4Addr::LOCALHOST.into(),
            meeting: meeting.into(),
            name: format!("Bot {number}"),
            number,
            voice_dbov: Some(30),
            camera: true,
            slots: (3, 4),
            height_px: 720,
            media_port: None,
            over_tcp: false,
            relayed: None,
            shakes_hands: true,
            returns: false,
        }
    }

    /// Where the bridge is.
    fn bridge(&self) -> SocketAddr {
        (self.host, self.port).into()
    }
}

/// Which incoming datagrams a bot loses before its media side sees them.
pub type Loss = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// What a bot is told to do.
enum Order {
    Voice(Option<u8>),
    Camera(bool),
    Say(String),
    Lose(Loss),
    Inject(Vec<u8>),
    Rtcp(Vec<Vec<u8>>),
    Write(Vec<u8>),
    Leave,
}

/// See the module.
pub struct Bot {
    seen: Arc<Mutex<Seen>>,
    news: Arc<Notify>,
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

impl Bot {
    /// Joins a meeting; returns once the bridge has answered the offer.
    ///
    /// # Errors
    /// What the network or the bridge said instead.
    pub async fn join(config: BotConfig) -> anyhow::Result<Self> {
        let (runner, seen, news) = Runner::join(config).await?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let task = tokio::spawn(runner.run(inbox));
        Ok(Self { seen, news, orders, task })
    }

    /// What it has seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something holds of what it has seen.
    ///
    /// # Panics
    /// When it does not come to hold within [`PATIENCE`].
    pub async fn until(&self, what: &str, holds: impl Fn(&Seen) -> bool) {
        let waiting = async {
            loop {
                let news = self.news.notified();
                if holds(&self.seen()) {
                    return;
                }
                news.await;
            }
        };
        let name = self.seen().member;
        assert!(timeout(PATIENCE, waiting).await.is_ok(), "member {name:x} waited in vain: {what}");
    }

    /// Waits until enough of another's voice and picture has come to call them flowing.
    ///
    /// # Panics
    /// As [`Bot::until`].
    pub async fn until_flowing(&self, other: u32) {
        for (kind, what) in [(0, "voice"), (1, "picture")] {
            let what = format!("the {what} of {other}");
            self.until(&what, |seen| seen.counts.get(&(other, kind)) > Some(&25)).await;
        }
    }

    /// Speaks at this level, or not at all.
    pub fn voice(&self, dbov: Option<u8>) {
        self.order(Order::Voice(dbov));
    }

    /// Turns the camera on or off.
    pub fn camera(&self, on: bool) {
        self.order(Order::Camera(on));
    }

    /// Sends a text over the signaling socket as it is.
    pub fn say(&self, text: impl Into<String>) {
        self.order(Order::Say(text.into()));
    }

    /// From now on loses the incoming datagrams for which `loss` says so.
    pub fn lose(&self, loss: impl FnMut(&[u8]) -> bool + Send + 'static) {
        self.order(Order::Lose(Box::new(loss)));
    }

    /// Sends a datagram from its own media address.
    pub fn inject(&self, datagram: Vec<u8>) {
        self.order(Order::Inject(datagram));
    }

    /// Sends RTCP compounds of the caller's making over its own SRTCP, in one go. See [`crate::peer::Peer::seal_rtcp`].
    pub fn rtcp(&self, compounds: Vec<Vec<u8>>) {
        self.order(Order::Rtcp(compounds));
    }

    /// Writes bytes to the stream that carries its media as they are, whatever they say.
    pub fn write(&self, bytes: Vec<u8>) {
        self.order(Order::Write(bytes));
    }

    /// Leaves the meeting and waits for the end.
    pub async fn leave(self) {
        self.order(Order::Leave);
        let _ = timeout(PATIENCE, self.task).await;
    }

    /// Is gone without a word, as when a machine loses its power.
    pub fn vanish(self) {
        self.task.abort();
    }

    fn order(&self, order: Order) {
        // A bot whose socket ended takes no orders; the test sees `is_over`.
        let _ = self.orders.send(order);
    }
}
