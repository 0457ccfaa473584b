//! What the bridge can be told at its start: command line flags, each with an environment variable. Nothing has to
//! be told.

use crate::room::MEMBERS_MAX;
use clap::Parser;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How patient the bridge is. Not for the command line: the defaults were chosen, tests shorten them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a socket may take to say `hello`.
    pub hello: Duration,
    /// A connection on which nothing goes either way for this long is closed. On those of people who are in a meeting something is
    /// said more often.
    pub idle: Duration,
    /// How often the server asks a socket for a sign of life, while media do not show that somebody is there. Browsers throttle
    /// the timers of background tabs, so the server leads.
    pub ping: Duration,
    /// A socket that is asked and silent for this long is taken for lost: two missed pings and some time for the answer.
    pub silence: Duration,
    /// What clients are told: hearing nothing for this long is a lost socket. Two renewals that did not come and some time.
    /// Hardly anybody waits for it: a client that does something, or whose media fall silent, asks its socket at once.
    pub client_silence: Duration,
    /// How long the membership of a lost socket is kept: longer than a Wi-Fi change, a sleep of the phone's screen
    /// or a restarted router takes, shorter than people wait for someone who is gone.
    pub resume: Duration,
    /// How often everyone gets a fresh resume token; see [`crate::auth::RESUME_TOKEN`] for how long one is good. A
    /// server may so be away for the difference. In a meeting in which nothing happens this is all that signaling does, and what
    /// keeps the connection known to proxies and firewalls, some of which forget it after 50 s without a byte.
    pub renew: Duration,
    /// How long a server that makes place for another goes on forwarding. Clients need a second or two on a bad
    /// line; container runtimes kill after ten.
    pub moving: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            ping: Duration::from_secs(20),
            silence: Duration::from_secs(45),
            client_silence: Duration::from_secs(90),
            resume: Duration::from_secs(60),
            renew: Duration::from_secs(40),
            moving: Duration::from_secs(8),
        }
    }
}

/// The port when none is given.
pub const PORT: u16 = 8443;

/// Self-hosted video meetings in one program.
#[derive(Clone, Debug, Parser)]
#[command(name = "asamblea", version)]
pub struct Config {
    /// Port for HTTP, HTTPS (TCP) and media (UDP); 0 takes a free one
    #[arg(long, env = "ASAMBLEA_PORT", default_value_t = PORT)]
    pub port: u16,

    /// Address to listen on [default: all]
    #[arg(long, env = "ASAMBLEA_BIND", value_name = "ADDRESS")]
    pub bind: Option<IpAddr>,

    /// Address at which browsers reach this machine, if it is behind NAT; may be repeated
    #[arg(long, env = "ASAMBLEA_PUBLIC_ADDRESS", value_name = "ADDRESS", value_delimiter = ',')]
    pub public_address: Vec<IpAddr>,

    /// Certificate chain for HTTPS, PEM [default: one that is made and kept in the state folder]
    #[arg(long, env = "ASAMBLEA_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key for HTTPS, PEM
    #[arg(long, env = "ASAMBLEA_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// File with 32 random bytes or more that sign the tokens [default: one that is made in the state folder]
    #[arg(long, env = "ASAMBLEA_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,

    /// Folder for what outlives a restart, which is that secret and certificate; empty for none
    /// [default: $STATE_DIRECTORY, else $XDG_STATE_HOME/asamblea, else ~/.local/state/asamblea]
    #[arg(long, env = "ASAMBLEA_STATE_DIR", value_name = "FOLDER")]
    pub state_dir: Option<OsString>,

    /// Share the port with a running bridge of the same user, and serve once that one is told to end (SIGTERM)
    #[arg(long, env = "ASAMBLEA_TAKE_OVER")]
    pub take_over: bool,

    /// Threads that forward media [default: one for each core]
    #[arg(long, env = "ASAMBLEA_SHARDS", value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: Option<u16>,

    /// Most people in one meeting
    #[arg(long, env = "ASAMBLEA_MEMBERS_MAX", value_name = "NUMBER", default_value_t = MEMBERS_MAX, value_parser = members_max)]
    pub members_max: usize,

    /// People of one meeting whom one core carries before others take part; 0 for any number
    #[arg(long, env = "ASAMBLEA_MEMBERS_PER_CORE", value_name = "NUMBER", default_value_t = MEMBERS_PER_CORE)]
    pub members_per_core: usize,

    /// Lengthen packets by a byte of RTP padding where that lets more of them leave in one system call
    #[arg(long, env = "ASAMBLEA_PAD_RUNS", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", hide = true)]
    pub pad_runs: bool,

    /// What to log to stderr: error, warn, info, debug, trace or a tracing filter; info and above name no person,
    /// address or meeting
    #[arg(long, env = "ASAMBLEA_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How patient the bridge is.
    #[arg(skip)]
    pub timing: Timing,
}

/// Half of the people who fill a core where many show themselves, so that a meeting spreads before it is too much for one,
/// and one of a usual size never pays for it.
pub const MEMBERS_PER_CORE: usize = 100;

/// Most that a meeting's bound can be set to: each arrival is told to everyone, which is a million messages for a
/// thousand people who come.
const MEMBERS_MOST: usize = 2_000;

fn members_max(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 2..=MEMBERS_MOST) => Ok(number),
        _ => Err(format!("a meeting has room for 2 to {MEMBERS_MOST} people")),
    }
}

impl Default for Config {
    /// What the command line's defaults are, but that nothing is written anywhere.
    fn default() -> Self {
        Self {
            port: PORT,
            bind: None,
            public_address: Vec::new(),
            tls_cert: None,
            tls_key: None,
            secret_file: None,
            state_dir: Some(OsString::new()),
            take_over: false,
            shards: None,
            members_max: MEMBERS_MAX,
            members_per_core: MEMBERS_PER_CORE,
            pad_runs: true,
            log: "info".into(),
            timing: Timing::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_to_be_told() {
        let config = Config::try_parse_from(["asamblea"]).expect("no flag is required");
        assert_eq!((config.port, config.bind), (PORT, None));
    }

    #[test]
    fn the_state_folder_may_be_named_or_none() {
        let state = |flags: &[&str]| Config::try_parse_from(flags).expect("fine").state_dir;
        assert_eq!(state(&["asamblea"]), None);
        assert_eq!(state(&["asamblea", "--state-dir", ""]), Some(OsString::new()));
        assert_eq!(state(&["asamblea", "--state-dir", "here"]), Some("here".into()));
    }

    #[test]
    fn a_meeting_has_room_for_as_many_as_is_said_within_bounds() {
        let members = |flags: &[&str]| Config::try_parse_from(flags).map(|it| it.members_max);
        assert_eq!(members(&["asamblea"]).expect("the default"), MEMBERS_MAX);
        assert_eq!(members(&["asamblea", "--members-max", "600"]).expect("in bounds"), 600);
        for number in ["1", "2001", "many"] {
            let error = members(&["asamblea", "--members-max", number]).expect_err("out of bounds");
            assert!(error.to_string().contains("2 to 2000"), "{error}");
        }
    }

    #[test]
    fn a_certificate_needs_its_key() {
        assert!(Config::try_parse_from(["asamblea", "--tls-cert", "a.pem"]).is_err());
    }

    #[test]
    fn public_addresses_repeat() {
        let flags = ["asamblea", "--public-address", "192.0.2.1", "--public-address", "2001:db8::1"];
        assert_eq!(Config::try_parse_from(flags).expect("fine").public_address.len(), 2);
    }
}
