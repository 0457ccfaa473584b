//! What processes cost, from the kernel's own books under `/proc` (proc(5)).

use anyhow::{Context as _, bail};
use std::collections::{BTreeMap, BTreeSet};

/// Of the ticks in which `/proc/PID/stat` counts: USER_HZ, 100 on every Linux ABI that Rust has.
const NS_PER_TICK: u64 = 10_000_000;

/// CPU time since the start, of every task of every process in a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// On a core, by the scheduler's accounting: exact.
    pub(crate) total_ns: u64,
    /// In user space and in the kernel, in steps of 10 ms for each thread: for the ratio of the two.
    pub(crate) user_ns: u64,
    /// See `user_ns`.
    pub(crate) system_ns: u64,
    /// What of `total_ns` the threads took that only carry signaling, where the server names its threads.
    pub(crate) signaling_ns: u64,
    /// What of it the threads took that forward, one by one, where they have a number: [`shard_of`].
    pub(crate) shards_ns: [u64; SHARDS],
}

/// Forwarding threads that are told apart: as many as cores that one meeting is tried on.
pub(crate) const SHARDS: usize = 2;

/// The number of a forwarding thread in its name; `None` for any other.
fn shard_of(thread: &str) -> Option<usize> {
    thread.split_once("-shard-")?.1.parse().ok().filter(|shard| *shard < SHARDS)
}

/// Memory of a tree of processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    /// Resident, shared pages counted in every process.
    pub(crate) rss_bytes: u64,
    /// Resident, a shared page divided among those who share it.
    pub(crate) pss_bytes: u64,
    /// Resident and shared with nobody.
    pub(crate) private_bytes: u64,
}

/// Whether a thread, by the name of its process and its own, only carries signaling.
pub(crate) type IsSignaling = fn(process: &str, thread: &str) -> bool;

/// The tasks of a tree as they were last seen, so that those that ended still count.
#[derive(Default)]
pub(super) struct Ledger {
    tasks: BTreeMap<Task, Spent>,
}

/// The start time tells a task apart from a later one with the same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Task {
    id: u32,
    start_ticks: u64,
}

struct Spent {
    run_ns: u64,
    user_ticks: u64,
    system_ticks: u64,
    is_signaling: bool,
    shard: Option<usize>,
}

impl Ledger {
    /// Reads the books of the tree under `root` once more. What a task took between the last reading and its end is
    /// not seen.
    pub(super) fn read(&mut self, root: u32, is_signaling: IsSignaling) -> anyhow::Result<CpuTime> {
        let mut count = 0;
        for pid in tree(root) {
            let process = read_stat(&format!("/proc/{pid}/stat"));
            let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for id in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
                // It may have ended meanwhile.
                let Some(stat) = read_stat(&format!("/proc/{pid}/task/{id}/stat")) else { continue };
                let Some(run_ns) = thread_cpu_ns(&format!("{pid}/task/{id}"))? else { continue };
                let process = process.as_ref().map_or("", |it| &it.name);
                let spent = Spent {
                    run_ns,
                    user_ticks: stat.user_ticks,
                    system_ticks: stat.system_ticks,
                    is_signaling: is_signaling(process, &stat.name),
                    shard: shard_of(&stat.name),
                };
                self.tasks.insert(Task { id, start_ticks: stat.start_ticks }, spent);
                count += 1;
            }
        }
        if count == 0 {
            bail!("process {root} has ended, or this kernel keeps no schedstat (CONFIG_SCHED_INFO)");
        }
        Ok(self.sum())
    }

    fn sum(&self) -> CpuTime {
        self.tasks.values().fold(CpuTime::default(), |sum, task| CpuTime {
            total_ns: sum.total_ns + task.run_ns,
            user_ns: sum.user_ns + task.user_ticks * NS_PER_TICK,
            system_ns: sum.system_ns + task.system_ticks * NS_PER_TICK,
            signaling_ns: sum.signaling_ns + if task.is_signaling { task.run_ns } else { 0 },
            shards_ns: std::array::from_fn(|shard| {
                sum.shards_ns[shard] + if task.shard == Some(shard) { task.run_ns } else { 0 }
            }),
        })
    }
}

/// Memory of the tree under `root`.
pub(super) fn memory(root: u32) -> anyhow::Result<MemoryUse> {
    let mut sum = MemoryUse::default();
    for pid in tree(root) {
        // It may have ended meanwhile.
        let Ok(rollup) = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        let one = parse_rollup(&rollup);
        sum.rss_bytes += one.rss_bytes;
        sum.pss_bytes += one.pss_bytes;
        sum.private_bytes += one.private_bytes;
    }
    if sum == MemoryUse::default() {
        bail!("process {root} has ended, or /proc/{root}/smaps_rollup cannot be read");
    }
    Ok(sum)
}

/// A process with its descendants, itself first.
pub(super) fn tree(root: u32) -> Vec<u32> {
    let parents: BTreeMap<u32, u32> = all_processes()
        .into_iter()
        .filter_map(|pid| Some((pid, read_stat(&format!("/proc/{pid}/stat"))?.parent)))
        .collect();
    let mut found = vec![root];
    let mut known = BTreeSet::from([root]);
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        for (&pid, _) in parents.iter().filter(|&(pid, up)| *up == parent && !known.contains(pid)) {
            found.push(pid);
        }
        known.extend(&found);
        next += 1;
    }
    found
}

pub(super) fn all_processes() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// What is needed of `/proc/PID/stat` and `/proc/PID/task/TID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) name: String,
    pub(super) parent: u32,
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
    pub(super) start_ticks: u64,
}

impl Stat {
    /// The name stands in parentheses and may hold anything, parentheses too: the last one ends it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (before, rest) = text.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        // From field 3 on.
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            name,
            parent: u32::try_from(number(4)?).ok()?,
            user_ticks: number(14)?,
            system_ticks: number(15)?,
            start_ticks: number(22)?,
        })
    }
}

fn read_stat(path: &str) -> Option<Stat> {
    Stat::parse(&std::fs::read_to_string(path).ok()?)
}

/// CPU time of a thread in ns, as the scheduler booked it; `thread` is its folder under `/proc`. `None` when it has ended,
/// or the kernel keeps no such books (`CONFIG_SCHED_INFO`).
///
/// # Errors
/// When it is written otherwise than proc(5) says.
pub(crate) fn thread_cpu_ns(thread: &str) -> anyhow::Result<Option<u64>> {
    let path = format!("/proc/{thread}/schedstat");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    parse_schedstat(&text).context(path).map(Some)
}

/// Time on a core is the first of three figures.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn parse_rollup(text: &str) -> MemoryUse {
    let bytes = |name: &str| {
        text.lines()
            .filter_map(|line| {
                line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
            })
            .sum::<u64>()
            * 1024
    };
    MemoryUse {
        rss_bytes: bytes("Rss"),
        pss_bytes: bytes("Pss"),
        private_bytes: bytes("Private_Clean") + bytes("Private_Dirty"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_name_with_parentheses() {
        let text = "42 (a) b (c)) S 7 42 42 0 -1 4194304 1 0 0 0 11 12 0 0 20 0 1 0 555 0 0";
        let stat = Stat::parse(text).expect("a line as the kernel writes it");
        let expected =
            Stat { name: "a) b (c)".into(), parent: 7, user_ticks: 11, system_ticks: 12, start_ticks: 555 };
        assert_eq!(stat, expected);
        assert_eq!(Stat::parse("42 (short) S 7"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn a_forwarding_thread_is_known_by_its_number() {
        assert_eq!(shard_of("media-shard-0"), Some(0));
        assert_eq!(shard_of("media-shard-1"), Some(1));
        for other in ["media-shard-2", "media-shard-", "media-listener", "tokio-rt-worker"] {
            assert_eq!(shard_of(other), None, "{other}");
        }
    }

    #[test]
    fn adds_up_what_is_private() {
        let text = "55d-7ff ---p 00000000 00:00 0 [rollup]\nRss:    2048 kB\nPss:    1024 kB\nPss_Dirty:   7 kB\n\
                    Private_Clean:   100 kB\nPrivate_Dirty:   28 kB\n";
        let expected =
            MemoryUse { rss_bytes: 2048 * 1024, pss_bytes: 1024 * 1024, private_bytes: 128 * 1024 };
        assert_eq!(parse_rollup(text), expected);
    }

    #[test]
    fn counts_tasks_that_ended_and_tells_threads_apart() {
        let mut ledger = Ledger::default();
        let pid = std::process::id();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let busy = std::thread::Builder::new()
            .name("busy".into())
            .spawn(move || {
                // Until it is told to end, however little of the core it gets.
                while ended.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                    std::hint::spin_loop();
                }
            })
            .expect("a thread");
        let is_busy: IsSignaling = |_, thread| thread == "busy";
        // It spins until its time is seen in the books.
        let with = loop {
            let time = ledger.read(pid, is_busy).expect("this process's books");
            if time.signaling_ns > 20_000_000 {
                break time;
            }
            std::thread::yield_now();
        };
        assert!(with.total_ns >= with.signaling_ns);
        drop(end);
        busy.join().expect("it ends");
        let after = ledger.read(pid, is_busy).expect("this process's books");
        assert!(after.signaling_ns >= with.signaling_ns, "{after:?} after {with:?}");
        assert!(after.total_ns >= with.total_ns, "{after:?} after {with:?}");
        assert!(memory(pid).expect("this process's memory").private_bytes > 0);
    }
}
