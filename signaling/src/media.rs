//! The seam's carrier in one process: commands go to the media plane by a call, events come back through one
//! bounded queue. Never decides anything and never waits: the media plane's threads must not stand still because
//! signaling is busy.

use crate::{Config, StartError};
use asamblea_seam::{Command, Event, PeerId};
use asamblea_sfu_io::carrier::{Carrier, Inlet};
use asamblea_sfu_io::plane;
use asamblea_sfu_io::port::PortError;
use asamblea_sfu_io::turn::TurnServer;
use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Most events under way from the media plane. Events are answers to commands and changes of what people see,
/// so a few for each of a thousand people is plenty; what exceeds it counts as the loss of those peers' state.
pub const EVENTS_MAX: usize = 8192;

/// The media plane as signaling knows it.
pub trait MediaPlane: Send + Sync + 'static {
    /// Takes a command. Must not block for long: rooms call it from their tasks.
    fn handle(&self, command: Command);

    /// Gives its port up to whoever listens there next, while paths that are open go on; returns when it is done.
    fn yield_port(&self);

    /// Takes in a carrier of datagrams from this address whose first datagram is given, or `None` if it is not
    /// authentic. Never waits.
    fn carry(&self, _address: SocketAddr, _first: &[u8], _carrier: Box<dyn Carrier>) -> Option<Inlet> {
        None
    }

    /// The relay that goes with it, if it has one.
    fn turn(&self) -> Option<Arc<TurnServer>> {
        None
    }

    /// Ends it; returns when its port is free. Commands after it do nothing.
    fn stop(&self);
}

impl MediaPlane for plane::MediaPlane {
    fn handle(&self, command: Command) {
        plane::MediaPlane::handle(self, command);
    }

    fn yield_port(&self) {
        plane::MediaPlane::yield_port(self);
    }

    fn carry(&self, address: SocketAddr, first: &[u8], carrier: Box<dyn Carrier>) -> Option<Inlet> {
        plane::MediaPlane::carry(self, address, first, carrier)
    }

    fn turn(&self) -> Option<Arc<TurnServer>> {
        Some(Arc::clone(plane::MediaPlane::turn(self)))
    }

    fn stop(&self) {
        plane::MediaPlane::stop(self);
    }
}

/// Starts the media plane of this process on the port that signaling has taken.
pub(crate) fn start(
    config: &Config,
    turn_secret: [u8; 32],
    port: u16,
    sink: EventSink,
) -> Result<Arc<dyn MediaPlane>, StartError> {
    let plane = plane::MediaPlane::start(plane::Config {
        bind: SocketAddr::new(config.bind.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), port),
        public_addresses: config.public_address.clone(),
        shards: config.shards.map_or(0, usize::from),
        take_over: config.take_over,
        members_per_shard: config.members_per_core,
        pad_runs: config.pad_runs,
        turn_secret,
        events: Box::new(move |event| sink(event)),
    });
    match plane {
        Ok(plane) => Ok(Arc::new(plane)),
        Err(plane::StartError::Port(PortError::InUse { port })) => Err(StartError::PortTaken(port)),
        Err(plane::StartError::Port(PortError::NotAllowed { port })) => Err(StartError::PortForbidden(port)),
        Err(plane::StartError::Port(PortError::NotOurAddress { address })) => {
            Err(StartError::ForeignAddress(address))
        }
        Err(plane::StartError::Port(PortError::Socket(error))) => {
            Err(StartError::of_bind(config.bind, port, error))
        }
        // EMFILE: the sentence about it is the greeting's.
        Err(plane::StartError::Thread(error)) if error.raw_os_error() == Some(24) => {
            Err(StartError::of_system(error))
        }
        Err(error) => Err(StartError::Media(error)),
    }
}

/// Where the media plane puts its events; may be called from any thread.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// Where signaling takes them out.
pub struct Events {
    queue: mpsc::Receiver<Event>,
    overflow: Arc<Overflow>,
}

/// Peers that missed an event. Bounded by the peers there are: each stands here once.
#[derive(Default)]
struct Overflow(Mutex<BTreeSet<PeerId>>);

/// A queue of at most `capacity` events.
pub fn events(capacity: usize) -> (EventSink, Events) {
    let (sender, queue) = mpsc::channel(capacity);
    let overflow = Arc::new(Overflow::default());
    let missed = Arc::clone(&overflow);
    let sink = Arc::new(move |event| {
        if let Err(mpsc::error::TrySendError::Full(event)) = sender.try_send(event) {
            missed.add(event);
        }
    });
    (sink, Events { queue, overflow })
}

impl Events {
    /// The next event. Peers that missed one are reported as lost as soon as the queue moves again: starting
    /// over is the one thing that is right whatever they missed.
    pub async fn next(&mut self) -> Option<Event> {
        let missed = std::mem::take(&mut *self.overflow.lock());
        if !missed.is_empty() {
            tracing::warn!(peers = missed.len(), "media events overflowed; these peers start over");
            return Some(Event::Lost { peers: missed.into_iter().collect() });
        }
        self.queue.recv().await
    }
}

impl Overflow {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<PeerId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, event: Event) {
        match event {
            // The next one says it all again.
            Event::Speakers { .. } | Event::Lines { .. } => {}
            Event::Lost { peers } => self.lock().extend(peers),
            Event::Answer { peer, .. }
            | Event::OfferRefused { peer, .. }
            | Event::Connected { peer }
            | Event::Disconnected { peer, .. }
            | Event::Slots { peer, .. }
            | Event::Wanted { peer, .. } => {
                self.lock().insert(peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_missed_an_event_starts_over() {
        let (sink, mut events) = events(1);
        sink(Event::Connected { peer: PeerId(1) });
        sink(Event::Connected { peer: PeerId(2) });
        sink(Event::Connected { peer: PeerId(2) });
        assert_eq!(events.next().await, Some(Event::Lost { peers: vec![PeerId(2)] }));
        assert_eq!(events.next().await, Some(Event::Connected { peer: PeerId(1) }));
    }
}
