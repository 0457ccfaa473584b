//! A join storm: people come into a running room at random times, whether those before them are in or not.
//!
//! Each join is a thread of its own from the moment it is due: signaling as the server has it, ICE, DTLS, then the
//! connection is handed to the driver, which counts its media as everybody's. So a server that is slow keeps nobody
//! from coming (an open loop), and how long one waits counts from when they were due. The threads give way to the
//! driver: what its handshakes cost must not look like the server's lateness.

use super::row::{DRAIN_NS, LEAD_NS, Meeting, cpu, room_name};
use super::stage::Stage;
use super::window::Window;
use crate::bot::{Bot, BotConfig};
use crate::driver::{Door, Driver, yield_to_driver};
use crate::peers::{FeedId, Negotiate, Running, Session};
use crate::scenario::{Limits, Row, Scenario};
use crate::traffic::source::splitmix;
use anyhow::Context;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long after the last was due everyone may take until they see something.
const PATIENCE: Duration = Duration::from_secs(30);

/// A joining thread's stack: a session description of a hundred kilobytes lies on the heap.
const STACK_BYTES: usize = 512 * 1024;

/// What one waits for between being due and seeing a picture.
pub(crate) const STEPS: [&str; 7] = [
    "the tester's own thread",
    "being in the room",
    "the server's description",
    "a path",
    "keys",
    "a packet",
    "a picture",
];

/// What a storm came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Storm {
    /// How many joined, and how many of them got as far as a connection.
    pub(crate) joins: u32,
    /// See `joins`.
    pub(crate) joined: u32,
    /// How many saw a whole key frame of everyone.
    pub(crate) seen: u32,
    /// From due to the end of the first key frame, in ms: median, 99th percentile, maximum of those who saw one.
    pub(crate) wait_ms: [f64; 3],
    /// What of it each of [`STEPS`] took, in ms: median and 99th percentile of those who saw a picture.
    pub(crate) steps_ms: [[f64; 2]; STEPS.len()],
    /// From the first that was due to the last that saw a picture.
    pub(crate) seconds: f64,
    /// CPU time of all server processes meanwhile in ns: all, and what of it the same packets take without joins.
    pub(crate) cpu_ns: u64,
    /// See `cpu_ns`.
    pub(crate) forwarding_cpu_ns: u64,
    /// Busy share of the server's core meanwhile.
    pub(crate) server_core_busy: f64,
    /// 99th percentile of latency for those who were there before, in ms: before, meanwhile and afterwards.
    pub(crate) room_p99_ms: [f64; 3],
    /// What they lost meanwhile.
    pub(crate) room_loss: f64,
    /// How late the driver sent meanwhile, 99th percentile in ms.
    pub(crate) slip_ms: f64,
    /// Why joins failed: the first reason.
    pub(crate) failure: Option<String>,
}

impl Storm {
    /// Joins that one core of the server would take each second, forwarding to those who are in counted.
    pub(crate) fn joins_per_core(&self) -> f64 {
        f64::from(self.joins) / (self.cpu_ns.max(1) as f64 / 1e9)
    }

    /// As [`Storm::joins_per_core`], forwarding not counted.
    pub(crate) fn net_joins_per_core(&self) -> f64 {
        let joining_ns = self.cpu_ns.saturating_sub(self.forwarding_cpu_ns).max(1);
        f64::from(self.joins) / (joining_ns as f64 / 1e9)
    }

    /// By how much the room's latency grew.
    pub(crate) fn slowdown(&self) -> f64 {
        self.room_p99_ms[1] / self.room_p99_ms[0]
    }

    /// Why it does not count.
    pub(super) fn voids(&self, limits: &Limits) -> Vec<String> {
        let mut why = Vec::new();
        if self.seen < self.joins {
            let reason = self.failure.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
            why.push(format!("{} of {} who joined saw nothing{reason}", self.joins - self.seen, self.joins));
        }
        if self.slip_ms > limits.send_slip_ms {
            why.push(format!("packets leave {:.2} ms late (p99) while people join", self.slip_ms));
        }
        if self.room_loss > limits.loss {
            why.push(format!("{:.3} % of packets are lost while people join", self.room_loss * 100.0));
        }
        why
    }
}

/// When each of `count` is due, counted from the first moment: a Poisson process of this rate.
fn dues_ns(count: u32, per_second: f64, seed: u64) -> Vec<u64> {
    let mut random = splitmix(seed);
    let mut at_ns = 0.0;
    let next = |_| {
        random = splitmix(random);
        // In (0, 1], so that its logarithm is finite.
        let uniform = ((random >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        at_ns += -uniform.ln() / per_second * 1e9;
        at_ns as u64
    };
    (0..count).map(next).collect()
}

/// Lets people join; the window before must be over.
///
/// # Errors
/// What kept it from coming to a result.
pub(super) fn run(
    scenario: &Scenario,
    row: &Row,
    stage: &Stage,
    server: &dyn Running,
    driver: &mut Driver,
    meeting: &mut Meeting,
) -> anyhow::Result<Storm> {
    let residents = stage.bots;
    let before = driver.ledger.summary(|_| 0, true, 0).latency_ns[1];
    driver.ledger.count_below(residents, stage.watchers());
    let config = driver.bot_config();
    driver.bots.extend((0..row.joins as usize).map(|join| Bot::new(config.clone(), residents + join)));

    let from_ns = driver.now_ns() + LEAD_NS;
    let dues: Vec<u64> =
        dues_ns(row.joins, row.joins_per_second, scenario.seed).iter().map(|due| from_ns + due).collect();
    let end_ns = dues.last().copied().unwrap_or(from_ns) + PATIENCE.as_nanos() as u64;
    let feeds: Vec<FeedId> = meeting.feeds.iter().flatten().cloned().collect();
    let gate = Gate {
        config,
        server,
        door: driver.door(),
        feeds: &feeds,
        residents,
        failed: AtomicU32::new(0),
        log: Mutex::default(),
    };
    let wanted = feeds.len();
    let window = std::thread::scope(|scope| -> anyhow::Result<Window> {
        let (gate, dues) = (&gate, &dues);
        std::thread::Builder::new().name("joins-clock".into()).spawn_scoped(scope, move || {
            for (join, due_ns) in dues.iter().copied().enumerate() {
                let now_ns = gate.config.now().ns;
                std::thread::sleep(Duration::from_nanos(due_ns.saturating_sub(now_ns)));
                let builder = std::thread::Builder::new().name("join".into()).stack_size(STACK_BYTES);
                if let Err(error) = builder.spawn_scoped(scope, move || gate.admit(join)) {
                    gate.fail(&error.into());
                }
            }
        })?;
        let is_done = |driver: &mut Driver| {
            let failed = gate.failed.load(Ordering::Relaxed) as usize;
            failed * wanted + flows_seen(driver, residents) >= dues.len() * wanted
        };
        Window::pass_until(driver, from_ns, end_ns, is_done, || cpu(server))
    })?;
    driver.run_until(window.to_ns + DRAIN_NS, |_| false)?;
    let due = |stream: u32| window.due(driver, stream);
    let meanwhile = driver.ledger.summary(due, scenario.traffic.layers == 1, stage.flows());
    let log = gate.log.into_inner().unwrap_or_else(PoisonError::into_inner);
    meeting.sessions.extend(log.sessions);
    let waits = waits_ns(driver, residents, wanted, &dues);
    let steps_ms = steps_ms(driver, residents, &log.begun, &dues);

    // With everyone in: what a packet costs now, and how late the room is.
    let from_ns = driver.now_ns() + LEAD_NS;
    let calm = Window::pass(driver, from_ns, scenario.measure_s, || cpu(server))?;
    driver.run_until(calm.to_ns + DRAIN_NS, |_| false)?;
    let afterwards = driver.ledger.summary(|_| 0, true, 0).latency_ns[1];
    driver.ledger.count_below(usize::MAX, stage.watchers());

    let each_ns = calm.cpu_ns[0] as f64 / calm.media_datagrams.max(1) as f64;
    let ms = |ns: u64| ns as f64 / 1e6;
    Ok(Storm {
        joins: row.joins,
        joined: log.begun.len() as u32,
        seen: waits.len() as u32,
        wait_ms: [0.5, 0.99, 1.0].map(|share| ms(quantile(&waits, share))),
        steps_ms,
        seconds: window.seconds,
        cpu_ns: window.cpu_ns[0],
        forwarding_cpu_ns: (window.media_datagrams as f64 * each_ns) as u64,
        server_core_busy: window.server_core_busy,
        room_p99_ms: [before, meanwhile.latency_ns[1], afterwards].map(ms),
        room_loss: 1.0 - meanwhile.received as f64 / meanwhile.expected.max(1) as f64,
        slip_ms: ms(window.slip_ns[0]),
        failure: log.failure,
    })
}

fn flows_seen(driver: &Driver, residents: usize) -> usize {
    driver.ledger.first_decodable_ns().filter(|(bot, _, _)| *bot >= residents).count()
}

/// See [`Storm::steps_ms`].
fn steps_ms(driver: &Driver, residents: usize, begun: &[Begun], dues: &[u64]) -> [[f64; 2]; STEPS.len()] {
    let mut pictures: HashMap<usize, u64> = HashMap::new();
    for (bot, _, at_ns) in driver.ledger.first_decodable_ns() {
        let last_ns = pictures.entry(bot).or_default();
        *last_ns = at_ns.max(*last_ns);
    }
    let ends = |it: &Begun| -> Option<[u64; STEPS.len() + 1]> {
        let number = residents + it.join;
        let progress = driver.bots[number].connections().last()?.progress();
        Some([
            dues[it.join],
            it.begun_ns,
            it.entered_ns?,
            progress.described_ns?,
            progress.path_ns?,
            progress.keys_ns?,
            progress.media_ns?,
            *pictures.get(&number)?,
        ])
    };
    let ends: Vec<_> = begun.iter().filter_map(ends).collect();
    std::array::from_fn(|step| {
        let took = sorted(ends.iter().map(|it| it[step + 1].saturating_sub(it[step])).collect());
        [0.5, 0.99].map(|share| quantile(&took, share) as f64 / 1e6)
    })
}

/// How long each took who saw all that they had asked for, ascending.
fn waits_ns(driver: &Driver, residents: usize, wanted: usize, dues: &[u64]) -> Vec<u64> {
    let mut seen: Vec<(usize, u64)> = vec![(0, 0); dues.len()];
    for (bot, _, at_ns) in driver.ledger.first_decodable_ns() {
        if let Some((count, last_ns)) = bot.checked_sub(residents).and_then(|join| seen.get_mut(join)) {
            *count += 1;
            *last_ns = at_ns.max(*last_ns);
        }
    }
    let of_all = seen.iter().zip(dues).filter(|((count, _), _)| *count >= wanted);
    sorted(of_all.map(|((_, at_ns), due_ns)| at_ns.saturating_sub(*due_ns)).collect())
}

fn sorted(mut values: Vec<u64>) -> Vec<u64> {
    values.sort_unstable();
    values
}

/// The smallest value that this share of ascending values does not exceed; 0 where there are none.
fn quantile(sorted: &[u64], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// Where people come in.
struct Gate<'a> {
    config: BotConfig,
    server: &'a dyn Running,
    door: Door,
    feeds: &'a [FeedId],
    residents: usize,
    failed: AtomicU32,
    log: Mutex<Log>,
}

/// What joining threads leave behind.
#[derive(Default)]
struct Log {
    sessions: Vec<(usize, Box<dyn Session>)>,
    /// Those who have a connection.
    begun: Vec<Begun>,
    failure: Option<String>,
}

/// How one came to a connection.
struct Begun {
    join: usize,
    begun_ns: u64,
    /// When they were in the room: descriptions are exchanged from there on.
    entered_ns: Option<u64>,
}

/// A bot whose first description is noted.
struct Noted {
    bot: Bot,
    config: BotConfig,
    entered_ns: Option<u64>,
}

impl Noted {
    fn note(&mut self) -> &mut Bot {
        self.entered_ns.get_or_insert(self.config.now().ns);
        &mut self.bot
    }
}

impl Negotiate for Noted {
    fn create_offer(&mut self, receive_audio: usize, receive_video: usize) -> anyhow::Result<String> {
        self.note().create_offer(receive_audio, receive_video)
    }

    fn accept_answer(&mut self, answer: &str) -> anyhow::Result<()> {
        self.bot.accept_answer(answer)
    }

    fn answer_offer(&mut self, offer: &str) -> anyhow::Result<String> {
        self.note().answer_offer(offer)
    }
}

impl Gate<'_> {
    /// One join, from its first word to a connection that the driver has.
    fn admit(&self, join: usize) {
        yield_to_driver();
        let begun_ns = self.config.now().ns;
        match self.join(self.residents + join) {
            Ok((session, entered_ns)) => {
                let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
                log.sessions.push((self.residents + join, session));
                log.begun.push(Begun { join, begun_ns, entered_ns });
            }
            Err(error) => self.fail(&error),
        }
    }

    fn join(&self, number: usize) -> anyhow::Result<(Box<dyn Session>, Option<u64>)> {
        let mut session = self.server.session().context("a session")?;
        let bot = Bot::new(self.config.clone(), number);
        let mut noted = Noted { bot, config: self.config.clone(), entered_ns: None };
        session.subscribe(&room_name(0), self.feeds, &mut noted).context("subscribing")?;
        let Noted { mut bot, entered_ns, .. } = noted;
        bot.connect(PATIENCE)?;
        self.door.enter(number, bot)?;
        Ok((session, entered_ns))
    }

    fn fail(&self, error: &anyhow::Error) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.failure.get_or_insert_with(|| format!("{error:#}"));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One in which everything went well.
    pub(crate) fn storm() -> Storm {
        Storm {
            joins: 500,
            joined: 500,
            seen: 500,
            wait_ms: [20.0, 45.0, 60.0],
            steps_ms: [[1.0, 2.0], [3.0, 6.0], [0.5, 1.0], [2.0, 4.0], [5.0, 9.0], [0.1, 0.2], [0.0, 0.0]],
            seconds: 20.0,
            cpu_ns: 2_000_000_000,
            forwarding_cpu_ns: 1_000_000_000,
            server_core_busy: 0.1,
            room_p99_ms: [0.5, 0.6, 0.7],
            room_loss: 0.0,
            slip_ms: 0.2,
            failure: None,
        }
    }

    #[test]
    fn people_come_at_the_rate_and_not_at_equal_distances() {
        let dues = dues_ns(20_000, 25.0, 7);
        assert!(dues.is_sorted());
        let seconds = *dues.last().unwrap() as f64 / 1e9;
        assert!((seconds - 800.0).abs() < 25.0, "{seconds} s for 20,000 at 25 a second");
        // Of exponential gaps the share exp(-2) is longer than twice the mean.
        let long = dues.windows(2).filter(|pair| pair[1] - pair[0] > 80_000_000).count();
        assert!((long as f64 / 20_000.0 - (-2.0_f64).exp()).abs() < 0.01, "{long}");
        assert_eq!(dues, dues_ns(20_000, 25.0, 7));
        assert_ne!(dues, dues_ns(20_000, 25.0, 8));
    }

    #[test]
    fn a_quantile_is_a_value_that_was_seen() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| quantile(&hundred, share)), [50, 99, 100]);
        assert_eq!(quantile(&[7], 0.99), 7);
        assert_eq!(quantile(&[], 0.5), 0);
    }

    #[test]
    fn what_joins_cost_is_given_with_and_without_forwarding() {
        let storm = storm();
        assert_eq!((storm.joins_per_core(), storm.net_joins_per_core()), (250.0, 500.0));
        assert!((storm.slowdown() - 1.2).abs() < 1e-9);
        assert!(storm.voids(&Limits::default()).is_empty());
    }

    #[test]
    fn a_storm_in_which_someone_saw_nothing_does_not_count() {
        let failure = Some("the server was full".to_owned());
        let storm = Storm { seen: 497, failure, slip_ms: 2.0, room_loss: 0.01, ..storm() };
        let why = storm.voids(&Limits::default());
        assert_eq!(why.len(), 3);
        assert_eq!(why[0], "3 of 500 who joined saw nothing (the server was full)");
    }
}
