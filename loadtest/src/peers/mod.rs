//! Servers under test, one file each, behind one interface: start a fresh one, publish to it, subscribe from it.
//!
//! A server is added by writing these three traits for it; [`template`] says what each has to hold to, and where the
//! present two differ.

mod asamblea;
pub(crate) mod check;
mod http;
pub(crate) mod install;
pub(crate) mod janus;
pub(crate) mod mediasoup;
mod template;

use crate::place::{Place, Process};
pub(crate) use crate::traffic::Kind;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How long a server may take from its start to its first join: Node on a busy machine takes some seconds.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a server may take to answer one request; a thousand joins may wait in front of it.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Longest answer that is read. An offer with 200 m-lines is a fifth of it.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A server under test.
pub(crate) trait Peer: Send {
    /// Its name in scenarios and tables.
    fn name(&self) -> &'static str;

    /// Sees that all of it is installed. Called where there still is a way to the network, before `place::enter`.
    ///
    /// # Errors
    /// What is missing and how to have it, unless `may_install`: then it is installed, which is said on stderr.
    fn prepare(&mut self, may_install: bool) -> anyhow::Result<()>;

    /// As the server or its package tells it.
    fn version(&self) -> anyhow::Result<String>;

    /// A fresh server on `core`, ready to take joins when this returns.
    fn start(
        &mut self,
        place: &Place,
        core: usize,
        options: &ServerOptions,
    ) -> anyhow::Result<Box<dyn Running>>;
}

/// What differs between rows.
#[derive(Clone, Debug)]
pub(crate) struct ServerOptions {
    /// Transport-wide congestion control feedback, in both directions.
    pub(crate) feedback: bool,
    /// Requests for missing packets and their repair, in both directions.
    pub(crate) repair: bool,
    /// UDP ports for media.
    pub(crate) ports: RangeInclusive<u16>,
}

/// A started server; ended when dropped. Joins may come from several threads at the same time.
pub(crate) trait Running: Send + Sync {
    /// All of its processes, each with its descendants.
    fn processes(&self) -> &[Process];
    /// Where its signaling is.
    fn address(&self) -> SocketAddr;
    /// Signaling for one bot.
    fn session(&self) -> anyhow::Result<Box<dyn Session>>;
}

/// One bot's signaling; calls block until the server has answered, [`ANSWER_LIMIT`] at most each.
///
/// A bot has one connection to send and, with servers other than ours, a second one to receive.
pub(crate) trait Session: Send {
    /// The bot publishes: its offer in, the server's answer out, once a session. `tracks` are the offer's m-lines in
    /// order. The room is made by the first who names it.
    fn publish(&mut self, room: &str, offer: &str, tracks: &[Track]) -> anyhow::Result<Published>;

    /// The bot receives `feeds` on a connection that has sent nothing yet, once a session. Media may come when this
    /// returns.
    fn subscribe(&mut self, room: &str, feeds: &[FeedId], bot: &mut dyn Negotiate) -> anyhow::Result<()>;

    /// Asks for one simulcast layer of a subscribed feed, 0 being the smallest.
    fn prefer(&mut self, feed: &FeedId, spatial: u8) -> anyhow::Result<()>;
}

/// What the server made of an offer.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// Its answer.
    pub(crate) answer: String,
    /// What others subscribe by, one for each track.
    pub(crate) feeds: Vec<FeedId>,
}

/// Names a published track within its room, in the server's own words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FeedId(pub(crate) String);

/// What a bot's connection can do for its session.
pub(crate) trait Negotiate {
    /// An offer with so many m-lines to receive, where the bot offers.
    fn create_offer(&mut self, receive_audio: usize, receive_video: usize) -> anyhow::Result<String>;
    /// The server's answer to it.
    fn accept_answer(&mut self, answer: &str) -> anyhow::Result<()>;
    /// An answer, where the server offers.
    fn answer_offer(&mut self, offer: &str) -> anyhow::Result<String>;
}

/// One m-line of a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Track {
    /// Audio or video.
    pub(crate) kind: Kind,
    /// Simulcast layers: 1 to 3 for video, 1 for audio.
    pub(crate) layers: u8,
    /// Whether anything is sent on it, or it is muted.
    pub(crate) is_active: bool,
}

/// The peer that scenarios call so.
pub(crate) fn by_name(name: &str) -> anyhow::Result<Box<dyn Peer>> {
    match name {
        "asamblea" => Ok(Box::new(asamblea::Asamblea { is_other: false, shards: 1 })),
        "asamblea-two" => Ok(Box::new(asamblea::Asamblea { is_other: false, shards: 2 })),
        "asamblea-other" => Ok(Box::new(asamblea::Asamblea { is_other: true, shards: 1 })),
        "janus" => Ok(Box::new(janus::Janus)),
        "mediasoup" => Ok(Box::new(mediasoup::Mediasoup::default())),
        _ => anyhow::bail!(
            "there is no server called {name:?}: asamblea, asamblea-other, asamblea-two, janus and mediasoup are there"
        ),
    }
}
