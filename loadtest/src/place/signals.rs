//! Ctrl-C and its kin: what was started is ended first.
//!
//! `Drop` does this when the tool ends in order or panics; a signal's default action runs no destructor.

use super::process::Inner;
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Default)]
struct Registry {
    processes: Vec<Weak<Inner>>,
    folders: Vec<PathBuf>,
    /// Nothing is started any more.
    is_ending: bool,
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { processes: Vec::new(), folders: Vec::new(), is_ending: false });

/// From now on SIGINT, SIGTERM and SIGHUP end all servers, remove all folders and then the tool, which exits with
/// 128 and the signal's number, as shells have it.
pub(crate) fn end_on_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("signals")?;
    let signals = {
        let _context = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .map(|kind| signal(kind).map(|stream| (kind, stream)))
    };
    let [interrupt, terminate, hangup] = signals;
    let ((int, mut interrupt), (term, mut terminate), (hup, mut hangup)) = (interrupt?, terminate?, hangup?);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let kind = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => int,
                _ = terminate.recv() => term,
                _ = hangup.recv() => hup,
            }
        });
        end_everything();
        std::process::exit(128 + kind.as_raw_value());
    })?;
    Ok(())
}

/// Ends all processes, all at the same time, and removes all folders; nothing is started any more.
fn end_everything() {
    let (processes, folders) = {
        let mut registry = registry();
        registry.is_ending = true;
        (std::mem::take(&mut registry.processes), std::mem::take(&mut registry.folders))
    };
    std::thread::scope(|scope| {
        for process in processes.iter().filter_map(Weak::upgrade) {
            scope.spawn(move || process.end());
        }
    });
    for folder in folders {
        let _ = std::fs::remove_dir_all(folder);
    }
}

pub(super) fn register_process(process: &Arc<Inner>) -> anyhow::Result<()> {
    let mut registry = registry();
    if registry.is_ending {
        bail!("the tool is ending");
    }
    registry.processes.retain(|it| it.strong_count() > 0);
    registry.processes.push(Arc::downgrade(process));
    Ok(())
}

pub(super) fn register_folder(folder: &Path) {
    registry().folders.push(folder.to_owned());
}

pub(super) fn forget_folder(folder: &Path) {
    registry().folders.retain(|it| it != folder);
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}
