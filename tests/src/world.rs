//! The whole media plane in virtual time: a real shard and real negotiation, `str0m` clients, lossy links.
//!
//! The same seed gives the same links. What the cryptography draws differs from run to run and changes no timing.

use crate::peer::{Peer, PeerEvent, Received};
use asamblea_seam::{Event, Mid, PeerId, RoomId, SlotState, SlotWish, Up, UpKind, UpState};
use asamblea_sfu_core::negotiate::{LocalDescriptionParams, Negotiator};
use asamblea_sfu_core::room::{RoomConfig, WallClock};
use asamblea_sfu_core::rtp::time::Ntp;
use asamblea_sfu_core::shard::{Output, Shard, ShardCommand, ShardConfig};
use asamblea_sfu_core::transport::ice::{LocalCredentials, NodeSecret, authenticate_check};
use asamblea_sfu_core::transport::{Identity, PathId};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m_netem::{Input as LinkInput, Netem, NetemConfig, Output as LinkOutput, WithLen};

/// Where the bridge is in the simulated network.
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 8443);

/// A datagram on a link.
#[derive(Clone, Debug)]
struct Parcel(Vec<u8>);

impl WithLen for Parcel {
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// A client in the simulation.
pub struct Client {
    /// The media side.
    pub peer: Peer,
    /// Its id towards the bridge.
    pub id: PeerId,
    /// What came in, in order.
    pub received: Vec<(Instant, Received)>,
    /// What its slots carry, by mid, as the bridge said.
    pub slots: BTreeMap<String, Option<Up>>,
    /// Key frames that were asked of it.
    pub key_frames_wanted: Vec<(Instant, UpKind, usize)>,
    /// Whether ICE and DTLS are up.
    pub is_connected: bool,
    address: SocketAddr,
    negotiator: Negotiator,
    to_server: Netem<Parcel>,
    to_client: Netem<Parcel>,
}

/// See the module.
pub struct World {
    /// The virtual time.
    pub now: Instant,
    /// Everyone.
    pub clients: Vec<Client>,
    /// What the bridge said to signaling.
    pub events: Vec<(Instant, Event)>,
    shard: Shard,
    identity: Arc<Identity>,
    secret: NodeSecret,
    paths: BTreeMap<SocketAddr, PathId>,
    remotes: BTreeMap<PathId, SocketAddr>,
    seed: u64,
    /// Sends that carried more than one datagram, and all sends.
    pub runs: (usize, usize),
}

impl World {
    /// An empty meeting.
    pub fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let now = Instant::now();
        let identity = Arc::new(Identity::generate());
        let room = RoomConfig::new(WallClock { at: now, ntp: Ntp(0xe000_0000_0000_0000) });
        let shard = Shard::new(ShardConfig { identity: identity.clone(), seed, room }, now);
        Self {
            now,
            clients: Vec::new(),
            events: Vec::new(),
            shard,
            identity,
            secret: NodeSecret::new([7; 32]),
            paths: BTreeMap::new(),
            remotes: BTreeMap::new(),
            seed,
            runs: (0, 0),
        }
    }

    /// Brings a client in over links of the given kind, with so many slots, and returns its index.
    pub fn join(&mut self, link: NetemConfig, audio_slots: usize, video_slots: usize) -> usize {
        let index = self.clients.len();
        let id = PeerId(index as u64 + 1);
        let address = SocketAddr::new(Ipv4Addr::new(10, 0, 1, index as u8 + 1).into(), 40_000);
        let mut random = [0; 10];
        random[0] = index as u8;
        let ice = LocalCredentials::new(0, random, &self.secret).credentials().clone();
        let link_seed = self.seed.wrapping_mul(1_000).wrapping_add(index as u64 * 2);
        let client = Client {
            peer: Peer::new(self.now, index as u32, address),
            id,
            received: Vec::new(),
            slots: BTreeMap::new(),
            key_frames_wanted: Vec::new(),
            is_connected: false,
            address,
            negotiator: Negotiator::new(LocalDescriptionParams {
                ice: ice.clone(),
                fingerprint: self.identity.fingerprint(),
                candidates: vec![SERVER],
                seed: self.seed.wrapping_add(index as u64),
                transport_cc: true,
            }),
            to_server: Netem::new(link.seed(link_seed)),
            to_client: Netem::new(link.seed(link_seed + 1)),
        };
        self.clients.push(client);
        self.shard.handle_command(self.now, ShardCommand::Join { room: RoomId(1), peer: id, ice });
        self.offer(index, audio_slots, video_slots);
        index
    }

    /// Adds slots.
    pub fn offer(&mut self, index: usize, audio_slots: usize, video_slots: usize) {
        let client = &mut self.clients[index];
        let (sdp, ups) = client.peer.offer(audio_slots, video_slots);
        let answer = client.negotiator.handle_offer(&sdp, &ups).expect("the bridge answers");
        client.peer.accept_answer(&answer.sdp).expect("str0m takes the answer");
        client.peer.handle_timeout(self.now);
        let description = Box::new(answer.description);
        let command = ShardCommand::Describe { peer: client.id, description, restart: None };
        self.shard.handle_command(self.now, command);
        self.settle();
    }

    /// Says that a client sends these kinds now.
    pub fn publish(&mut self, index: usize, kinds: &[UpKind]) {
        let state = |kind: &UpKind| UpState { kind: *kind, active: true, height_px: 720 };
        let ups = kinds.iter().map(state).collect();
        self.shard.handle_command(self.now, ShardCommand::Publish { peer: self.clients[index].id, ups });
        self.settle();
    }

    /// Fills a client's video slots in order: whose camera, how tall.
    pub fn view(&mut self, index: usize, wishes: &[(usize, u16)]) {
        let mids = self.clients[index].peer.video_slots();
        let wish = |(mid, (whose, height_px)): (String, &(usize, u16))| SlotWish {
            mid: Mid::new(&mid).expect("a short mid"),
            up: Some(Up { peer: self.clients[*whose].id, kind: UpKind::Camera }),
            height_px: *height_px,
        };
        let slots = mids.into_iter().zip(wishes).map(wish).collect();
        self.shard.handle_command(self.now, ShardCommand::View { peer: self.clients[index].id, slots });
        self.settle();
    }

    /// A client's line to it becomes another one; what is on its way stays so.
    pub fn change_down_link(&mut self, index: usize, link: NetemConfig) {
        self.clients[index].to_client.set_config(link);
    }

    /// When the bridge told a client that a picture is held back, or not any more.
    pub fn pauses(&self, index: usize) -> Vec<(Instant, bool)> {
        let id = self.clients[index].id;
        let mut told = Vec::new();
        for (at, event) in &self.events {
            if let Event::Slots { peer, slots } = event
                && *peer == id
            {
                told.extend(
                    slots
                        .iter()
                        .filter(|slot| slot.up.is_some_and(|up| !up.kind.is_audio()))
                        .map(|slot| (*at, slot.paused)),
                );
            }
        }
        told.dedup_by_key(|(_, paused)| *paused);
        told
    }

    /// A client leaves without a word to the others.
    pub fn leave(&mut self, index: usize) {
        self.shard.handle_command(self.now, ShardCommand::Leave { peer: self.clients[index].id });
        self.settle();
    }

    /// Breaks the sockets of a client's paths, as an operating system may.
    pub fn fail_paths(&mut self, index: usize) {
        if let Some(path) = self.paths.remove(&self.clients[index].address) {
            self.remotes.remove(&path);
            self.shard.handle_path_failed(self.now, path);
        }
        self.settle();
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.settle();
        while let Some(next) = self.next_wake().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
        self.step();
    }

    /// Runs until something holds, at most `limit`; returns whether it came to hold.
    pub fn run_until(&mut self, limit: Duration, mut holds: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + limit;
        while !holds(self) {
            if self.now >= end {
                return false;
            }
            self.run(Duration::from_millis(5));
        }
        true
    }

    /// What the shard has counted.
    pub fn counters(&self) -> asamblea_sfu_core::shard::ShardCounters {
        self.shard.counters()
    }

    fn next_wake(&self) -> Option<Instant> {
        let links = self.clients.iter().flat_map(|client| {
            [client.peer.poll_timeout(), client.to_server.poll_timeout(), client.to_client.poll_timeout()]
        });
        links.chain(self.shard.poll_timeout().map(|wake| wake.at)).min()
    }

    fn step(&mut self) {
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if client.peer.poll_timeout() <= self.now {
                client.peer.handle_timeout(self.now);
            }
            client.to_client.handle_input(LinkInput::Timeout(self.now));
            while let Some(output) = client.to_client.poll_output() {
                if let LinkOutput::Packet(Parcel(datagram)) = output {
                    client.peer.handle_datagram(self.now, SERVER, client.address, &datagram);
                }
            }
            client.to_server.handle_input(LinkInput::Timeout(self.now));
            let address = client.address;
            let mut arrived = Vec::new();
            while let Some(output) = client.to_server.poll_output() {
                if let LinkOutput::Packet(Parcel(datagram)) = output {
                    arrived.push(datagram);
                }
            }
            for datagram in arrived {
                self.deliver_to_server(address, datagram);
            }
        }
        if self.shard.poll_timeout().is_some_and(|wake| wake.at <= self.now) {
            self.shard.handle_timeout(self.now);
        }
        self.settle();
    }

    /// As the kernel does: a connected socket gets what its remote sends, the listener the rest.
    fn deliver_to_server(&mut self, from: SocketAddr, mut datagram: Vec<u8>) {
        if let Some(path) = self.paths.get(&from) {
            self.shard.handle_datagram(self.now, *path, &mut datagram);
        } else if authenticate_check(&self.secret, &datagram).is_ok() {
            self.shard.handle_check(self.now, from, &datagram);
        }
    }

    /// Carries on what clients and bridge have to say.
    fn settle(&mut self) {
        while let Some(output) = self.shard.poll_output() {
            match output {
                Output::OpenPath { path, remote } => {
                    let remote = remote.address();
                    self.paths.insert(remote, path);
                    self.remotes.insert(path, remote);
                }
                Output::ClosePath { path } => {
                    if let Some(remote) = self.remotes.remove(&path) {
                        self.paths.retain(|known, open| *known != remote || *open != path);
                    }
                }
                Output::Transmit { path, contents, segment_bytes } => {
                    let remote = self.remotes[&path];
                    self.runs.1 += 1;
                    self.runs.0 += usize::from(contents.len() > segment_bytes);
                    let Some(client) = self.clients.iter_mut().find(|client| client.address == remote) else {
                        continue;
                    };
                    for datagram in contents.chunks(segment_bytes) {
                        client.to_client.handle_input(LinkInput::Packet(self.now, Parcel(datagram.to_vec())));
                    }
                }
            }
        }
        while let Some(event) = self.shard.poll_event() {
            if let Event::Slots { peer, slots } = &event
                && let Some(client) = self.clients.iter_mut().find(|client| client.id == *peer)
            {
                for SlotState { mid, up, .. } in slots {
                    client.slots.insert(mid.as_str().to_owned(), *up);
                }
            }
            self.events.push((self.now, event));
        }
        for client in &mut self.clients {
            while let Some(datagram) = client.peer.poll_datagram() {
                client.to_server.handle_input(LinkInput::Packet(self.now, Parcel(datagram.contents)));
            }
            while let Some(event) = client.peer.poll_event() {
                match event {
                    PeerEvent::Connected => client.is_connected = true,
                    PeerEvent::Disconnected => client.is_connected = false,
                    PeerEvent::Received(received) => client.received.push((self.now, received)),
                    PeerEvent::KeyFrameWanted { kind, layer } => {
                        client.key_frames_wanted.push((self.now, kind, layer));
                    }
                }
            }
        }
    }
}
