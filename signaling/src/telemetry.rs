//! What is written to stderr. The rule: no address, no person's name and no meeting's name at info or above; such
//! things do not get into a log line at all unless somebody asks for debug, and packets only at trace.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Starts to log what the filter lets through. Does nothing when something else logs already.
///
/// # Errors
/// When the filter cannot be understood.
pub fn start(filter: &str) -> Result<(), ParseError> {
    // The embedded client names every file at start, and the DTLS library warns of every extension that it does not
    // know, which any stranger's browser can make it do: neither tells anybody anything.
    let filter = EnvFilter::try_new(format!("memory_serve=warn,rtc_dtls=off,{filter}"))?;
    // Only fails when a subscriber is set already: by a test, for instance.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .try_init();
    Ok(())
}
