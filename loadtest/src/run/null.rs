//! A run without a server: what the driver and the kernel cost alone, and how exact it is.
//!
//! Bots have preset keys instead of a handshake, and a thread on the servers' core hands each packet on as it came,
//! one system call for each subscriber: no demultiplexing, no cryptography, no rewriting. Its CPU is not a floor for
//! servers that send in batches, but it says what a packet costs that is merely sent.

use super::SERVER_CORE;
use super::result::Sample;
use super::stage::Stage;
use super::window::{SECOND_NS, Window};
use crate::bot::secure::{Identity, Srtp};
use crate::driver::pin;
use crate::scenario::{Row, Scenario};
use crate::traffic::Kind;
use anyhow::Context;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
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
pub(crate) fn run(scenario: &Scenario, row: &Row) -> anyhow::Result<Sample> {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let stage = Stage::new(scenario, row);
    let epoch = Instant::now();
    let mut driver = stage.driver(scenario, (here, here), epoch)?;
    let socket = UdpSocket::bind((here, 0)).context("the reflector's socket")?;
    let at = socket.local_addr()?;
    let mut routes: HashMap<SocketAddr, Vec<SocketAddr>> = HashMap::new();
    let identity = Identity::generate(scenario.transport.cipher)?;
    for publisher in &stage.publishers {
        driver.bots[publisher.bot].offer(&publisher.lines, 0, 0)?;
    }
    for subscriber in &stage.subscribers {
        let lines = subscriber.of.iter().flat_map(|publisher| &stage.publishers[*publisher].lines);
        let (audio, video): (Vec<_>, Vec<_>) = lines.partition(|(kind, _)| *kind == Kind::Audio);
        driver.bots[subscriber.bot].offer(&[], audio.len(), video.len())?;
    }
    for bot in &mut driver.bots {
        for link in bot.links() {
            link.connection.preset(Srtp::preset(&identity, SECRET)?, at)?;
            link.flush()?;
        }
    }
    let address = |driver: &mut crate::driver::Driver, bot: usize| -> anyhow::Result<SocketAddr> {
        Ok(driver.bots[bot].links().first().context("an open bot")?.socket.local_addr()?)
    };
    for subscriber in &stage.subscribers {
        let to = address(&mut driver, subscriber.bot)?;
        for publisher in &subscriber.of {
            let from = address(&mut driver, stage.publishers[*publisher].bot)?;
            routes.entry(from).or_default().push(to);
        }
    }
    let reflector = Reflector::start(socket, routes)?;

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

/// The thread that hands packets on; ended when dropped.
struct Reflector {
    is_over: Arc<AtomicBool>,
    thread_id: i32,
    thread: Option<JoinHandle<()>>,
}

impl Reflector {
    fn start(socket: UdpSocket, routes: HashMap<SocketAddr, Vec<SocketAddr>>) -> anyhow::Result<Self> {
        socket.set_read_timeout(Some(LOOK_EVERY))?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (tell, told) = std::sync::mpsc::channel();
        let over = Arc::clone(&is_over);
        let thread = std::thread::Builder::new().name("reflector".into()).spawn(move || {
            // It may run anywhere if the core cannot be had; the row then says so by its figures.
            let _ = pin(SERVER_CORE);
            let _ = tell.send(rustix::thread::gettid().as_raw_nonzero().get());
            let mut buffer = [0; 2_048];
            while !over.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                // RTP only: reports of bots are for a server.
                if length < 2 || (192..=223).contains(&buffer[1]) {
                    continue;
                }
                for to in routes.get(&from).into_iter().flatten() {
                    // A full buffer is a lost packet, which the books show.
                    let _ = socket.send_to(&buffer[..length], to);
                }
            }
        })?;
        let thread_id = told.recv().context("the reflector starts")?;
        Ok(Self { is_over, thread_id, thread: Some(thread) })
    }

    fn cpu_ns(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/self/task/{}/schedstat", self.thread_id);
        let text = std::fs::read_to_string(path).context("the reflector's CPU time")?;
        text.split(' ').next().and_then(|word| word.parse().ok()).context("the reflector's CPU time")
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
