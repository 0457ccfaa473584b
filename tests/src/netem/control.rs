//! Orders to the emulator as lines of JSON.
//!
//! ```text
//! {"profile": "loss-10"}                                          a named profile, at once
//! {"at_ms": 8000, "profile": {"down": {"rate_kbps": 300}}}        in 8 s; what is not named is as on a clean line
//! {"at_ms": 9000, "profile": "clean", "move": true}               the client's address changes, as the bridge sees it
//! {"report": true}                                                tells the counters and starts them over
//! ```

use super::profile::Profile;
use serde::Deserialize;

/// A line is shorter than this: a profile with every number named both ways.
pub const LINE_BYTES_MAX: usize = 4_096;

/// Ten minutes: no run is longer.
const AT_MS_MAX: u64 = 600_000;

/// What to do, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Order {
    /// In so many ms from when the order comes.
    pub at_ms: u64,
    /// What the line is like from then on.
    pub profile: Option<Profile>,
    /// Whether the client's address changes.
    pub moves: bool,
    /// Whether to tell the counters.
    pub reports: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    at_ms: u64,
    profile: Option<ProfileOrName>,
    #[serde(default, rename = "move")]
    moves: bool,
    #[serde(default, rename = "report")]
    reports: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ProfileOrName {
    Name(String),
    Profile(Profile),
}

impl Order {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(line.len() <= LINE_BYTES_MAX, "the line is too long");
        let line: Line = serde_json::from_str(line)?;
        anyhow::ensure!(line.at_ms <= AT_MS_MAX, "at_ms is at most {AT_MS_MAX}");
        anyhow::ensure!(!line.reports || line.at_ms == 0, "a report is told at once");
        let profile = match line.profile {
            None => None,
            Some(ProfileOrName::Profile(profile)) => Some(profile),
            Some(ProfileOrName::Name(name)) => {
                Some(Profile::named(&name).ok_or_else(|| anyhow::anyhow!("there is no profile {name:?}"))?)
            }
        };
        if let Some(Err(error)) = profile.map(|profile| profile.check()) {
            anyhow::bail!(error);
        }
        Ok(Self { at_ms: line.at_ms, profile, moves: line.moves, reports: line.reports })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netem::profile::LinkProfile;

    #[test]
    fn orders_are_read() {
        let order = Order::read(r#"{"profile": "loss-10"}"#).expect("a named profile");
        assert_eq!(order, Order { profile: Profile::named("loss-10"), ..Order::default() });
        let order = Order::read(r#"{"at_ms": 9000, "profile": {"down": {"rate_kbps": 300}}, "move": true}"#);
        let down = LinkProfile::narrow(300);
        let profile = Some(Profile { up: LinkProfile::CLEAN, down });
        assert_eq!(order.ok(), Some(Order { at_ms: 9_000, profile, moves: true, reports: false }));
    }

    #[test]
    fn what_is_no_order_is_refused() {
        for bad in [
            "",
            "loss-10",
            r#"{"profile": "loss-11"}"#,
            r#"{"profile": {"down": {"loss": 2}}}"#,
            r#"{"profile": {"down": {"lost": 0.1}}}"#,
            r#"{"profiles": "clean"}"#,
            r#"{"at_ms": 600001}"#,
            r#"{"at_ms": 1, "report": true}"#,
        ] {
            assert!(Order::read(bad).is_err(), "{bad}");
        }
    }
}
