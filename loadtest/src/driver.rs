//! The shell around the bots: one thread, one poll, a timer that is exact to some microseconds.
//!
//! It sends what is due before it looks at what arrived, after each socket, so that a fan-out that comes back does
//! not delay what is to be sent next. How late packets leave is measured, since a driver that is too slow would look
//! like a server that is. When packets arrive is what the kernel says, not when the driver came to read them.

use crate::bot::connection::{Counters, Desk, Now};
use crate::bot::{Bot, BotConfig};
use crate::peers::Negotiate as _;
use crate::scenario::Transport;
use crate::traffic::ledger::Ledger;
use crate::traffic::source::Sources;
use anyhow::Context;
use asamblea_sfu_io::batch::{COALESCED_BYTES_MAX, Inbox};
use hdrhistogram::Histogram;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime};

/// How often connections are asked whether something is due: ICE, DTLS, reports, feedback, requests.
const TICK_NS: u64 = 10_000_000;

/// Messages that one receive takes from a socket, each of them a run where the kernel coalesces.
const MESSAGES: usize = 16;

/// Receives from one socket before the others get their turn.
const RECEIVES_MAX: usize = 16;

/// Longest late sending that is told apart, in ns.
const SLIP_NS_MAX: u64 = 60_000_000_000;

const TIMER: Token = Token(usize::MAX);
const DOOR: Token = Token(usize::MAX - 1);

/// Connections of one bot.
const LINKS_MAX: usize = 2;

/// See the module.
pub(crate) struct Driver {
    config: BotConfig,
    transport: Transport,
    pub(crate) bots: Vec<Bot>,
    pub(crate) ledger: Ledger,
    pub(crate) sources: Sources,
    registered: Vec<usize>,
    poll: Poll,
    events: Events,
    timer: OwnedFd,
    timer_at_ns: u64,
    clock: Clock,
    inbox: Inbox,
    outbox: Vec<Vec<u8>>,
    payload: Vec<u8>,
    tick_at_ns: u64,
    is_sending: bool,
    /// Sockets that had more than one turn's worth waiting.
    backlog: Vec<Token>,
    /// How late packets left, of those due since it was last reset.
    slip_ns: Histogram<u64>,
    unsent: u64,
    /// Bots that others have connected, with their numbers; and the other end for those who hand them over.
    newcomers: Receiver<Newcomer>,
    newcomers_in: Sender<Newcomer>,
    waker: Arc<Waker>,
}

type Newcomer = (usize, Bot);

/// Where bots come in that were connected elsewhere.
#[derive(Clone)]
pub(crate) struct Door {
    sender: Sender<Newcomer>,
    waker: Arc<Waker>,
}

impl Door {
    /// Hands a connected bot over, to be the one with this number.
    ///
    /// # Errors
    /// When there is no driver any more.
    pub(crate) fn enter(&self, number: usize, bot: Bot) -> anyhow::Result<()> {
        self.sender.send((number, bot)).ok().context("the driver has ended")?;
        Ok(self.waker.wake()?)
    }
}

impl Driver {
    /// A driver for bots that are made by its caller.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn new(
        config: BotConfig,
        transport: Transport,
        sources: Sources,
        ledger: Ledger,
    ) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let (newcomers_in, newcomers) = channel();
        let waker = Arc::new(Waker::new(poll.registry(), DOOR)?);
        let clock = Clock::read(&config);
        let message_bytes = if transport.receive_offload { COALESCED_BYTES_MAX } else { 2_048 };
        Ok(Self {
            config,
            transport,
            bots: Vec::new(),
            ledger,
            sources,
            registered: Vec::new(),
            poll,
            events: Events::with_capacity(1_024),
            timer,
            timer_at_ns: u64::MAX,
            clock,
            inbox: Inbox::new(MESSAGES, message_bytes),
            outbox: Vec::new(),
            payload: Vec::new(),
            tick_at_ns: 0,
            is_sending: false,
            backlog: Vec::new(),
            slip_ns: Histogram::new_with_bounds(1, SLIP_NS_MAX, 3).context("a histogram")?,
            unsent: 0,
            newcomers,
            newcomers_in,
            waker,
        })
    }

    /// The way in for bots that others have connected.
    pub(crate) fn door(&self) -> Door {
        Door { sender: self.newcomers_in.clone(), waker: Arc::clone(&self.waker) }
    }

    /// What its bots are made with.
    pub(crate) fn bot_config(&self) -> BotConfig {
        self.config.clone()
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now_ns(&self) -> u64 {
        self.config.now().ns
    }

    /// From now on what is due is sent; the streams begin at `start_ns`.
    pub(crate) fn start_sending(&mut self, start_ns: u64) {
        self.sources.start(start_ns);
        self.is_sending = true;
    }

    /// Runs for so long.
    ///
    /// # Errors
    /// As for [`Driver::run_until`].
    pub(crate) fn run_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let end_ns = self.now_ns() + time.as_nanos() as u64;
        self.run_until(end_ns, |_| false).map(|_| ())
    }

    /// Hands a bot its server's answer.
    ///
    /// # Errors
    /// What the bot makes of it.
    pub(crate) fn accept_answer(&mut self, bot: usize, answer: &str) -> anyhow::Result<()> {
        self.bots[bot].accept_answer(answer)
    }

    /// Forgets how late packets left so far.
    pub(crate) fn reset_slip(&mut self) {
        self.slip_ns.reset();
        self.unsent = 0;
    }

    /// How late packets left since the reset, 99th percentile and longest in ns, and how many did not leave.
    pub(crate) fn slip_ns(&self) -> (u64, u64, u64) {
        (self.slip_ns.value_at_quantile(0.99), self.slip_ns.max(), self.unsent)
    }

    /// All bots' counters, added up.
    pub(crate) fn counters(&self) -> Counters {
        self.bots.iter().fold(Counters::default(), |sum, bot| sum + bot.counters())
    }

    /// Runs until `is_done` says so, which is asked at every tick, or the time has passed; says which.
    ///
    /// # Errors
    /// What the kernel said, or why a bot lost its connection.
    pub(crate) fn run_until(
        &mut self,
        end_ns: u64,
        mut is_done: impl FnMut(&mut Self) -> bool,
    ) -> anyhow::Result<bool> {
        self.register()?;
        loop {
            let now_ns = self.now_ns();
            self.send_due()?;
            if now_ns >= self.tick_at_ns {
                self.handle_tick()?;
                self.tick_at_ns = now_ns + TICK_NS;
                if is_done(self) {
                    return Ok(true);
                }
            }
            self.wait(end_ns)?;
            if self.now_ns() >= end_ns {
                return Ok(false);
            }
        }
    }

    /// Watches sockets that were opened since the last time.
    fn register(&mut self) -> anyhow::Result<()> {
        self.registered.resize(self.bots.len(), 0);
        (0..self.bots.len()).try_for_each(|number| self.register_bot(number))
    }

    fn register_bot(&mut self, number: usize) -> anyhow::Result<()> {
        let known = self.registered[number];
        for (at, link) in self.bots[number].links().iter_mut().enumerate().skip(known) {
            let token = Token(number * LINKS_MAX + at);
            self.poll.registry().register(&mut link.socket, token, Interest::READABLE)?;
            // What came before is not told of any more.
            self.backlog.push(token);
            self.registered[number] = at + 1;
        }
        Ok(())
    }

    fn let_in(&mut self) -> anyhow::Result<()> {
        while let Ok((number, bot)) = self.newcomers.try_recv() {
            self.bots[number] = bot;
            self.register_bot(number)?;
        }
        Ok(())
    }

    fn wait(&mut self, end_ns: u64) -> anyhow::Result<()> {
        let due_ns = if self.is_sending { self.sources.next_due_ns() } else { None };
        let wake_ns = self.tick_at_ns.min(end_ns).min(due_ns.unwrap_or(u64::MAX));
        let timeout = if self.backlog.is_empty() { None } else { Some(Duration::ZERO) };
        if timeout.is_none() {
            self.set_timer(wake_ns)?;
        }
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        let mut ready = std::mem::take(&mut self.backlog);
        ready.extend(self.events.iter().map(|event| event.token()));
        for token in ready {
            match token {
                TIMER => continue,
                DOOR => {
                    self.let_in()?;
                    continue;
                }
                _ => {}
            }
            self.receive(token)?;
            self.send_due()?;
        }
        Ok(())
    }

    fn set_timer(&mut self, wake_ns: u64) -> anyhow::Result<()> {
        let now_ns = self.now_ns();
        if self.timer_at_ns == wake_ns && wake_ns > now_ns {
            return Ok(());
        }
        self.timer_at_ns = wake_ns;
        // Zero would switch it off.
        let rest = Duration::from_nanos(wake_ns.saturating_sub(now_ns).max(1));
        let value = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    fn receive(&mut self, token: Token) -> anyhow::Result<()> {
        let (number, at) = (token.0 / LINKS_MAX, token.0 % LINKS_MAX);
        let link = &mut self.bots[number].links()[at];
        for _ in 0..RECEIVES_MAX {
            let count = match self.inbox.receive(link.socket.as_fd()) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // An ICMP message about an earlier send: the server is not there, which a missing answer says better.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error).context("receiving"),
            };
            let now = self.config.now();
            let clock = self.clock;
            let mut desk = Desk {
                ledger: &mut self.ledger,
                sources: &mut self.sources,
                open_one_in: self.transport.open_one_in,
                loss: (self.transport.loss * f64::from(u32::MAX)) as u32,
                outbox: &mut self.outbox,
            };
            for index in 0..count {
                let message = self.inbox.message(index);
                let Some(from) = message.remote else { continue };
                let ns = message.arrived.map_or(now.ns, |arrived| clock.run_ns(arrived).min(now.ns));
                let now = Now { ns, ..now };
                for datagram in message.data.chunks(message.segment_bytes) {
                    link.handle_datagram(now, from, datagram, &mut desk)?;
                }
            }
            if count < self.inbox.capacity() {
                return Ok(());
            }
        }
        self.backlog.push(token);
        Ok(())
    }

    fn send_due(&mut self) -> anyhow::Result<()> {
        if !self.is_sending {
            return Ok(());
        }
        loop {
            let now_ns = self.now_ns();
            self.payload.clear();
            let Some(packet) = self.sources.poll_packet(now_ns, &mut self.payload) else { return Ok(()) };
            let publisher = self.sources.plan(packet.stream).publisher;
            let Some(link) = self.bots[publisher].links().first_mut() else { continue };
            let sealed = link.connection.send(packet.stream, packet.timestamp, packet.marker, &self.payload);
            let is_sent = sealed.is_some_and(|sealed| link.send(&sealed));
            self.unsent += u64::from(!is_sent);
            self.slip_ns.saturating_record(now_ns - packet.due_ns);
        }
    }

    fn handle_tick(&mut self) -> anyhow::Result<()> {
        self.clock = Clock::read(&self.config);
        for number in 0..self.bots.len() {
            let now = self.config.now();
            let mut desk = Desk {
                ledger: &mut self.ledger,
                sources: &mut self.sources,
                open_one_in: self.transport.open_one_in,
                loss: 0,
                outbox: &mut self.outbox,
            };
            for link in self.bots[number].links() {
                link.handle_timeout(now, &mut desk)?;
            }
            // A thousand of them take longer than the next packet may wait.
            if number % 32 == 31 {
                self.send_due()?;
            }
        }
        Ok(())
    }

    /// Says goodbye for all bots.
    pub(crate) fn close(&mut self) {
        let now = self.config.now();
        for bot in &mut self.bots {
            for link in bot.links() {
                link.connection.close(now);
                // The server is ended anyway.
                let _ = link.flush();
            }
        }
    }
}

/// The machine's clock, by which the kernel says when something arrived, beside the run's own.
#[derive(Clone, Copy)]
struct Clock {
    /// Since 1970, when the run began, if the machine's clock had gone as the run's since.
    epoch: Duration,
}

impl Clock {
    /// Read anew at each tick: someone may set the machine's clock.
    fn read(config: &BotConfig) -> Self {
        let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self { epoch: since_1970.saturating_sub(Duration::from_nanos(config.now().ns)) }
    }

    /// A moment on the machine's clock as nanoseconds since the run began.
    fn run_ns(&self, moment: Duration) -> u64 {
        moment.saturating_sub(self.epoch).as_nanos() as u64
    }
}

/// Share of a core that was busy, from the kernel's own books.
pub(crate) struct CoreClock {
    core: usize,
    busy: u64,
    total: u64,
}

impl CoreClock {
    /// Starts to watch a core.
    ///
    /// # Errors
    /// When `/proc/stat` has no such core.
    pub(crate) fn start(core: usize) -> anyhow::Result<Self> {
        let (busy, total) = read_core(&std::fs::read_to_string("/proc/stat")?, core)?;
        Ok(Self { core, busy, total })
    }

    /// The busy share since the start, 0 to 1.
    ///
    /// # Errors
    /// As for [`CoreClock::start`].
    pub(crate) fn busy(&self) -> anyhow::Result<f64> {
        let (busy, total) = read_core(&std::fs::read_to_string("/proc/stat")?, self.core)?;
        Ok((busy - self.busy) as f64 / (total - self.total).max(1) as f64)
    }
}

/// Busy and all ticks of a core.
fn read_core(stat: &str, core: usize) -> anyhow::Result<(u64, u64)> {
    let name = format!("cpu{core}");
    let line = stat.lines().find(|line| line.split(' ').next() == Some(&name));
    let line = line.with_context(|| format!("/proc/stat has no {name}"))?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map_while(|word| word.parse().ok()).collect();
    anyhow::ensure!(ticks.len() >= 5, "/proc/stat tells too little of {name}");
    // user nice system idle iowait irq softirq steal; guest time is counted in user.
    let total: u64 = ticks.iter().take(8).sum();
    Ok((total - ticks[3] - ticks[4], total))
}

/// How much the threads beside the driver give way to it, which has packets to send in time.
const NICE_BESIDE: i32 = 10;

/// Makes the calling thread one that runs when the driver does not.
pub(crate) fn yield_to_driver() {
    // Where the kernel refuses, the driver's slip says so.
    let _ = rustix::process::nice(NICE_BESIDE);
}

/// Puts the calling thread, and those that it starts, on one core.
///
/// # Errors
/// When there is no such core for this process.
pub(crate) fn pin(core: usize) -> anyhow::Result<()> {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).with_context(|| format!("core {core} cannot be had"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_stamps_is_found_on_the_runs_clock() {
        let clock = Clock { epoch: Duration::from_secs(1_700_000_000) };
        assert_eq!(clock.run_ns(Duration::new(1_700_000_002, 5)), 2_000_000_005);
        assert_eq!(clock.run_ns(Duration::from_secs(1_699_999_999)), 0, "before the run began");
    }

    #[test]
    fn a_cores_ticks_are_found_by_its_whole_name() {
        let stat =
            "cpu  9 9 9 9 9 9 9 9 9 9\ncpu10 1 1 1 1 1 1 1 1 1 1\ncpu1 10 20 30 400 50 6 7 8 0 0\nintr 1\n";
        assert_eq!(read_core(stat, 1).unwrap(), (81, 531));
        assert!(read_core(stat, 2).is_err());
    }
}
