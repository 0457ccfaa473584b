//! A server's process with its descendants: what it says, what it costs, its end.

use super::account::{self, CpuTime, IsSignaling, Ledger, MemoryUse};
use super::{leftovers, signals};
use anyhow::{Context as _, anyhow, bail};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What a process gets to end by itself.
const TERM_WAIT: Duration = Duration::from_secs(3);
/// Lines that are remembered: more than servers print before they are ready.
const LINES_MAX: usize = 1_000;
/// What is kept of a line; the rest of it is dropped.
const LINE_BYTES_MAX: u64 = 4_096;
/// What is kept in the log file, so that a server that complains of every packet does not fill the disk.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Lines that are put into an error.
const ERROR_LINES: usize = 12;

/// A child and its descendants; ended when dropped: SIGTERM, then SIGKILL after 3 s.
pub(crate) struct Process {
    inner: Arc<Inner>,
    ledger: Mutex<Ledger>,
    is_signaling: IsSignaling,
}

/// What the signal handler shares.
pub(super) struct Inner {
    name: String,
    pid: u32,
    /// None once it is reaped, from when on its id may be another's.
    child: Mutex<Option<Child>>,
    output: Mutex<Output>,
    changed: Condvar,
}

#[derive(Default)]
struct Output {
    lines: VecDeque<String>,
    /// The leader has ended; it is reaped later.
    has_ended: bool,
    /// Nobody holds the other end of the pipe any more.
    is_closed: bool,
}

impl Process {
    pub(super) fn spawn(mut command: Command, name: &str, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let (reader, writer) = std::io::pipe().context("a pipe for the log")?;
        let errors = writer.try_clone().context("a pipe for the log")?;
        command
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(errors)
            .env(leftovers::MARK, leftovers::Owner::this()?.to_string())
            .process_group(0); // An interrupt at the terminal is the tool's to handle, and the group ends as one.
        let child = spawn_from_nursery(command).with_context(|| format!("{name} does not start"))?;
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            pid: child.id(),
            child: Mutex::new(Some(child)),
            output: Mutex::default(),
            changed: Condvar::new(),
        });
        let process =
            Self { inner: Arc::clone(&inner), ledger: Mutex::default(), is_signaling: |_, _| false };
        signals::register_process(&inner)?;
        let waiter = Arc::clone(&inner);
        std::thread::Builder::new().name("process-end".into()).spawn(move || waiter.await_end())?;
        std::thread::Builder::new().name("process-log".into()).spawn(move || inner.read(reader, file))?;
        Ok(process)
    }

    /// Says which threads carry nothing but signaling.
    pub(crate) fn with_signaling(mut self, is_signaling: IsSignaling) -> Self {
        self.is_signaling = is_signaling;
        self
    }

    /// The leader's id.
    pub(crate) fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// CPU time of the tree since its start.
    pub(crate) fn cpu(&self) -> anyhow::Result<CpuTime> {
        lock(&self.ledger).read(self.inner.pid, self.is_signaling)
    }

    /// Memory of the tree.
    pub(crate) fn memory(&self) -> anyhow::Result<MemoryUse> {
        account::memory(self.inner.pid)
    }

    /// Waits for a line of output in which `find` finds what it looks for.
    ///
    /// # Errors
    /// If the process ends or `limit` passes before; with the last lines.
    pub(crate) fn wait_for<T>(&self, limit: Duration, find: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + limit;
        let mut output = lock(&self.inner.output);
        loop {
            if let Some(found) = output.lines.iter().find_map(|line| find(line)) {
                return Ok(found);
            }
            if output.has_ended && output.is_closed {
                drop(output);
                return Err(self.explain("ended before it was ready"));
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                drop(output);
                return Err(self.explain(&format!("was not ready after {} s", limit.as_secs())));
            };
            let result = self.inner.changed.wait_timeout(output, left);
            output = result.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// An error that says what happened to this process, with its last lines.
    pub(crate) fn explain(&self, what: &str) -> anyhow::Error {
        let output = lock(&self.inner.output);
        let skipped = output.lines.len().saturating_sub(ERROR_LINES);
        let last: Vec<&str> = output.lines.iter().skip(skipped).map(String::as_str).collect();
        let last = if last.is_empty() { "(nothing)".to_owned() } else { last.join("\n  ") };
        anyhow!("{} {what}; the last that it printed:\n  {last}", self.inner.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.inner.end();
    }
}

impl Inner {
    /// Ends the leader and its descendants. A second call waits for the first and does nothing.
    pub(super) fn end(&self) {
        let mut slot = lock(&self.child);
        let Some(mut child) = slot.take() else { return };
        let members: Vec<(u32, Option<u64>)> =
            account::tree(self.pid).into_iter().map(|pid| (pid, leftovers::start_ticks(pid))).collect();
        self.signal(&members, Signal::TERM);
        let deadline = Instant::now() + TERM_WAIT;
        let mut output = lock(&self.output);
        while !output.has_ended {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            output = self.changed.wait_timeout(output, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(output);
        self.signal(&members, Signal::KILL);
        let _ = child.wait();
    }

    /// To the group and to those who left it. The leader is not reaped yet, so its id is still its own; of the
    /// others, those are spared whose id is another's by now.
    fn signal(&self, members: &[(u32, Option<u64>)], signal: Signal) {
        let to_pid = |pid: u32| i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let Some(group) = to_pid(self.pid) {
            let _ = rustix::process::kill_process_group(group, signal);
        }
        for &(pid, start) in members {
            if let Some(pid) = to_pid(pid).filter(|_| start.is_some() && leftovers::start_ticks(pid) == start)
            {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }

    fn await_end(&self) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(rustix::process::waitid(WaitId::Pid(pid), options), Err(Errno::INTR)) {}
        lock(&self.output).has_ended = true;
        self.changed.notify_all();
    }

    fn read(&self, pipe: std::io::PipeReader, mut file: File) {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        let mut left = LOG_BYTES_MAX;
        while let Ok(true) = read_line(&mut reader, &mut line) {
            if let Some(rest) = left.checked_sub(line.len() as u64 + 1) {
                left = rest;
                // A full disk must not stop the server, which would wait for its pipe.
                let _ = file.write_all(&line).and_then(|()| file.write_all(b"\n"));
            }
            let mut output = lock(&self.output);
            if output.lines.len() == LINES_MAX {
                output.lines.pop_front();
            }
            output.lines.push_back(String::from_utf8_lossy(&line).into_owned());
            drop(output);
            self.changed.notify_all();
        }
        lock(&self.output).is_closed = true;
        self.changed.notify_all();
    }
}

/// Reads a line without its end, at most [`LINE_BYTES_MAX`] of it; false at the end.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    if reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == LINE_BYTES_MAX {
        reader.skip_until(b'\n')?;
    }
    Ok(true)
}

type Birth = (Command, Sender<std::io::Result<Child>>);

/// Starts a child from a thread that lives as long as the tool: the kernel ends children when the *thread* that
/// started them ends (PR_SET_PDEATHSIG(2const)).
fn spawn_from_nursery(command: Command) -> anyhow::Result<Child> {
    static NURSERY: OnceLock<Sender<Birth>> = OnceLock::new();
    let nursery = NURSERY.get_or_init(|| {
        let (sender, births) = channel::<Birth>();
        std::thread::spawn(move || {
            for (mut command, reply) in births {
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, child) = channel();
    if nursery.send((command, reply)).is_err() {
        bail!("the thread that starts processes has ended");
    }
    Ok(child.recv()??)
}

/// A panic elsewhere must not keep a process from being ended.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_long_lines_and_goes_on_with_the_next() {
        let limit = LINE_BYTES_MAX as usize;
        let exact = "e".repeat(limit);
        let text = format!("first\n{}\n{exact}\n\nlast", "x".repeat(limit + 10));
        let mut reader = BufReader::with_capacity(64, text.as_bytes());
        let mut line = Vec::new();
        let mut lines = Vec::new();
        while read_line(&mut reader, &mut line).expect("memory can be read") {
            lines.push(String::from_utf8(line.clone()).expect("text"));
        }
        assert_eq!(lines, ["first", &"x".repeat(limit), &exact, "", "last"]);
    }
}
