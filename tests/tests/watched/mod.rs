//! The whole bridge with a look at what its shards count.

use asamblea::{Bridge, Config};
use asamblea_sfu_core::stats::RoomCounters;
use asamblea_sfu_io::plane::{self, MediaPlane};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

/// Where its shards are looked at.
pub(crate) struct Watched(Arc<OnceLock<Arc<MediaPlane>>>);

/// A bridge on some free port with as many shards as are configured.
pub(crate) async fn bridge(config: Config) -> (Bridge, Watched) {
    let slot = Arc::new(OnceLock::new());
    let plane = Arc::clone(&slot);
    let bridge = Bridge::start_with(Config { port: 0, ..config }, move |config, port, sink| {
        let started = MediaPlane::start(plane::Config {
            bind: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
            public_addresses: Vec::new(),
            shards: config.shards.map_or(0, usize::from),
            take_over: false,
            members_per_shard: config.members_per_core,
            pad_runs: true,
            turn_secret: [7; 32],
            events: Box::new(move |event| sink(event)),
        });
        let started = Arc::new(started.expect("a port that signaling has just taken"));
        let _ = plane.set(Arc::clone(&started));
        Ok(started)
    })
    .await
    .expect("the bridge starts");
    (bridge, Watched(slot))
}

impl Watched {
    /// Of each shard how many people it carries, and what its rooms have counted.
    pub(crate) fn rooms(&self) -> Vec<(u64, RoomCounters)> {
        let shards = self.0.get().expect("it has started").stats().shards;
        shards.iter().map(|shard| (shard.sockets.peers, shard.rooms)).collect()
    }
}
