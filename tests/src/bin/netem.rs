//! A bad line in front of a bridge on this machine, for one client: `netem --to 8443 --profile loss-10 --seed 1`.
//!
//! Says the port that the client has to take for the bridge's, obeys lines of JSON on stdin (see
//! `asamblea_tests::netem::control`), answers each with a line of JSON on stdout, and prints its counters when stdin
//! ends or a signal asks it to. Sends to the loopback interface only.

use asamblea_tests::netem::control::Order;
use asamblea_tests::netem::profile::{NAMED, Profile};
use asamblea_tests::netem::proxy::Emulator;
use serde_json::json;
use std::io::BufRead;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Lines of stdin that wait to be read as orders; the pipe is behind them.
const LINES_MAX: usize = 16;

struct Flags {
    to: u16,
    profile: Profile,
    seed: u64,
}

fn flags() -> Option<Flags> {
    let (mut to, mut profile, mut seed) = (None, Profile::default(), 1);
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next()?;
        match flag.as_str() {
            "--to" => to = Some(value.parse().ok()?),
            "--profile" => profile = Profile::named(&value)?,
            "--seed" => seed = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(Flags { to: to?, profile, seed })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(flags) = flags() else {
        let names: Vec<_> = NAMED.iter().map(|(name, _)| *name).collect();
        eprintln!("netem --to PORT [--profile NAME] [--seed NUMBER]\nProfiles: {}", names.join(", "));
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
    let emulator = Emulator::start(flags.to, flags.profile, flags.seed).await?;
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
