//! Carries the datagrams of one client to the bridge and back through two links.
//!
//! Seen from the bridge it is a NAT: each address that the client sends from (a browser tries several) has a socket of
//! its own towards the bridge. When the client "moves", these sockets are replaced by others on new ports, as when a
//! telephone goes from Wi-Fi to mobile data; the old ones stay open and deaf, since an ICMP error that tells the bridge
//! of a closed port would be more than a real network says.

use super::control::Order;
use super::link::{Link, LinkCounters};
use super::profile::Profile;
use anyhow::Context;
use serde::Serialize;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Addresses that a client sends from: a browser has one for each interface and family.
const FLOWS_MAX: usize = 16;

/// How often a client may move in one run.
const MOVES_MAX: usize = 64;

/// Orders that wait for their time.
const ORDERS_MAX: usize = 256;

/// Datagrams between a socket and the links; the kernel's buffer is behind it.
const ARRIVALS_MAX: usize = 1_024;

/// More than the largest datagram that media has; jumbo frames are cut short and so dropped by either side.
const DATAGRAM_BYTES_MAX: usize = 2_048;

/// What has become of the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// From the client to the bridge.
    pub up: LinkCounters,
    /// From the bridge to the client.
    pub down: LinkCounters,
    /// Addresses the client sends from.
    pub flows: usize,
    /// How often it moved.
    pub moves: usize,
}

/// An emulator that runs as a task.
pub struct Emulator {
    port: u16,
    orders: mpsc::UnboundedSender<(Order, Option<oneshot::Sender<Report>>)>,
    task: JoinHandle<()>,
}

impl Emulator {
    /// Starts an emulator in front of a bridge's port on the loopback interface.
    ///
    /// # Errors
    /// What the operating system says of the sockets.
    pub async fn start(bridge_port: u16, profile: Profile, seed: u64) -> anyhow::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, bridge_port)), profile, seed).await
    }

    /// Starts an emulator in front of a server at any of this machine's own addresses; the sockets towards it have the
    /// same, and so does nothing leave the machine.
    ///
    /// # Errors
    /// What the operating system says of the sockets, also if the address is another machine's.
    pub async fn start_at(bridge: SocketAddr, profile: Profile, seed: u64) -> anyhow::Result<Self> {
        UdpSocket::bind((bridge.ip(), 0)).await.context("the server's address is not of this machine")?;
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a socket for the client")?;
        let port = near.local_addr()?.port();
        let (orders, inbox) = mpsc::unbounded_channel();
        let (arrived, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let runner = Runner {
            near,
            bridge,
            flows: Vec::new(),
            deaf: Vec::new(),
            moves: 0,
            up: Link::new(profile.up, seed.wrapping_mul(2)),
            down: Link::new(profile.down, seed.wrapping_mul(2).wrapping_add(1)),
            arrived,
            waiting: VecDeque::new(),
        };
        let task = tokio::spawn(runner.run(inbox, arrivals));
        Ok(Self { port, orders, task })
    }

    /// The port on 127.0.0.1 that the client takes for the bridge.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Gives an order; it is carried out at its time.
    pub fn order(&self, order: Order) {
        // A runner that has ended has lost its sockets: the client notices.
        let _ = self.orders.send((order, None));
    }

    /// From now on the line is like this.
    pub fn set_profile(&self, profile: Profile) {
        self.order(Order { profile: Some(profile), ..Order::default() });
    }

    /// Changes the client's address, as the bridge sees it.
    pub fn move_client(&self) {
        self.order(Order { moves: true, ..Order::default() });
    }

    /// What has become of the datagrams since the last report.
    pub async fn report(&self) -> Report {
        let (sender, receiver) = oneshot::channel();
        let _ = self.orders.send((Order { reports: true, ..Order::default() }, Some(sender)));
        receiver.await.unwrap_or_default()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A datagram from the bridge for one of the client's addresses.
type Arrival = (SocketAddr, Vec<u8>);

struct Flow {
    client: SocketAddr,
    far: Arc<UdpSocket>,
    reader: JoinHandle<()>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Waiting {
    at: Instant,
    order: Order,
    reply: Option<oneshot::Sender<Report>>,
}

struct Runner {
    near: UdpSocket,
    bridge: SocketAddr,
    flows: Vec<Flow>,
    deaf: Vec<Arc<UdpSocket>>,
    moves: usize,
    up: Link<Arrival>,
    down: Link<Arrival>,
    arrived: mpsc::Sender<Arrival>,
    /// Sorted by time.
    waiting: VecDeque<Waiting>,
}

impl Runner {
    async fn run(
        mut self,
        mut orders: mpsc::UnboundedReceiver<(Order, Option<oneshot::Sender<Report>>)>,
        mut arrivals: mpsc::Receiver<Arrival>,
    ) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let now = Instant::now();
            while self.waiting.front().is_some_and(|waiting| waiting.at <= now) {
                let Some(Waiting { order, reply, .. }) = self.waiting.pop_front() else { break };
                if self.obey(order, reply).await.is_err() {
                    return;
                }
            }
            self.flush(now).await;
            let wakes =
                [self.up.poll_timeout(), self.down.poll_timeout(), self.waiting.front().map(|it| it.at)];
            // With nothing to wait for, any moment is as good.
            let wake = wakes.into_iter().flatten().min().unwrap_or(now + Duration::from_secs(60));
            tokio::select! {
                received = self.near.recv_from(&mut buffer) => {
                    // An error tells of a closed port on the other side, which is the client's matter.
                    let Ok((bytes, client)) = received else { continue };
                    if self.flow(client).await.is_some() {
                        self.up.handle_packet(Instant::now(), bytes, (client, buffer[..bytes].to_vec()));
                    }
                }
                Some((client, datagram)) = arrivals.recv() => {
                    self.down.handle_packet(Instant::now(), datagram.len(), (client, datagram));
                }
                order = orders.recv() => {
                    let Some((order, reply)) = order else { return };
                    self.wait(order, reply);
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    fn wait(&mut self, order: Order, reply: Option<oneshot::Sender<Report>>) {
        if self.waiting.len() >= ORDERS_MAX {
            return;
        }
        let at = Instant::now() + Duration::from_millis(order.at_ms);
        let place = self.waiting.partition_point(|waiting| waiting.at <= at);
        self.waiting.insert(place, Waiting { at, order, reply });
    }

    async fn obey(&mut self, order: Order, reply: Option<oneshot::Sender<Report>>) -> anyhow::Result<()> {
        if let Some(profile) = order.profile {
            self.up.set_profile(profile.up);
            self.down.set_profile(profile.down);
        }
        if order.moves && self.moves < MOVES_MAX {
            self.moves += 1;
            for index in 0..self.flows.len() {
                let client = self.flows[index].client;
                let flow = self.open(client).await?;
                let old = std::mem::replace(&mut self.flows[index], flow);
                self.deaf.push(old.far.clone());
            }
        }
        if let (true, Some(reply)) = (order.reports, reply) {
            // Who asked may be gone.
            let _ = reply.send(Report {
                up: self.up.take_counters(),
                down: self.down.take_counters(),
                flows: self.flows.len(),
                moves: self.moves,
            });
        }
        Ok(())
    }

    /// The flow of one of the client's addresses; none if it has too many.
    async fn flow(&mut self, client: SocketAddr) -> Option<usize> {
        if let Some(index) = self.flows.iter().position(|flow| flow.client == client) {
            return Some(index);
        }
        if self.flows.len() >= FLOWS_MAX {
            return None;
        }
        let flow = self.open(client).await.ok()?;
        self.flows.push(flow);
        Some(self.flows.len() - 1)
    }

    async fn open(&self, client: SocketAddr) -> anyhow::Result<Flow> {
        let far = Arc::new(UdpSocket::bind((self.bridge.ip(), 0)).await?);
        // Connected: nobody but the bridge gets through to the client.
        far.connect(self.bridge).await?;
        let (socket, arrived) = (far.clone(), self.arrived.clone());
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
            loop {
                // While the bridge is away its port is closed; it may come back.
                let Ok(bytes) = socket.recv(&mut buffer).await else { continue };
                if arrived.send((client, buffer[..bytes].to_vec())).await.is_err() {
                    return;
                }
            }
        });
        Ok(Flow { client, far, reader })
    }

    /// Sends what has come out of the links. What the kernel does not take is lost, as everywhere.
    async fn flush(&mut self, now: Instant) {
        while let Some((client, datagram)) = self.up.poll_packet(now) {
            if let Some(flow) = self.flows.iter().find(|flow| flow.client == client) {
                let _ = flow.far.send(&datagram).await;
            }
        }
        while let Some((client, datagram)) = self.down.poll_packet(now) {
            let _ = self.near.send_to(&datagram, client).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netem::profile::LinkProfile;
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn socket() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket")
    }

    async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 100];
        let received = timeout(PATIENCE, socket.recv_from(&mut buffer)).await.expect("it arrives");
        let (bytes, from) = received.expect("a datagram");
        (buffer[..bytes].to_vec(), from)
    }

    #[tokio::test]
    async fn datagrams_go_both_ways_and_an_address_changes_only_for_the_bridge() {
        let (client, bridge) = (socket().await, socket().await);
        let port = bridge.local_addr().expect("bound").port();
        let emulator = Emulator::start(port, Profile::default(), 1).await.expect("it starts");
        let near = (Ipv4Addr::LOCALHOST, emulator.port());
        let sent = Instant::now();
        client.send_to(b"one", near).await.expect("sent");
        let (contents, before) = receive(&bridge).await;
        assert_eq!(contents, b"one");
        assert!(sent.elapsed() >= Duration::from_millis(LinkProfile::DELAY_MS.into()));
        bridge.send_to(b"two", before).await.expect("sent");
        assert_eq!(receive(&client).await, (b"two".to_vec(), near.into()));

        emulator.move_client();
        emulator.report().await; // orders are carried out in turn
        client.send_to(b"three", near).await.expect("sent");
        let (contents, after) = receive(&bridge).await;
        assert_eq!(contents, b"three");
        assert_ne!(before, after);
        bridge.send_to(b"to the old address", before).await.expect("no error is told of it");
        bridge.send_to(b"four", after).await.expect("sent");
        assert_eq!(receive(&client).await, (b"four".to_vec(), near.into()));
        let report = emulator.report().await;
        assert_eq!((report.up.delivered, report.down.delivered, report.moves), (1, 1, 1));
    }

    #[tokio::test]
    async fn another_machine_is_not_reached() {
        // TEST-NET-1 (RFC 5737): nobody's.
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 9));
        assert!(Emulator::start_at(elsewhere, Profile::default(), 1).await.is_err());
    }

    #[tokio::test]
    async fn each_address_of_a_client_gets_its_own_answers() {
        let (wired, wireless, bridge) = (socket().await, socket().await, socket().await);
        let port = bridge.local_addr().expect("bound").port();
        let emulator = Emulator::start(port, Profile::default(), 1).await.expect("it starts");
        let near = (Ipv4Addr::LOCALHOST, emulator.port());
        for (client, name) in [(&wired, b"a"), (&wireless, b"b")] {
            client.send_to(name, near).await.expect("sent");
            let (contents, from) = receive(&bridge).await;
            bridge.send_to(&contents, from).await.expect("sent");
            assert_eq!(receive(client).await.0, name);
        }
    }

    #[tokio::test]
    async fn orders_are_carried_out_at_their_time() {
        let (client, bridge) = (socket().await, socket().await);
        let port = bridge.local_addr().expect("bound").port();
        let emulator = Emulator::start(port, Profile::default(), 1).await.expect("it starts");
        let near = (Ipv4Addr::LOCALHOST, emulator.port());
        let hole = Profile::named("black-hole");
        emulator.order(Order { profile: hole, ..Order::default() });
        emulator.order(Order { at_ms: 200, profile: Some(Profile::default()), ..Order::default() });
        let ordered = Instant::now();
        emulator.report().await;
        // Sends until something gets through.
        let mut lost = 0;
        let mut buffer = [0; 100];
        loop {
            client.send_to(b"x", near).await.expect("sent");
            if timeout(Duration::from_millis(10), bridge.recv_from(&mut buffer)).await.is_ok() {
                break;
            }
            lost += 1;
            assert!(lost < 1_000, "the hole never closes");
        }
        assert!(ordered.elapsed() >= Duration::from_millis(200), "nothing gets through before");
        assert!(emulator.report().await.up.swallowed > 0);
    }
}
