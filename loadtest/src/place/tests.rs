//! However the tool ends, nothing of it stays. The tool is played by this test program itself, which is started
//! once more with only [`plays_the_tool`] in it.

use super::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use std::path::PathBuf;
use std::process::ExitStatus;

/// Where the tool is to run its server: `loopback` or `namespace`.
const ROLE: &str = "ASAMBLEA_LOADTEST_ROLE";
const LIMIT: Duration = Duration::from_secs(30);
/// A server with a child in its group and one that left it.
const SERVER: &str = "sleep 300 & setsid sleep 300 & echo ready; wait";

#[test]
#[ignore = "started by the tests below"]
fn plays_the_tool() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let place = if role == "namespace" {
        enter().expect("the tests below tried it");
        end_on_signals().expect("signals");
        let place = Place::namespace().expect("a namespace");
        assert!(delivers_apart(), "packets to bots are delivered on the driver's core");
        assert_eq!(has_main_priority(), !priority().is_empty(), "where the kernel allows it");
        place
    } else {
        end_on_signals().expect("signals");
        Place::loopback().expect("loopback")
    };
    let folder = Scratch::new().expect("a folder");
    let address = place.server_address().to_string();
    let mut list = Command::new("ip");
    list.args(["-oneline", "address"]);
    let list = place.spawn(0, list, &folder.path().join("address.log")).expect("ip");
    list.wait_for(LIMIT, |line| line.contains(&format!(" {address}/")).then_some(())).expect("the address");
    drop(list);
    let server = start(&place, &folder);
    let mut pids = members(&server);
    pids.extend(place.namespace.iter().map(|namespace| namespace.holder.id()));
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    println!("\nplays {} {}", folder.path().display(), pids.join(" "));
    let mut word = String::new();
    std::io::stdin().read_line(&mut word).expect("a word or the end");
    assert_ne!(word.trim(), "panic", "as it was told");
}

/// Of the tool's first thread: a test runs on another, which must not have it.
fn has_main_priority() -> bool {
    assert!(!has_priority(), "only the driver runs before others");
    std::fs::read_to_string("/proc/self/stat").is_ok_and(|stat| is_first_in_first_out(&stat))
}

fn start(place: &Place, folder: &Scratch) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", SERVER]);
    let server = place.spawn(0, command, &folder.path().join("server.log")).expect("a server");
    server.wait_for(LIMIT, |line| (line == "ready").then_some(())).expect("it is ready");
    server
}

/// The server's own processes; both children are there when it says that it is ready, though one may still be `sh`.
fn members(server: &Process) -> Vec<u32> {
    let tree = account::tree(server.pid());
    assert_eq!(tree.len(), 3, "{tree:?}");
    tree
}

#[test]
fn drop_ends_those_who_left_the_group_too() {
    let place = Place::loopback().expect("loopback");
    let folder = Scratch::new().expect("a folder");
    let path = folder.path().to_owned();
    let server = start(&place, &folder);
    let pids = members(&server);
    for pid in &pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    }
    let handles = open(&pids);
    drop(server);
    assert_eq!(count_gone(&handles), 3);
    drop(folder);
    assert!(!path.exists());
}

#[test]
fn says_why_a_server_does_not_start() {
    let place = Place::loopback().expect("loopback");
    let folder = Scratch::new().expect("a folder");
    let missing = Command::new("there-is-no-such-server");
    let server = place.spawn(0, missing, &folder.path().join("log")).expect("taskset starts");
    let error = server.wait_for(LIMIT, |_| None::<()>).expect_err("there is none").to_string();
    assert!(error.contains("ended before it was ready") && error.contains("No such file"), "{error}");
}

#[test]
fn an_end_in_order_leaves_nothing() {
    for_each_place(|mut tool| {
        drop(tool.child.stdin.take());
        assert_eq!(tool.child.wait().expect("its end").code(), Some(0));
        tool.assert_nothing_left();
    });
}

#[test]
fn a_panic_leaves_nothing() {
    for_each_place(|mut tool| {
        writeln!(tool.child.stdin.take().expect("its input"), "panic").expect("it reads");
        assert_eq!(tool.child.wait().expect("its end").code(), Some(101));
        tool.assert_nothing_left();
    });
}

#[test]
fn signals_leave_nothing() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        for_each_place(|mut tool| {
            let status = tool.send(signal);
            assert_eq!(status.code(), Some(128 + signal.as_raw()));
            tool.assert_nothing_left();
        });
    }
}

#[test]
fn what_a_killed_tool_leaves_is_removed_at_the_next_start() {
    for_each_place(|mut tool| {
        let status = tool.send(Signal::KILL);
        assert_eq!(status.code(), None);
        // The kernel ends the server itself; its children and the folder are for the next start.
        assert_eq!(count_gone(&tool.handles[..1]), 1);
        leftovers::remove();
        tool.assert_nothing_left();
    });
}

/// A tool with a server, seen from outside.
struct Tool {
    child: Child,
    folder: PathBuf,
    handles: Vec<OwnedFd>,
}

impl Tool {
    fn send(&mut self, signal: Signal) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("its id");
        // `wait` would close it, and the tool would end in order.
        let _input = self.child.stdin.take();
        rustix::process::kill_process(pid, signal).expect("it is there");
        self.child.wait().expect("its end")
    }

    fn assert_nothing_left(&self) {
        assert_eq!(count_gone(&self.handles), self.handles.len());
        assert!(!self.folder.exists(), "{}", self.folder.display());
    }
}

fn for_each_place(test: impl Fn(Tool)) {
    test(play("loopback"));
    match allowed_flags() {
        Ok(_) => test(play("namespace")),
        Err(error) => println!("Not in a namespace: {error}"),
    }
}

fn play(role: &str) -> Tool {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "place::tests::plays_the_tool", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts");
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let mut lines = output.lines().map(|line| line.expect("text"));
    let line = lines.find_map(|line| line.strip_prefix("plays ").map(str::to_owned)).expect("it plays");
    // Read on, so that what it says at its end has somewhere to go.
    std::thread::spawn(move || lines.for_each(drop));
    let (folder, pids) = line.split_once(' ').expect("folder and processes");
    let pids: Vec<u32> = pids.split(' ').map(|pid| pid.parse().expect("a process id")).collect();
    Tool { child, folder: folder.into(), handles: open(&pids) }
}

fn open(pids: &[u32]) -> Vec<OwnedFd> {
    pids.iter()
        .map(|&pid| {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
            pidfd_open(pid, PidfdFlags::empty()).expect("it is there")
        })
        .collect()
}

/// How many of these processes have ended, once all have or [`LIMIT`] has passed.
fn count_gone(handles: &[OwnedFd]) -> usize {
    let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
    let is_gone = |handle: &&OwnedFd| {
        let mut fds = [PollFd::new(*handle, PollFlags::IN)];
        poll(&mut fds, Some(&limit)) == Ok(1)
    };
    handles.iter().filter(is_gone).count()
}
