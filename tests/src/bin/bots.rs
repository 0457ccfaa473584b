//! Fills a meeting with participants that need no browser, for so long, and tells what each of them received.
//!
//! `bots --url http://localhost:8443/some-meeting --count 10 --seconds 60`; reaches this machine only.

use asamblea_tests::bot::{Bot, BotConfig};
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

/// More than a room of the first version is meant for.
const COUNT_MAX: u32 = 100;
const SECONDS_MAX: u64 = 600;

const USAGE: &str = "bots --url http://localhost:PORT/MEETING [--count 10] [--seconds 60]";

struct Flags {
    port: u16,
    meeting: String,
    count: u32,
    seconds: u64,
}

fn flags() -> Option<Flags> {
    let (mut url, mut count, mut seconds) = (None, 10, 60);
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next()?;
        match flag.as_str() {
            "--url" => url = Some(value),
            "--count" => count = value.parse().ok()?,
            "--seconds" => seconds = value.parse().ok()?,
            _ => return None,
        }
    }
    let (port, meeting) = url?
        .strip_prefix("http://localhost:")?
        .split_once('/')
        .map(|(port, meeting)| (port.parse().ok(), meeting.to_owned()))?;
    let is_bounded = (1..=COUNT_MAX).contains(&count) && (1..=SECONDS_MAX).contains(&seconds);
    is_bounded.then_some(Flags { port: port?, meeting, count, seconds })
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(flags) = flags() else {
        eprintln!("{USAGE}");
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
    let mut bots = Vec::new();
    for number in 1..=flags.count {
        let config = BotConfig {
            voice_dbov: None, // a test that listens wants to hear its people
            slots: (3, 12),
            height_px: 90,
            ..BotConfig::new(flags.port, &flags.meeting, number)
        };
        bots.push(Bot::join(config).await?);
    }
    println!("joined {}", bots.len());
    for bot in &bots {
        bot.until("everyone's picture", |seen| seen.seen().len() + 1 == bots.len()).await;
    }
    println!("everyone is seen");
    // The clock of a bounded run, or an early end by Ctrl-C or SIGTERM.
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(flags.seconds)) => {}
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    for bot in &bots {
        let seen = bot.seen();
        let senders = |kind: u8| seen.counts.keys().filter(|(_, of)| *of == kind).count();
        let report = json!({
            "connected": seen.is_connected,
            "members": seen.members.len(),
            "voices": senders(0),
            "cameras": senders(1),
            "packets": seen.counts.values().sum::<u64>(),
            "slots": seen.slots.values().flatten().count(),
        });
        println!("{report}");
    }
    for bot in bots {
        bot.leave().await;
    }
    Ok(())
}
