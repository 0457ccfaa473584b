//! The control plane: who is in which meeting, and what the media plane is to do about it. Also the binary
//! `asamblea`, which starts everything.
//!
//! Follow **a join** through the files: a browser asks [`http`] for a token that [`auth`] signs, opens the socket
//! of [`ws`], says `hello` ([`protocol`]); the [`registry`] finds or makes the meeting and its [`room`] machine
//! decides; what it wants from the media plane goes through [`media`].
//!
//! Nothing here touches a packet, and nothing but the secret of [`state`] and the machine's own [`certificate`] is
//! written to disk.

pub mod auth;
pub mod bridge;
pub mod certificate;
pub mod config;
pub mod crowd;
pub mod greeting;
pub mod http;
pub mod media;
pub mod protocol;
pub mod registry;
pub mod room;
pub mod state;
pub mod stream;
pub mod telemetry;
pub mod tls;
mod turn;
pub mod ws;

pub use bridge::{Bridge, StartError};
pub use config::Config;

use clap::Parser;
use greeting::Language;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Runs the bridge until Ctrl-C, which stops it at once, or SIGTERM, which has everyone move to the next process
/// first. Everything the program does, so that `main` is one line.
pub fn run() -> ExitCode {
    let config = Config::parse();
    let language = Language::of_environment();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{}", greeting::sorry(language, &StartError::of_system(error)));
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(run_until_signal(config, language)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", greeting::sorry(language, &error));
            ExitCode::FAILURE
        }
    };
    // Whatever still waits has nobody left to wait for it.
    runtime.shutdown_background();
    code
}

async fn run_until_signal(config: Config, language: Language) -> Result<(), StartError> {
    telemetry::start(&config.log)?;
    // Asked for before the bridge is up, so that a signal during the start is not lost.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::of_system)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::of_system)?;
    let own_certificate = config.tls_cert.is_none();
    let meeting = greeting::speakable_name()?;
    let bridge = Bridge::start(config).await?;
    println!("{}", greeting::links(language, bridge.port(), bridge.network(), &meeting, own_certificate));
    // For programs that started the bridge, in no language.
    println!("listening on port {}", bridge.port());
    let is_planned = tokio::select! {
        _ = interrupt.recv() => false,
        _ = terminate.recv() => true,
    };
    if is_planned {
        // Asked for once more, it is to be done with.
        tokio::select! {
            () = bridge.make_place() => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    bridge.stop().await;
    Ok(())
}
