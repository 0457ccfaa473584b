//! The window of a run: what is counted in it, with a server and without one alike.

use super::result::CPU_PARTS;
use super::{DRIVER_CORE, SERVER_CORE};
use crate::driver::{CoreClock, Driver};
use crate::place::thread_cpu_ns;
use anyhow::Context;
use std::time::Instant;

/// Nanoseconds of a second.
pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// What was seen in the window. Fields that a [`super::result::Sample`] has too are described there.
pub(super) struct Window {
    pub(super) from_ns: u64,
    /// Its end, on the driver's clock.
    pub(super) to_ns: u64,
    pub(super) seconds: f64,
    pub(super) cpu_ns: [u64; CPU_PARTS],
    pub(super) driver_own: f64,
    pub(super) driver_busy: f64,
    pub(super) server_core_busy: f64,
    pub(super) slip_ns: [u64; 2],
    pub(super) unsent: u64,
    /// Media that came to bots meanwhile, whenever they were due.
    pub(super) media_datagrams: u64,
}

impl Window {
    /// Drives on until the window is over that begins at `from_ns` and lasts so many seconds. `cpu_ns` reads what has
    /// been used so far by what is measured.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn pass(
        driver: &mut Driver,
        from_ns: u64,
        measure_s: u32,
        cpu_ns: impl Fn() -> anyhow::Result<[u64; CPU_PARTS]>,
    ) -> anyhow::Result<Self> {
        let to_ns = Self::end_ns(from_ns, measure_s);
        Self::pass_until(driver, from_ns, to_ns, |_| false, cpu_ns)
    }

    /// When a window is over that begins at `from_ns` and lasts so many seconds.
    pub(super) fn end_ns(from_ns: u64, measure_s: u32) -> u64 {
        from_ns + u64::from(measure_s) * SECOND_NS
    }

    /// As [`Window::pass`], but it ends as soon as `is_done` says so, if that is before `to_ns`.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn pass_until(
        driver: &mut Driver,
        from_ns: u64,
        to_ns: u64,
        is_done: impl FnMut(&mut Driver) -> bool,
        cpu_ns: impl Fn() -> anyhow::Result<[u64; CPU_PARTS]>,
    ) -> anyhow::Result<Self> {
        driver.ledger.open_window(from_ns, to_ns);
        driver.run_until(from_ns, |_| false)?;
        driver.reset_slip();
        let cores = (CoreClock::start(DRIVER_CORE)?, CoreClock::start(SERVER_CORE)?);
        let own_before = own_cpu_ns()?;
        let media_before = driver.counters().media_datagrams;
        let (cpu_before, clock) = (cpu_ns()?, Instant::now());
        let to_ns = if driver.run_until(to_ns, is_done)? { driver.now_ns() } else { to_ns };
        driver.ledger.close_window(to_ns);
        let (cpu_after, seconds) = (cpu_ns()?, clock.elapsed().as_secs_f64());
        let (driver_busy, server_core_busy) = (cores.0.busy()?, cores.1.busy()?);
        let driver_own = (own_cpu_ns()? - own_before) as f64 / 1e9 / seconds;
        let (slip_p99_ns, slip_max_ns, unsent) = driver.slip_ns();
        Ok(Self {
            from_ns,
            to_ns,
            seconds,
            cpu_ns: std::array::from_fn(|part| cpu_after[part].saturating_sub(cpu_before[part])),
            driver_own,
            driver_busy,
            server_core_busy,
            slip_ns: [slip_p99_ns, slip_max_ns],
            unsent,
            media_datagrams: driver.counters().media_datagrams - media_before,
        })
    }

    /// How many packets of a stream were due in it.
    pub(super) fn due(&self, driver: &Driver, stream: u32) -> u32 {
        driver.sources.plan(stream as usize).schedule.due_within(self.from_ns, self.to_ns).1
    }
}

/// CPU time of the calling thread, which drives.
fn own_cpu_ns() -> anyhow::Result<u64> {
    thread_cpu_ns("thread-self")?.context("this thread's CPU time")
}
