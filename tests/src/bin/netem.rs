//! A bad line in front of a bridge on this machine, for one client: `netem --to 8443 --profile loss-10 --seed 1`.
//!
//! Says the port that the client has to take for the bridge's, obeys lines of JSON on stdin (see
//! `asamblea_tests::netem::control`), answers each with a line of JSON on stdout, and prints its counters when stdin
//! ends or a signal asks it to. `--to` takes a port on the loopback interface, or an address of this machine with a port
//! (`10.9.8.7:5000`); nothing is sent to other machines.

use asamblea_tests::netem::control::Order;
use asamblea_tests::netem::profile::{NAMED, Profile};
use asamblea_tests::netem::proxy::Emulator;
use serde_json::json;
use std::io::BufRead;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Lines of stdin that wait to be read as orders; the pipe is behind them.
const LINES_MAX: usize = 16;

struct Flags {
    to: SocketAddr,
    profile: Profile,
    seed: u64,
}

fn flags() -> Option<Flags> {
    let (mut to, mut profile, mut seed) = (None, Profile::default(), 1);
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next()?;
        match flag.as_str() {
            "--to" => to = Some(target(&value)?),
            "--profile" => profile = Profile::named(&value)?,
            "--seed" => seed = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(Flags { to: to?, profile, seed })
}

fn target(value: &str) -> Option<SocketAddr> {
    let port = value.parse().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    port.ok().or_else(|| value.parse().ok())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(flags) = flags() else {
        let names: Vec<_> = NAMED.iter().map(|(name, _)| *name).collect();
        eprintln!(
            "netem --to [ADDRESS:]PORT [--profile NAME] [--seed NUMBER]\nProfiles: {}",
            names.join(", ")
        );
        return ExitCode::FAILURE;
    };
    match run(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    let emulator = Emulator::start_at(flags.to, flags.profile, flags.seed).await?;
    println!("{}", json!({ "port": emulator.port() }));
    let (read, mut lines) = mpsc::channel(LINES_MAX);
    // A thread that waits for stdin holds up nobody: it ends with the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if read.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else { break };
                let order = Order::read(&line)?;
                if order.reports {
                    println!("{}", json!({ "report": emulator.report().await }));
                } else {
                    emulator.order(order);
                    println!("{}", json!({ "ordered": line }));
                }
            }
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    println!("{}", json!({ "end": emulator.report().await }));
    Ok(())
}
