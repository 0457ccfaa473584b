//! Where servers under test run: loopback, or a network namespace of the tool's own.
//!
//! Some servers offer no candidates on loopback, and loopback is not what packets cross in life. So the tool moves
//! itself into a fresh network namespace first ([`enter`]) and makes a second one for the servers, with a veth pair
//! between the two. Neither has a way out: nothing that is sent here can leave the machine. Both are gone with the
//! processes in them, however those end; no name is left in `/run/netns`.
//!
//! ```text
//! the tool's namespace                    the servers' namespace
//! bots ── bots0 10.99.0.2 ══ veth pair ══ 10.99.0.1 bots0 ── Janus, mediasoup, ours
//! ```
//!
//! Everything that is started is ended: by `Drop`, on signals ([`end_on_signals`]), by the kernel if the tool is
//! killed, and what escapes all of these is found by [`leftovers`] at the next start.

mod account;
pub(crate) mod leftovers;
mod process;
mod scratch;
mod signals;

pub(crate) use account::{SHARDS, thread_cpu_ns};
pub(crate) use process::Process;
pub(crate) use scratch::Scratch;
pub(crate) use signals::end_on_signals;

use crate::run::DRIVER_CORE;
use anyhow::{Context as _, bail};
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Says to the tool's second self that it is where it wants to be, by its process id, which `exec` keeps.
const INSIDE: &str = "ASAMBLEA_LOADTEST_INSIDE";

/// Both ends of the veth pair are called so, each in its own namespace.
const INTERFACE: &str = "bots0";
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const DRIVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const PREFIX_BITS: u8 = 24;
/// Addresses that bots' signaling comes from, in turn, as people are not all behind one: a server may let only so many
/// in from one at a time.
const HOMES: u8 = 64;
/// The first of them: this and the following.
const FIRST_HOME: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 1, 1), Ipv4Addr::new(10, 99, 0, 101)];
/// The kernel takes a second at most, on a machine that is not busy.
const UP_LIMIT: Duration = Duration::from_secs(10);

/// Programs that make namespaces and pin processes, each with Debian's package that has it.
const PROGRAMS: [(&str, &str); 6] = [
    ("unshare", "util-linux"),
    ("chrt", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("taskset", "util-linux"),
    ("ip", "iproute2"),
];

/// Runs the tool again in a network namespace of its own, with the same arguments; returns once it is there.
///
/// Called first in `main`, before there are threads, when a run needs [`Place::namespace`]; there is no way to the
/// network afterwards, so what has to be installed is installed before.
pub(crate) fn enter() -> anyhow::Result<()> {
    if is_inside() {
        return Ok(());
    }
    require_programs()?;
    let flags = allowed_flags()?;
    let program = std::env::current_exe().context("where this program is")?;
    let error = Command::new("unshare")
        .args(flags)
        .arg("--")
        .args(priority())
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, std::process::id().to_string())
        .exec();
    Err(error).context("unshare does not start")
}

fn is_inside() -> bool {
    std::env::var(INSIDE).is_ok_and(|owner| owner == std::process::id().to_string())
}

fn require_programs() -> anyhow::Result<()> {
    let folders: Vec<_> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let is_there = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
    for (program, package) in PROGRAMS {
        if !is_there(program) {
            bail!("`{program}` is missing; on Debian: apt-get install {package}");
        }
    }
    Ok(())
}

/// What makes the tool's first thread, which drives the bots, run before everything else on its core; no thread and no
/// server that it starts inherits that. Nothing where the kernel refuses, and results say so.
fn priority() -> &'static [&'static str] {
    let words = &["chrt", "--fifo", "--reset-on-fork", "1"];
    let output = Command::new(words[0]).args(&words[1..]).arg("true").output();
    if output.is_ok_and(|output| output.status.success()) { words } else { &[] }
}

/// Whether the calling thread has such a priority.
pub(crate) fn has_priority() -> bool {
    std::fs::read_to_string("/proc/thread-self/stat").is_ok_and(|stat| is_first_in_first_out(&stat))
}

/// Whether the policy in such a line is `SCHED_FIFO`, which is 1: proc_pid_stat(5) counts it as the 41st field, and those
/// behind the name in parentheses begin with the third.
fn is_first_in_first_out(stat: &str) -> bool {
    stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(41 - 3)) == Some("1")
}

/// As root, else through a user namespace, which most kernels let everyone make.
fn allowed_flags() -> anyhow::Result<&'static [&'static str]> {
    let mut refusals = String::new();
    for flags in [&["--net"][..], &["--net", "--map-root-user"]] {
        let output = Command::new("unshare").args(flags).args(["--", "true"]).output().context("unshare")?;
        if output.status.success() {
            return Ok(flags);
        }
        refusals += &format!("\n  unshare {}: {}", flags.join(" "), text(&output.stderr));
    }
    bail!(
        "servers run in a network namespace, and this user may not make one:{refusals}\nRun as root, or allow user \
         namespaces (sysctl kernel.unprivileged_userns_clone=1, or \
         kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu); in a container they need CAP_SYS_ADMIN."
    )
}

/// Where a row runs.
pub(crate) struct Place {
    namespace: Option<Namespace>,
}

impl Place {
    /// Servers listen on loopback. Needs nothing, but some servers offer no candidates there.
    pub(crate) fn loopback() -> anyhow::Result<Self> {
        leftovers::remove();
        require_programs()?;
        Ok(Self { namespace: None })
    }

    /// Servers run in a second namespace behind a veth pair.
    ///
    /// # Errors
    /// Before [`enter`], while another such place exists, and where the kernel refuses.
    pub(crate) fn namespace() -> anyhow::Result<Self> {
        if !is_inside() {
            bail!("the tool is not in a network namespace of its own: `place::enter` comes first");
        }
        leftovers::remove();
        Ok(Self { namespace: Some(Namespace::new()?) })
    }

    /// Address that servers should announce and bots should send to.
    pub(crate) fn server_address(&self) -> IpAddr {
        IpAddr::V4(if self.namespace.is_some() { SERVER } else { Ipv4Addr::LOCALHOST })
    }

    /// Address that bots should send from.
    pub(crate) fn driver_address(&self) -> IpAddr {
        IpAddr::V4(if self.namespace.is_some() { DRIVER } else { Ipv4Addr::LOCALHOST })
    }

    /// Addresses that bots' signaling may come from.
    pub(crate) fn homes(&self) -> Vec<IpAddr> {
        homes(FIRST_HOME[usize::from(self.namespace.is_some())]).collect()
    }

    /// Moves the calling thread to where servers run.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn move_in(&self) -> anyhow::Result<()> {
        let Some(namespace) = &self.namespace else { return Ok(()) };
        let path = format!("/proc/{}/ns/net", namespace.holder.id());
        let there = std::fs::File::open(path).context("the servers' namespace")?;
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(there.as_fd(), kind)
            .context("moving to the servers' namespace")
    }

    /// Runs a command in this place, pinned to `core` with all its descendants. What it prints is kept in `log`.
    pub(crate) fn spawn(&self, core: usize, command: Command, log: &Path) -> anyhow::Result<Process> {
        let mut line: Vec<OsString> = Vec::new();
        if let Some(namespace) = &self.namespace {
            line.extend(["nsenter", "--target"].map(OsString::from));
            line.extend([namespace.holder.id().to_string(), "--net".into(), "--".into()].map(OsString::from));
        }
        // The kernel ends it if the tool is killed.
        line.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(OsString::from));
        line.extend(["taskset", "--cpu-list", &core.to_string()].map(OsString::from));
        line.push(command.get_program().into());
        line.extend(command.get_args().map(OsString::from));
        let mut whole = Command::new(&line[0]);
        whole.args(&line[1..]);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => whole.env(name, value),
                None => whole.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            whole.current_dir(folder);
        }
        let name = Path::new(command.get_program()).file_name().unwrap_or_default();
        Process::spawn(whole, &name.to_string_lossy(), log)
    }
}

fn homes(first: Ipv4Addr) -> impl Iterator<Item = IpAddr> {
    let [a, b, c, d] = first.octets();
    (0..HOMES).map(move |number| IpAddr::V4(Ipv4Addr::new(a, b, c, d + number)))
}

/// The servers' namespace, which lives as long as a process is in it.
struct Namespace {
    /// Waits for the end of its input, which comes with the end of the tool, however that happens.
    holder: Child,
}

/// Cores that deliver what arrives at network devices which are made from now on in a namespace, as a mask in hexadecimal
/// ("Receive packet steering", Documentation/networking/scaling.rst of Linux; since 6.3 there is a default for each
/// namespace).
const DELIVERY: &str = "/proc/sys/net/core/rps_default_mask";

/// Has packets to bots delivered on the driver's core, as people's own machines do it, and not on the sender's, which
/// is what the kernel does on a veth pair otherwise. Where it cannot, results say so.
fn deliver_on(core: usize) {
    let _ = std::fs::write(DELIVERY, format!("{:x}", 1 << core));
}

/// Whether packets to bots are delivered elsewhere than on the sender's core.
pub(crate) fn delivers_apart() -> bool {
    std::fs::read_to_string(DELIVERY)
        .is_ok_and(|mask| mask.chars().any(|digit| matches!(digit, '1'..='9' | 'a'..='f')))
}

impl Namespace {
    fn new() -> anyhow::Result<Self> {
        deliver_on(DRIVER_CORE);
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "echo made && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0) // An interrupt at the terminal is the tool's to handle.
            .spawn()
            .context("unshare")?;
        let mut said = String::new();
        let stdout = holder.stdout.take().context("the holder's output")?;
        let namespace = Self { holder };
        BufReader::new(stdout).read_line(&mut said).context("the holder's output")?;
        if said.trim() != "made" {
            bail!("the servers' network namespace could not be made");
        }
        let id = namespace.holder.id();
        batch(
            Command::new("ip"),
            &format!(
                "link set lo up\nlink add {INTERFACE} type veth peer name {INTERFACE} netns {id}\n\
                 link set {INTERFACE} addrgenmode none\naddress add {DRIVER}/{PREFIX_BITS} dev {INTERFACE}\n\
                 link set {INTERFACE} up\n{}",
                homes(FIRST_HOME[1])
                    .map(|it| format!("address add {it}/{PREFIX_BITS} dev {INTERFACE}\n"))
                    .collect::<String>()
            ),
        )?;
        batch(
            namespace.inside("ip"),
            &format!(
                "link set lo up\nlink set {INTERFACE} addrgenmode none\n\
                 address add {SERVER}/{PREFIX_BITS} dev {INTERFACE}\nlink set {INTERFACE} up\n"
            ),
        )?;
        await_up(|| Command::new("ip"))?;
        await_up(|| namespace.inside("ip"))?;
        Ok(namespace)
    }

    /// A command that runs in it.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--", program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The kernel takes a namespace down some time after its last process; the pair's name is wanted free now.
        let _ = batch(Command::new("ip"), &format!("link delete {INTERFACE}\n"));
        drop(self.holder.stdin.take());
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Waits until the pair's end counts as running. The kernel says so up to a second after it carries packets, and
/// until then Janus takes no address from it.
fn await_up(ip: impl Fn() -> Command) -> anyhow::Result<()> {
    let deadline = Instant::now() + UP_LIMIT;
    loop {
        let output = ip().args(["-oneline", "link", "show", INTERFACE]).output().context("ip")?;
        if text(&output.stdout).contains(" state UP ") {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the veth pair does not come up: {}{}", text(&output.stdout), text(&output.stderr));
        }
    }
}

/// Has `ip` carry out commands, one a line.
fn batch(mut ip: Command, commands: &str) -> anyhow::Result<()> {
    let mut child = ip
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("ip")?;
    // A pipe holds these few lines whether or not they are read.
    child.stdin.take().context("ip's input")?.write_all(commands.as_bytes()).context("ip's input")?;
    let output = child.wait_with_output().context("ip")?;
    if !output.status.success() {
        bail!("the network interfaces could not be made: {}", text(&output.stderr));
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[cfg(test)]
mod tests;
