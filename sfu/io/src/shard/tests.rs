//! The loop with a scripted heart, over the real kernel.

use super::{
    turn::{QUIET_PATHS_PER_TURN, SENDS_BEFORE_LOOK},
    *,
};
use crate::crossing::{BATCHES_MAX, crossings};
use crate::listener::{Gate, Listener};
use crate::port;
use asamblea_sfu_core::relay::{Batch, Carried as BatchCarried};
use asamblea_sfu_core::shard::Output;
use asamblea_sfu_core::stats::RoomCounters;
use asamblea_sfu_core::transport::stun::StunDrop;
use asamblea_sfu_core::transport::{PathId, Remote};
use std::collections::{HashSet, VecDeque};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;

/// A datagram that asks how many outputs have not been given out yet.
const HOW_MANY_WAIT: &[u8] = b"how many wait";

/// A datagram after which what comes on its path may wait; after any other it may not.
const MAY_WAIT: &[u8] = b"may wait";

const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a path for whoever sends a check, greets it there, echoes what comes, and panics when it is told to.
#[derive(Default)]
struct Script {
    paths: u64,
    outputs: VecDeque<Scripted>,
    current: Vec<u8>,
    events: VecDeque<Event>,
    relays: Vec<u16>,
    listens: bool,
    patient: HashSet<PathId>,
    deadline: Option<(Instant, PeerId)>,
}

enum Scripted {
    Open(PathId, Remote),
    Send(PathId, Vec<u8>, usize),
    Close(PathId),
    Pause(Pause),
}

/// Says that it has begun, and waits until it may go on.
type Pause = (mpsc::Sender<()>, mpsc::Receiver<()>);

enum Tell {
    Join(PeerId),
    Leave(PeerId),
    Say(PeerId),
    WaitFor(mpsc::Receiver<()>),
    WakeAfter(Duration, PeerId),
    Open(SocketAddr),
    Close(PathId),
    /// Say when another shard has ended.
    Listen,
    /// Something to another shard.
    Relay(u16),
    Send(PathId, Vec<u8>, usize),
    /// So many datagrams after a pause.
    SendMany(PathId, usize, Pause),
    Panic,
}

impl Heart for Script {
    type Command = Tell;

    fn membership(command: &Tell) -> Membership {
        match command {
            Tell::Join(peer) => Membership::Joined(*peer),
            Tell::Leave(peer) => Membership::Left(*peer),
            _ => Membership::Unchanged,
        }
    }
    fn handle_command(&mut self, now: Instant, command: Tell) {
        match command {
            Tell::Join(_) | Tell::Leave(_) => {}
            Tell::Say(peer) => self.events.push_back(Event::Connected { peer }),
            Tell::WaitFor(go) => go.recv_timeout(PATIENCE).expect("the test lets go"),
            Tell::WakeAfter(delay, peer) => self.deadline = Some((now + delay, peer)),
            Tell::Open(remote) => {
                self.outputs.push_back(Scripted::Open(PathId(self.paths), remote.into()));
                self.paths += 1;
            }
            Tell::Listen => self.listens = true,
            Tell::Relay(to) => self.relays.push(to),
            Tell::Close(path) => self.outputs.push_back(Scripted::Close(path)),
            Tell::Send(path, contents, segment) => {
                self.outputs.push_back(Scripted::Send(path, contents, segment));
            }
            Tell::SendMany(path, count, pause) => {
                self.outputs.push_back(Scripted::Pause(pause));
                self.outputs.extend((0..count).map(|_| Scripted::Send(path, b"one".to_vec(), 3)));
            }
            Tell::Panic => panic!("as the script says"),
        }
    }
    fn handle_check(&mut self, _: Instant, remote: Remote, _: &[u8]) {
        let path = PathId(self.paths);
        self.paths += 1;
        self.outputs.push_back(Scripted::Open(path, remote));
        self.outputs.push_back(Scripted::Send(path, b"welcome".to_vec(), 7));
    }
    fn handle_datagram(&mut self, _: Instant, path: PathId, datagram: &mut [u8]) {
        assert_ne!(datagram, b"panic", "as the datagram says");
        if datagram == MAY_WAIT {
            self.patient.insert(path);
        } else {
            self.patient.remove(&path);
        }
        if datagram == HOW_MANY_WAIT {
            self.events.push_back(connected(self.outputs.len() as u64));
            return;
        }
        self.outputs.push_back(Scripted::Send(path, datagram.to_vec(), datagram.len()));
    }
    fn may_wait(&self, _: Instant, path: PathId) -> bool {
        self.patient.contains(&path)
    }
    fn handle_path_failed(&mut self, _: Instant, path: PathId) {
        self.events.push_back(Event::Connected { peer: PeerId(1_000 + path.0) });
    }
    fn handle_relay(&mut self, _: Instant, from: u16, _: &Batch) {
        self.events.push_back(connected(2_000 + u64::from(from)));
    }
    fn handle_shard_ended(&mut self, _: Instant, shard: u16) {
        if self.listens {
            self.events.push_back(connected(3_000 + u64::from(shard)));
        }
    }
    fn relay(&mut self, carry: &mut dyn FnMut(u16, Batch) -> BatchCarried) {
        self.relays.retain(|to| matches!(carry(*to, Batch::default()), BatchCarried::Refused(_)));
    }
    fn handle_timeout(&mut self, now: Instant) {
        if let Some((_, peer)) = self.deadline.take_if(|(at, _)| *at <= now) {
            self.events.push_back(Event::Connected { peer });
        }
    }
    fn poll_output(&mut self) -> Option<Output<'_>> {
        Some(match self.outputs.pop_front()? {
            Scripted::Open(path, remote) => Output::OpenPath { path, remote },
            Scripted::Send(path, contents, segment_bytes) => {
                self.current = contents;
                Output::Transmit { path, contents: &self.current, segment_bytes }
            }
            Scripted::Close(path) => Output::ClosePath { path },
            Scripted::Pause((begun, go)) => {
                begun.send(()).expect("the test listens");
                go.recv_timeout(PATIENCE).expect("the test lets go");
                return self.poll_output();
            }
        })
    }
    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline.map(|(at, _)| at)
    }
    fn room_counters(&self) -> RoomCounters {
        RoomCounters { packets_received: self.paths, ..RoomCounters::default() }
    }
}

/// Both ends of a pause: the heart's, and the test's.
fn pause() -> (Pause, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (begun, has_begun) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    ((begun, may_go), has_begun, go)
}

/// Takes "check" and the shard's index in one byte.
struct ByFirstWord;

impl Gate for ByFirstWord {
    fn admit(&self, datagram: &[u8]) -> Result<u16, StunDrop> {
        datagram.strip_prefix(b"check").map(|rest| u16::from(rest[0])).ok_or(StunDrop::Malformed)
    }
}

struct Bench {
    port: LocalPort,
    shards: Vec<ShardThread<Tell>>,
    listener: Listener,
    events: mpsc::Receiver<Event>,
}

fn bench(bind: &str, shards: u16) -> Bench {
    let (port, sockets) = port::open(bind.parse().unwrap()).unwrap();
    let (sender, events) = mpsc::channel();
    let sink: EventSink = Arc::new(move |event| {
        let _ = sender.send(event);
    });
    let shards: Vec<_> = (0..)
        .zip(crossings(shards))
        .map(|(index, crossing)| {
            ShardThread::start(index, port, |_| Script::default(), sink.clone(), crossing).unwrap()
        })
        .collect();
    let listener =
        Listener::start(sockets, ByFirstWord, shards.iter().map(ShardThread::checks).collect(), None)
            .unwrap();
    Bench { port, shards, listener, events }
}

impl Bench {
    fn at(&self, ip: [u8; 4]) -> SocketAddr {
        SocketAddr::new(ip.into(), self.port.port)
    }

    /// A client with a path to this shard.
    fn client(&self, shard: u8) -> UdpSocket {
        let client = unconnected();
        client.connect(self.at([127, 0, 0, 1])).unwrap();
        client.send(&[b"check".as_slice(), &[shard]].concat()).unwrap();
        assert_eq!(heard(&client), b"welcome");
        client
    }

    fn expect(&self, event: &Event) {
        assert_eq!(self.events.recv_timeout(PATIENCE).as_ref(), Ok(event));
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.listener.stats());
            std::thread::yield_now();
        }
    }
}

fn unconnected() -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn heard(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2000];
    let length = client.recv(&mut buffer).expect("an answer");
    buffer[..length].to_vec()
}

fn echoes(client: &UdpSocket, text: &[u8]) {
    client.send(text).unwrap();
    assert_eq!(heard(client), text);
}

fn connected(peer: u64) -> Event {
    Event::Connected { peer: PeerId(peer) }
}

#[test]
fn a_check_opens_a_path_and_the_path_carries_what_follows() {
    let bench = bench("[::]:0", 2);
    let clients: Vec<_> = (0..50).map(|i| bench.client(i % 2)).collect();
    for (i, client) in clients.iter().enumerate() {
        echoes(client, format!("hello from {i}").as_bytes());
    }
    let stats: Vec<_> = bench.shards.iter().map(|shard| shard.stats().sockets).collect();
    for stats in stats {
        assert_eq!((stats.checks, stats.paths_opened, stats.datagrams_received), (25, 25, 25));
    }
    bench.until("what came on a path never met the listener", || {
        let stats = bench.listener.stats();
        stats.admitted == 50 && stats.datagrams == 50
    });
}

#[test]
fn a_path_whose_news_may_wait_is_quiet_and_is_heard_all_the_same() {
    let bench = bench("127.0.0.1:0", 1);
    let (client, other) = (bench.client(0), bench.client(0));
    let quiet = || bench.shards[0].stats().sockets.paths_quiet;
    echoes(&other, b"may not");
    assert_eq!(quiet(), 0);
    for _ in 0..3 {
        (0..10).for_each(|_| echoes(&client, MAY_WAIT));
        bench.until("it is quiet", || quiet() == 1);
        echoes(&client, b"may not");
        bench.until("it is heard at once", || quiet() == 0);
        (0..10).for_each(|_| echoes(&client, b"may not"));
    }
    echoes(&client, MAY_WAIT);
    bench.until("it is quiet again", || quiet() == 1);
    bench.shards[0].send(Tell::Close(PathId(0)));
    bench.until("it is gone", || quiet() == 0);
    echoes(&other, b"may not");
}

#[test]
fn the_other_sockets_are_looked_at_while_many_quiet_ones_have_their_turns() {
    const LISTENERS: usize = 8 * QUIET_PATHS_PER_TURN;
    let bench = bench("127.0.0.1:0", 1);
    let clients: Vec<UdpSocket> = (0..LISTENERS).map(|_| bench.client(0)).collect();
    for client in &clients {
        echoes(client, MAY_WAIT);
    }
    bench.until("all are quiet", || bench.shards[0].stats().sockets.paths_quiet == LISTENERS as u64);
    let (go, may_go) = mpsc::channel();
    bench.shards[0].send(Tell::WaitFor(may_go));
    let before = bench.shards[0].stats().sockets.turns;
    for client in &clients {
        client.send(MAY_WAIT).unwrap();
    }
    go.send(()).unwrap();
    for client in &clients {
        assert_eq!(heard(client), MAY_WAIT);
    }
    let turns = bench.shards[0].stats().sockets.turns - before;
    assert!(turns >= 8, "{turns} turns for what waited on {LISTENERS} sockets");
}

#[test]
fn a_flood_of_junk_is_counted_and_disturbs_no_path() {
    const JUNK: usize = 20_000;
    let bench = bench("127.0.0.1:0", 1);
    let (client, server) = (bench.client(0), bench.at([127, 0, 0, 1]));
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let stranger = unconnected();
            for _ in 0..JUNK {
                stranger.send_to(b"junk", server).unwrap();
            }
        });
        for i in 0..200_u32 {
            echoes(&client, &i.to_be_bytes());
        }
        flood.join().unwrap();
    });
    let stats = bench.shards[0].stats().sockets;
    assert_eq!((stats.datagrams_received, stats.checks), (200, 1));
    bench.until("the junk that the kernel let through is counted", || {
        let stats = bench.listener.stats();
        stats.dropped_malformed > 0 && stats.dropped_malformed + 1 == stats.datagrams
    });
}

#[test]
fn a_run_goes_out_in_one_send_and_comes_in_in_one_receive() {
    let bench = bench("127.0.0.1:0", 1);
    let client = bench.client(0);
    bench.until("the welcome is counted", || bench.shards[0].stats().sockets.sends == 1);
    let before = bench.shards[0].stats();
    bench.shards[0].send(Tell::Send(PathId(0), vec![7; 1050], 100));
    for expected in [100; 10].into_iter().chain([50]) {
        assert_eq!(heard(&client), vec![7; expected]);
    }
    bench.until("it is counted as one send of 9 to 16 datagrams", || {
        let after = bench.shards[0].stats();
        after.sockets.sends == before.sockets.sends + 1
            && after.sockets.datagrams_sent == before.sockets.datagrams_sent + 11
            && after.runs[4] == before.runs[4] + 1
    });

    crate::batch::send(client.as_fd(), &[8; 450], Some(100)).unwrap();
    for expected in [100, 100, 100, 100, 50] {
        assert_eq!(heard(&client), vec![8; expected], "each segment was a datagram to the heart");
    }
}

#[test]
fn a_panic_ends_one_shard_alone_and_names_who_was_in_it() {
    let bench = bench("127.0.0.1:0", 2);
    let [first, second] = &bench.shards[..] else { unreachable!("two were asked for") };
    for (shard, peer) in [(first, 1), (first, 2), (first, 3), (second, 4)] {
        shard.send(Tell::Join(PeerId(peer)));
    }
    first.send(Tell::Leave(PeerId(2)));
    let (ill_fated, bystander) = (bench.client(0), bench.client(1));
    ill_fated.send(b"panic").unwrap();
    bench.expect(&Event::Lost { peers: vec![PeerId(1), PeerId(3)] });
    echoes(&bystander, b"still here");

    first.send(Tell::Join(PeerId(5)));
    let newcomer = bench.client(0);
    echoes(&newcomer, b"a fresh start");
    first.send(Tell::Panic);
    bench.expect(&Event::Lost { peers: vec![PeerId(5)] });
    bench.until("both were counted", || first.stats().sockets.panics == 2);
    assert_eq!(second.stats().sockets.panics, 0);
}

#[test]
fn what_rooms_have_counted_can_be_read_and_outlives_their_heart() {
    let bench = bench("127.0.0.1:0", 1);
    let shard = &bench.shards[0];
    for sum in 1..=2 {
        let client = bench.client(0);
        bench.until("a heart's count is told", || {
            echoes(&client, b"another turn");
            shard.stats().rooms.packets_received == sum
        });
        shard.send(Tell::Panic);
        // A check that reached a heart about to panic would be lost with it.
        bench.until("the panic was counted", || shard.stats().sockets.panics == sum);
    }
    assert_eq!(shard.stats().rooms.packets_received, 2);
}

#[test]
fn the_loop_wakes_at_the_hearts_deadline() {
    let bench = bench("127.0.0.1:0", 1);
    let asked = Instant::now();
    bench.shards[0].send(Tell::WakeAfter(Duration::from_millis(30), PeerId(9)));
    bench.expect(&connected(9));
    assert!(asked.elapsed() >= Duration::from_millis(30));
    assert!(bench.shards[0].stats().sockets.turns < 20, "it slept in between");
}

#[test]
fn commands_beyond_the_mailbox_wait_and_none_is_lost() {
    let bench = bench("127.0.0.1:0", 1);
    let (go, wait) = mpsc::channel();
    bench.shards[0].send(Tell::WaitFor(wait));
    let many = COMMANDS_MAX as u64 + 500;
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            for peer in 0..many {
                bench.shards[0].send(Tell::Say(PeerId(peer)));
                if peer == COMMANDS_MAX as u64 / 2 {
                    go.send(()).unwrap();
                }
            }
        });
        for peer in 0..many {
            bench.expect(&connected(peer));
        }
        sender.join().unwrap();
    });
}

#[test]
fn checks_beyond_the_mailbox_are_dropped_and_counted() {
    let bench = bench("127.0.0.1:0", 1);
    let (go, wait) = mpsc::channel();
    bench.shards[0].send(Tell::WaitFor(wait));
    let eager = unconnected();
    bench.until("the mailbox is full", || {
        eager.send_to(b"check\0", bench.at([127, 0, 0, 1])).unwrap();
        bench.listener.stats().dropped_mailbox_full > 0
    });
    assert!(bench.listener.stats().admitted >= CHECKS_MAX as u64);
    go.send(()).unwrap();
    bench.shards[0].send(Tell::Say(PeerId(1)));
    bench.expect(&connected(1));
}

#[test]
fn a_path_that_cannot_be_opened_is_told_to_the_heart() {
    let bench = bench("127.0.0.1:0", 1);
    bench.shards[0].send(Tell::Open("[::1]:9".parse().unwrap()));
    bench.expect(&connected(1_000));
    assert_eq!(bench.shards[0].stats().sockets.paths_failed, 1);
}

#[test]
fn a_path_answers_from_the_address_its_check_was_sent_to() {
    let bench = bench("0.0.0.0:0", 1);
    let client = unconnected();
    client.connect(bench.at([127, 0, 0, 33])).unwrap();
    client.send(b"check\0").unwrap();
    assert_eq!(heard(&client), b"welcome");
    echoes(&client, b"on the same path");
    assert_eq!(bench.shards[0].stats().sockets.datagrams_received, 1);
}

#[test]
fn a_living_path_is_not_moved_by_a_check_to_another_address() {
    let bench = bench("0.0.0.0:0", 1);
    let client = unconnected();
    client.send_to(b"check\0", bench.at([127, 0, 0, 1])).unwrap();
    assert_eq!(heard(&client), b"welcome");
    client.send_to(b"check\0", bench.at([127, 0, 0, 2])).unwrap();
    bench.until("the second check is counted", || bench.shards[0].stats().sockets.checks_elsewhere == 1);
    client.send_to(b"echo", bench.at([127, 0, 0, 1])).unwrap();
    assert_eq!(heard(&client), b"echo");
    assert_eq!(bench.shards[0].stats().sockets.paths_opened, 1);
}

#[test]
fn a_closed_path_is_gone_and_its_remote_meets_the_listener_again() {
    let bench = bench("127.0.0.1:0", 1);
    let client = bench.client(0);
    bench.shards[0].send(Tell::Close(PathId(0)));
    bench.until("it is closed", || bench.shards[0].stats().sockets.paths == 0);
    client.send(b"check\0").unwrap();
    assert_eq!(heard(&client), b"welcome");
    bench.until("it met the listener twice", || bench.listener.stats().admitted == 2);
}

#[test]
fn stopping_ends_the_threads_and_frees_the_port() {
    let mut bench = bench("127.0.0.1:0", 2);
    let client = bench.client(0);
    bench.listener.stop();
    for shard in &bench.shards {
        shard.stop();
        shard.stop();
        shard.send(Tell::Say(PeerId(1)));
    }
    client.send(b"anyone?").unwrap();
    port::open(bench.at([127, 0, 0, 1])).expect("the port is free");
    assert!(bench.events.try_recv().is_err(), "a stopped shard says nothing");
}

#[test]
fn what_arrives_while_a_batch_goes_out_is_taken_in_before_its_end() {
    let bench = bench("127.0.0.1:0", 1);
    let (_watcher, sender) = (bench.client(0), bench.client(0));
    let (pause, has_begun, go) = pause();
    bench.shards[0].send(Tell::SendMany(PathId(0), 100 * SENDS_BEFORE_LOOK, pause));
    has_begun.recv_timeout(PATIENCE).unwrap();
    sender.send(HOW_MANY_WAIT).unwrap();
    go.send(()).unwrap();
    let Ok(Event::Connected { peer }) = bench.events.recv_timeout(PATIENCE) else { panic!("an answer") };
    assert!(peer.0 > 0, "it was taken in when nothing was left to send");
}

#[test]
fn a_command_that_comes_while_a_batch_goes_out_is_carried_out_after_it() {
    let bench = bench("127.0.0.1:0", 1);
    let _watcher = bench.client(0);
    let (pause, has_begun, go) = pause();
    bench.shards[0].send(Tell::SendMany(PathId(0), 100 * SENDS_BEFORE_LOOK, pause));
    has_begun.recv_timeout(PATIENCE).unwrap();
    bench.shards[0].send(Tell::Say(PeerId(7)));
    go.send(()).unwrap();
    bench.expect(&connected(7));
}

#[test]
fn a_shard_that_sleeps_is_woken_by_what_another_has_for_it() {
    let bench = bench("127.0.0.1:0", 2);
    for _ in 0..200 {
        bench.shards[0].send(Tell::Relay(1));
        bench.expect(&connected(2_000));
        bench.shards[1].send(Tell::Relay(0));
        bench.expect(&connected(2_001));
    }
}

#[test]
fn what_a_busy_shard_has_no_room_for_waits_with_its_sender() {
    let bench = bench("127.0.0.1:0", 2);
    let (go, may_go) = mpsc::channel();
    bench.shards[1].send(Tell::WaitFor(may_go));
    let count = BATCHES_MAX + 50;
    for _ in 0..count {
        bench.shards[0].send(Tell::Relay(1));
    }
    bench.shards[0].send(Tell::Say(PeerId(5)));
    bench.expect(&connected(5)); // who sends does not wait for who is busy
    go.send(()).unwrap();
    let mut left = count;
    bench.until("all of it comes", || {
        // Any turn of the sender's will do.
        bench.shards[0].send(Tell::Say(PeerId(6)));
        while bench.events.recv_timeout(PATIENCE) == Ok(connected(2_000)) {
            left -= 1;
        }
        left == 0
    });
}

#[test]
fn a_shard_that_panicked_says_so_to_the_others() {
    let bench = bench("127.0.0.1:0", 3);
    for shard in [0, 2] {
        bench.shards[shard].send(Tell::Listen);
        bench.shards[shard].send(Tell::Say(PeerId(1)));
        bench.expect(&connected(1)); // it has been told
    }
    bench.shards[1].send(Tell::Panic);
    bench.expect(&connected(3_001));
    bench.expect(&connected(3_001));
    bench.shards[0].send(Tell::Relay(1));
    bench.expect(&connected(2_000)); // and is there again
}
