//! A temporary folder that is gone with its owner.

use super::{leftovers, signals};
use anyhow::Context as _;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// All of the tool's folders begin so; then comes the [`leftovers::Owner`].
pub(super) const PREFIX: &str = "asamblea-loadtest-";

/// A folder for one server's configuration and log.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A fresh folder that only this user can look into.
    pub(crate) fn new() -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", leftovers::Owner::this()?);
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("making {}", path.display()))?;
        signals::register_folder(&path);
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        signals::forget_folder(&self.0);
    }
}
