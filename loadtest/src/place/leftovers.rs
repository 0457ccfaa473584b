//! What a killed run left behind: processes that bear its mark, and folders that bear its name.

use super::scratch::PREFIX;
use anyhow::Context as _;
use rustix::process::{Pid, Signal};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// In the environment of all that is started: whose it is.
pub(super) const MARK: &str = "ASAMBLEA_LOADTEST_OWNER";

/// A run of the tool. The start time tells it apart from a later process with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: u32,
    /// In clock ticks since boot, as `/proc/PID/stat` has it.
    start_ticks: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn this() -> anyhow::Result<Self> {
        let pid = std::process::id();
        let start_ticks = start_ticks(pid).context("this process's start in /proc")?;
        Ok(Self { pid, start_ticks })
    }

    fn is_alive(self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pid, self.start_ticks)
    }
}

impl FromStr for Owner {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (pid, start) = text.split_once('-').ok_or(())?;
        Ok(Self { pid: pid.parse().map_err(|_| ())?, start_ticks: start.parse().map_err(|_| ())? })
    }
}

/// Ends and removes what belongs to runs that are gone, and says so. What cannot be read is someone else's.
pub(crate) fn remove() {
    let processes = processes();
    for &pid in &processes {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    let folders = folders(&std::env::temp_dir());
    for folder in &folders {
        let _ = std::fs::remove_dir_all(folder);
    }
    if !processes.is_empty() || !folders.is_empty() {
        eprintln!(
            "An earlier run was killed; ended {} of its processes and removed {} of its folders.",
            processes.len(),
            folders.len()
        );
    }
}

fn processes() -> Vec<u32> {
    let mark = format!("{MARK}=");
    super::account::all_processes()
        .into_iter()
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|&byte| byte == 0)
                .filter_map(|entry| {
                    std::str::from_utf8(entry).ok()?.strip_prefix(&mark)?.parse::<Owner>().ok()
                })
                .any(|owner| !owner.is_alive())
        })
        .collect()
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let own = rustix::process::geteuid().as_raw();
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let owner = std::str::from_utf8(name.as_bytes())
                .ok()
                .and_then(|name| name.strip_prefix(PREFIX)?.rsplit_once('-')?.0.parse::<Owner>().ok());
            // A link is not followed: this is of the entry itself.
            let is_own = entry.metadata().is_ok_and(|it| it.is_dir() && it.uid() == own);
            is_own && owner.is_some_and(|owner| !owner.is_alive())
        })
        .map(|entry| entry.path())
        .collect()
}

/// Field 22 of `/proc/PID/stat` (proc(5)).
pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    super::account::Stat::parse(&stat).map(|it| it.start_ticks)
}
