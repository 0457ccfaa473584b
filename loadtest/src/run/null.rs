//! A run without a server: what nobody can avoid who forwards, and how exact the driver is.
//!
//! Bots have preset keys instead of a handshake. A thread where servers run opens what comes and keeps media, as repair
//! and feedback want it, seals each packet for each subscriber and hands on what came: evenly paced media packet by packet,
//! frames as soon as they are whole, each in one send. Each bot has a connected socket. There is no demultiplexing, no
//! rewriting, no reading of reports, no estimate of anything and no pace, so that its CPU is the floor for whoever opens, keeps,
//! seals and sends this traffic over these sockets.

use super::SERVER_CORE;
use super::result::Sample;
use super::stage::Stage;
use super::window::{SECOND_NS, Window};
use crate::bot::secure::{Identity, Srtp};
use crate::driver::pin;
use crate::peers::check::PORTS;
use crate::place::{Place, thread_cpu_ns};
use crate::scenario::{Pacing, Row, Scenario};
use crate::traffic::Kind;
use anyhow::Context;
use asamblea_sfu_io::batch::{self, Inbox, SEGMENTS_PER_SEND_MAX};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Before the window: there is nothing to warm up but caches.
const LEAD_NS: u64 = SECOND_NS;

/// The secret of the preset keys: nothing here leaves the machine.
const SECRET: u8 = 0x5a;

/// How often the reflector looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs a row.
///
/// # Errors
/// What the kernel said.
pub(crate) fn run(scenario: &Scenario, row: &Row, place: &Place) -> anyhow::Result<Sample> {
    // Runs are of equal packets; who cannot pad what it hands on is given such.
    let stage = Stage::new(scenario, row).with_equal_sizes();
    let epoch = Instant::now();
    let mut driver = stage.driver(scenario, (place.driver_address(), place.server_address()), epoch)?;
    let at = SocketAddr::new(place.server_address(), *PORTS.start());
    let identity = Identity::generate(scenario.transport.cipher)?;
    for publisher in &stage.publishers {
        driver.bots[publisher.bot].offer(&publisher.lines, 0, 0)?;
    }
    for subscriber in &stage.subscribers {
        let lines = subscriber.of.iter().flat_map(|publisher| &stage.publishers[*publisher].lines);
        let (audio, video): (Vec<_>, Vec<_>) = lines.partition(|(kind, _)| *kind == Kind::Audio);
        driver.bots[subscriber.bot].offer(&[], audio.len(), video.len())?;
    }
    let mut routes = Vec::new();
    for bot in &mut driver.bots {
        // Who is there and neither sends nor watches has nothing open; a description has a line at least.
        if bot.links().is_empty() {
            bot.offer(&[], 0, 1)?;
        }
        let link = bot.links().first_mut().context("an open bot")?;
        link.connection.preset(Srtp::preset(&identity, SECRET)?, at)?;
        link.flush()?;
        routes.push(Route { of: link.socket.local_addr()?, to: Vec::new() });
    }
    for subscriber in &stage.subscribers {
        for publisher in &subscriber.of {
            routes[stage.publishers[*publisher].bot].to.push(subscriber.bot);
        }
    }
    let is_in_frames = scenario.traffic.of(row).pace == Pacing::Bursts;
    let reflector = Reflector::start(place, at, routes, is_in_frames)?;

    let start_ns = driver.now_ns();
    driver.start_sending(start_ns);
    let from_ns = start_ns + LEAD_NS;
    let window =
        Window::pass(&mut driver, from_ns, scenario.measure_s, || Ok([reflector.cpu_ns()?, 0, 0, 0, 0, 0]))?;
    driver.run_until(window.to_ns + SECOND_NS / 10, |_| false)?;
    let due = |stream: u32| window.due(&driver, stream);
    let counters = driver.counters();
    Ok(Sample {
        seconds: window.seconds,
        summary: driver.ledger.summary(due, true, stage.flows_of_all_layers()),
        cpu_ns: window.cpu_ns,
        driver_own: window.driver_own,
        driver_busy: window.driver_busy,
        server_core_busy: window.server_core_busy,
        slip_ns: window.slip_ns,
        unsent: window.unsent,
        memory_bytes: [0, 0],
        connections: stage.bots as u32,
        with_feedback: 0,
        cipher: Some(scenario.transport.cipher),
        first_frame_ms: [f64::NAN; 2],
        key_frames_asked: 0,
        resends_answered: 0,
        resends_asked: counters.resends_asked,
        unstamped: counters.unstamped,
        undecryptable: counters.undecryptable,
        contradictions: 0,
        storm: None,
        witness: None,
    })
}

/// One bot: its address, and whom what it sends goes to.
struct Route {
    of: SocketAddr,
    to: Vec<usize>,
}

/// The thread that hands packets on; ended when dropped.
struct Reflector {
    is_over: Arc<AtomicBool>,
    thread_id: i32,
    thread: Option<JoinHandle<()>>,
}

impl Reflector {
    fn start(place: &Place, at: SocketAddr, routes: Vec<Route>, is_in_frames: bool) -> anyhow::Result<Self> {
        // Sockets belong to where the thread is that opens them; it need not come back.
        let ends = std::thread::scope(|scope| {
            let open = scope.spawn(move || {
                place.move_in()?;
                routes.into_iter().map(|route| End::open(at, route)).collect::<anyhow::Result<Vec<End>>>()
            });
            open.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the reflector's sockets")))
        })?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("reflector".into()).spawn(move || {
            // It may run anywhere if the core cannot be had; the row then says so by its figures.
            let _ = pin(SERVER_CORE);
            let _ = tell.send(rustix::thread::gettid().as_raw_nonzero().get());
            // Without it everything is lost, which the books show.
            let Ok(mut mirror) = Mirror::new(ends, is_in_frames) else { return };
            while !over.load(Ordering::Relaxed) && mirror.turn().is_ok() {}
        })?;
        let thread_id = told.recv().context("the reflector starts")?;
        Ok(Self { is_over, thread_id, thread: Some(thread) })
    }

    fn cpu_ns(&self) -> anyhow::Result<u64> {
        thread_cpu_ns(&format!("self/task/{}", self.thread_id))?.context("the reflector's CPU time")
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Nothing is left to do about a thread that panicked.
            let _ = thread.join();
        }
    }
}

/// One bot's end of its path.
struct End {
    socket: UdpSocket,
    key: LessSafeKey,
    to: Vec<usize>,
    /// Packets of the frame that is not whole yet, one behind the other, and the length of each.
    frame: Vec<u8>,
    packet_bytes: usize,
    /// The last datagram that was opened.
    kept: Vec<u8>,
}

impl End {
    fn open(at: SocketAddr, Route { of, to }: Route) -> anyhow::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(at), socket2::Type::DGRAM, None)?;
        socket.set_reuse_port(true)?;
        socket.bind(&at.into()).context("the reflector's socket")?;
        socket.connect(&of.into())?;
        socket.set_nonblocking(true)?;
        let key = UnboundKey::new(&AES_128_GCM, &[SECRET; 16]).ok().context("a key")?;
        let key = LessSafeKey::new(key);
        Ok(Self { socket: socket.into(), key, to, frame: Vec::new(), packet_bytes: 0, kept: Vec::new() })
    }

    /// Keeps a datagram and opens it, which costs the same with a key that does not fit: the copy is of no use then, and
    /// the datagram is handed on as it came.
    fn open_copy(&mut self, datagram: &[u8]) {
        self.kept.clear();
        self.kept.extend_from_slice(datagram);
        let nonce = Nonce::assume_unique_for_key([SECRET; 12]);
        let _ = self.key.open_in_place(nonce, Aad::empty(), &mut self.kept);
    }
}

/// See [`Reflector`].
struct Mirror {
    poll: Poll,
    events: Events,
    inbox: Inbox,
    ends: Vec<End>,
    sealed: Vec<u8>,
    is_in_frames: bool,
}

impl Mirror {
    fn new(ends: Vec<End>, is_in_frames: bool) -> std::io::Result<Self> {
        let poll = Poll::new()?;
        for (number, end) in ends.iter().enumerate() {
            let token = Token(number);
            poll.registry().register(&mut SourceFd(&end.socket.as_raw_fd()), token, Interest::READABLE)?;
        }
        let (events, inbox) = (Events::with_capacity(1_024), Inbox::new(16, 2_048));
        Ok(Self { poll, events, inbox, ends, sealed: Vec::new(), is_in_frames })
    }

    /// Waits for packets, not for long, and hands on what is whole.
    fn turn(&mut self) -> std::io::Result<()> {
        match self.poll.poll(&mut self.events, Some(LOOK_EVERY)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for number in ready {
            // Until nothing waits any more, or the last send met nobody.
            while let Ok(count) = self.inbox.receive(self.ends[number].socket.as_fd()) {
                for index in 0..count {
                    self.take(number, index);
                }
                if count < self.inbox.capacity() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, number: usize, index: usize) {
        let packet = &*self.inbox.message(index).data;
        self.ends[number].open_copy(packet);
        // RTP only: reports of bots are for a server. The bit in front of the payload type ends a frame.
        let Some(kind) = packet.get(1).filter(|kind| !(192..=223).contains(*kind)) else { return };
        let is_whole = !self.is_in_frames || kind & 0x80 != 0;
        let end = &self.ends[number];
        // Another stream's packet, by its SSRC, or one that does not fit into a run.
        if !end.frame.is_empty()
            && (end.packet_bytes != packet.len() || end.frame.get(8..12) != packet.get(8..12))
        {
            self.hand_on(number);
        }
        let packet = &*self.inbox.message(index).data;
        let end = &mut self.ends[number];
        end.packet_bytes = packet.len();
        end.frame.extend_from_slice(packet);
        if is_whole || end.frame.len() / end.packet_bytes >= SEGMENTS_PER_SEND_MAX {
            self.hand_on(number);
        }
    }

    fn hand_on(&mut self, number: usize) {
        let (frame, to) =
            (std::mem::take(&mut self.ends[number].frame), std::mem::take(&mut self.ends[number].to));
        let each = self.ends[number].packet_bytes;
        for subscriber in &to {
            let end = &self.ends[*subscriber];
            // Thrown away, since bots have the publisher's keys; it costs the same.
            self.sealed.clear();
            self.sealed.extend_from_slice(&frame);
            for packet in self.sealed.chunks_mut(each) {
                let nonce = Nonce::assume_unique_for_key([SECRET; 12]);
                let _ = end.key.seal_in_place_separate_tag(nonce, Aad::empty(), packet);
            }
            let run = (frame.len() > each).then_some(each as u16);
            // A full buffer is a lost packet, which the books show.
            let _ = batch::send(end.socket.as_fd(), &frame, run);
        }
        let end = &mut self.ends[number];
        (end.frame, end.to) = (frame, to);
        end.frame.clear();
    }
}
