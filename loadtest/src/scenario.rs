//! What a run does: a TOML file, read strictly. An unknown key or a value out of bounds is refused with a sentence,
//! before anything is started.

use crate::bot::secure::Cipher;
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Longest scenario file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Rows of a scenario, servers in it, pairs of each: a day of measuring.
const ROWS_MAX: usize = 64;
const PEERS_MAX: usize = 8;
const PAIRS_MAX: u32 = 100;

/// Transports of one row: more would need more ports than one address has for them.
const TRANSPORTS_MAX: u32 = 20_000;

/// Files that the driver has open beside those of its bots.
const OTHER_FILES: u64 = 128;

/// Bounds of frames each second: one in ten seconds, more than a camera has.
const FRAMES_MIN: f64 = 0.1;
const FRAMES_MAX: f64 = 2_000.0;

/// A whole run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// One line for tables and plots.
    pub(crate) title: String,
    /// Servers, the first one being what the others are compared with.
    pub(crate) peers: Vec<String>,
    /// Where servers run.
    #[serde(default)]
    pub(crate) place: Where,
    /// How often each row is run with each server, in turn.
    #[serde(default = "seven")]
    pub(crate) pairs: u32,
    /// Media flow for so long before the window opens.
    #[serde(default = "five")]
    pub(crate) warm_up_s: u32,
    /// The window.
    #[serde(default = "ten")]
    pub(crate) measure_s: u32,
    /// Draws sizes and phases.
    #[serde(default = "one")]
    pub(crate) seed: u64,
    /// How servers and bots behave.
    #[serde(default)]
    pub(crate) transport: Transport,
    /// What publishers send.
    pub(crate) traffic: Traffic,
    /// Who is there.
    pub(crate) rows: Vec<Row>,
    /// When a row does not count.
    #[serde(default)]
    pub(crate) limits: Limits,
}

/// Where servers run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Where {
    /// On 127.0.0.1, which some servers refuse to offer.
    Loopback,
    /// In a network namespace of the tool's own, behind a veth pair.
    #[default]
    Namespace,
}

/// How servers and bots behave.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Transport {
    /// Transport-wide congestion control feedback.
    pub(crate) feedback: bool,
    /// Requests for packets that are missing (NACK) and their repair (RTX).
    pub(crate) repair: bool,
    /// What bots offer.
    pub(crate) cipher: Cipher,
    /// Share of received media that bots drop before they look at it.
    pub(crate) loss: f64,
    /// Bots open one received packet in so many and name the others by their sequence numbers.
    pub(crate) open_one_in: u32,
    /// Whether the driver takes runs of datagrams whole (`UDP_GRO`), as a network card with segmentation offload
    /// would from the server. Without, the server's core pays for cutting them.
    pub(crate) receive_offload: bool,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            feedback: true,
            repair: true,
            cipher: Cipher::default(),
            loss: 0.0,
            open_one_in: 1,
            receive_offload: true,
        }
    }
}

/// What each publisher sends.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Traffic {
    /// How the packets of a picture are spread over its time.
    pub(crate) pace: Pacing,
    /// Packets of each frame of the tallest layer; 0 for no video.
    pub(crate) packets_per_frame: u32,
    /// Frames each second, to a thousandth.
    pub(crate) frames_per_second: f64,
    /// Bytes of an RTP packet before it is sealed, header and extensions included; half of them are a byte shorter.
    #[serde(default = "eleven_hundred")]
    pub(crate) packet_bytes: u32,
    /// Simulcast layers.
    #[serde(default = "one_layer")]
    pub(crate) layers: u8,
    /// The layer that subscribers want, 0 the smallest; the tallest where nothing is said.
    #[serde(default)]
    pub(crate) prefer: Option<u8>,
    /// Whether publishers also speak: 50 packets/s of 80 to 160 bytes.
    #[serde(default)]
    pub(crate) audio: bool,
}

/// See [`Traffic::pace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pacing {
    /// At equal distances.
    Even,
    /// Back to back.
    Bursts,
}

/// Who is there.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// Rooms of this kind.
    #[serde(default = "one_u32")]
    pub(crate) rooms: u32,
    /// Publishers in each room.
    #[serde(default = "one_u32")]
    pub(crate) publishers: u32,
    /// Who only watches, in each room: all publishers.
    #[serde(default)]
    pub(crate) subscribers: u32,
    /// Whether publishers watch each other as well.
    #[serde(default)]
    pub(crate) mutual: bool,
    /// In each room, who published before, sends nothing and watches nobody.
    #[serde(default)]
    pub(crate) muted: u32,
    /// Who joins the room while it runs, to watch all publishers, whether those before them are in or not.
    #[serde(default)]
    pub(crate) joins: u32,
    /// How many of them come each second on average, at random times.
    #[serde(default = "twenty_five")]
    pub(crate) joins_per_second: f64,
    /// In place of the scenario's.
    #[serde(default)]
    pub(crate) pace: Option<Pacing>,
    /// In place of the scenario's.
    #[serde(default)]
    pub(crate) packets_per_frame: Option<u32>,
    /// In place of the scenario's.
    #[serde(default)]
    pub(crate) frames_per_second: Option<f64>,
}

/// When a row does not count.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Share of the driver's core that is busy.
    pub(crate) driver_busy: f64,
    /// How late packets leave the driver, 99th percentile in ms.
    pub(crate) send_slip_ms: f64,
    /// Share of packets that did not arrive.
    pub(crate) loss: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { driver_busy: 0.7, send_slip_ms: 1.0, loss: 0.0001 }
    }
}

fn seven() -> u32 {
    7
}
fn five() -> u32 {
    5
}
fn ten() -> u32 {
    10
}
fn twenty_five() -> f64 {
    25.0
}
fn one() -> u64 {
    1
}
fn one_u32() -> u32 {
    1
}
fn one_layer() -> u8 {
    1
}
fn eleven_hundred() -> u32 {
    1_100
}

impl Row {
    /// Peer connections on the bots' side where each bot has one, before others join.
    pub(crate) fn bots(&self) -> u32 {
        self.rooms * (self.publishers + self.subscribers + self.muted)
    }

    /// With those who join.
    pub(crate) fn bots_in_all(&self) -> u32 {
        self.bots() + self.joins
    }

    /// Who watches one publisher.
    pub(crate) fn watchers(&self) -> u32 {
        self.subscribers + if self.mutual { self.publishers.saturating_sub(1) } else { 0 }
    }

    /// In a few words.
    pub(crate) fn name(&self) -> String {
        let rooms = if self.rooms > 1 { format!("{} rooms of ", self.rooms) } else { String::new() };
        let mut name = match (self.mutual, self.subscribers) {
            (true, 0) => format!("{rooms}{} among each other", self.publishers),
            (true, more) => format!("{rooms}{} among each other and {more} more", self.publishers),
            (false, subscribers) => format!("{rooms}{} to {subscribers}", self.publishers),
        };
        if self.muted > 0 {
            name += &format!(", {} muted", self.muted);
        }
        if self.joins > 0 {
            name += &format!(", {} join", self.joins);
        }
        match self.pace {
            Some(Pacing::Even) => name += ", even",
            Some(Pacing::Bursts) => name += ", bursts",
            None => {}
        }
        name
    }
}

impl Traffic {
    /// With what a row has in place of it.
    pub(crate) fn of(&self, row: &Row) -> Self {
        Self {
            pace: row.pace.unwrap_or(self.pace),
            packets_per_frame: row.packets_per_frame.unwrap_or(self.packets_per_frame),
            frames_per_second: row.frames_per_second.unwrap_or(self.frames_per_second),
            ..*self
        }
    }

    /// Packets of one frame of a layer: a third as many for each layer below the tallest.
    pub(crate) fn layer_packets(&self, layer: u8) -> u32 {
        (self.packets_per_frame / 3_u32.pow(u32::from(self.layers - 1 - layer))).max(1)
    }
}

impl Scenario {
    /// Reads a scenario file, or one of the tool's own by name.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(crate) fn load(name: &str) -> anyhow::Result<(Self, PathBuf)> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let path = if Path::new(name).exists() { name.into() } else { own.join(format!("{name}.toml")) };
        let bytes = std::fs::metadata(&path)
            .with_context(|| format!("there is no scenario {name}; the tool's own are in {}", own.display()))?
            .len();
        ensure!(bytes <= FILE_BYTES_MAX, "{}: longer than {FILE_BYTES_MAX} bytes", path.display());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let scenario = Self::parse(&text).with_context(|| format!("in {}", path.display()))?;
        Ok((scenario, path))
    }

    /// Reads the text of a scenario file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> anyhow::Result<()> {
        fn within<T: PartialOrd + std::fmt::Display>(
            name: &str,
            value: T,
            least: T,
            most: T,
        ) -> anyhow::Result<()> {
            ensure!(value >= least && value <= most, "{name} is {value}; it can be {least} to {most}");
            Ok(())
        }
        within("the number of peers", self.peers.len(), 1, PEERS_MAX)?;
        within("the number of rows", self.rows.len(), 1, ROWS_MAX)?;
        within("pairs", self.pairs, 1, PAIRS_MAX)?;
        within("warm_up_s", self.warm_up_s, 0, 600)?;
        within("measure_s", self.measure_s, 1, 3_600)?;
        within("transport.loss", self.transport.loss, 0.0, 0.5)?;
        within("transport.open_one_in", self.transport.open_one_in, 1, 1_001)?;
        let traffic = &self.traffic;
        within("traffic.packets_per_frame", traffic.packets_per_frame, 0, 200)?;
        within("traffic.frames_per_second", traffic.frames_per_second, FRAMES_MIN, FRAMES_MAX)?;
        within("traffic.packet_bytes", traffic.packet_bytes, 120, 1_180)?;
        within("traffic.layers", traffic.layers, 1, 3)?;
        ensure!(traffic.packets_per_frame > 0 || traffic.audio, "publishers send neither video nor audio");
        if let Some(prefer) = traffic.prefer {
            ensure!(
                prefer < traffic.layers,
                "traffic.prefer is {prefer}, and there are {} layers",
                traffic.layers
            );
        }
        if self.transport.open_one_in > 1 {
            let why = "packets that are not opened are named by the distance of their numbers";
            ensure!(traffic.layers == 1, "transport.open_one_in needs one layer: {why}");
            ensure!(self.transport.loss == 0.0, "transport.open_one_in goes without transport.loss: {why}");
        }
        for (index, row) in self.rows.iter().enumerate() {
            let name = |what: &str| format!("rows[{index}].{what}");
            within(&name("rooms"), row.rooms, 1, 1_000)?;
            within(&name("publishers"), row.publishers, 1, 1_000)?;
            within(&name("subscribers"), row.subscribers, 0, 10_000)?;
            within(&name("muted"), row.muted, 0, 10_000)?;
            within(&name("joins"), row.joins, 0, 5_000)?;
            within(&name("joins_per_second"), row.joins_per_second, 0.1, 1_000.0)?;
            let of_row = traffic.of(row);
            within(&name("packets_per_frame"), of_row.packets_per_frame, 0, 200)?;
            within(&name("frames_per_second"), of_row.frames_per_second, FRAMES_MIN, FRAMES_MAX)?;
            ensure!(of_row.packets_per_frame > 0 || traffic.audio, "rows[{index}]: nothing is sent");
            ensure!(row.watchers() > 0, "rows[{index}]: nobody watches");
            ensure!(row.joins == 0 || row.rooms == 1, "rows[{index}]: who joins does so in one room");
            ensure!(
                row.joins == 0 || !row.mutual,
                "rows[{index}]: who joins watches and sends nothing, so nobody else may do both"
            );
            let in_each = u64::from(row.publishers) + u64::from(row.subscribers) + u64::from(row.muted);
            let transports = u64::from(row.rooms) * in_each + u64::from(row.joins);
            ensure!(
                transports <= u64::from(TRANSPORTS_MAX),
                "rows[{index}] has {transports} bots; there can be {TRANSPORTS_MAX}"
            );
        }
        Ok(())
    }

    /// Refuses what this machine cannot have open: each bot has two sockets for media at most and one for signaling.
    ///
    /// # Errors
    /// Which limit it is and how to raise it.
    pub(crate) fn check_files(&self, files_max: u64) -> anyhow::Result<()> {
        let bots = self.rows.iter().map(Row::bots_in_all).max().unwrap_or(0);
        let needed = u64::from(bots) * 3 + OTHER_FILES;
        if needed > files_max {
            bail!(
                "the largest row has {bots} bots, which need {needed} open files, and this process may have \
                 {files_max} (RLIMIT_NOFILE). Raise the hard limit: `ulimit -n {needed}` as root in the shell that \
                 starts this, `prlimit --pid $$ --nofile={needed}:{needed}` as root for a running one, or \
                 LimitNOFILE={needed} in a systemd unit."
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        title = "Small"
        peers = ["asamblea"]
        [traffic]
        pace = "even"
        packets_per_frame = 8
        frames_per_second = 25
        [[rows]]
        subscribers = 50
    "#;

    #[test]
    fn what_is_left_out_has_a_default() {
        let scenario = Scenario::parse(SMALL).unwrap();
        assert_eq!((scenario.pairs, scenario.place), (7, Where::Namespace));
        assert!(scenario.transport.feedback);
        assert_eq!((scenario.rows[0].bots(), scenario.rows[0].watchers()), (51, 50));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for (before, key) in [("[traffic]", "sede = 1\n[traffic]"), ("[[rows]]", "layer = 1\n[[rows]]")] {
            let error = Scenario::parse(&SMALL.replace(before, key)).unwrap_err().to_string();
            let name = key.split(' ').next().unwrap();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_its_bounds() {
        for (before, after, said) in [
            ("packets_per_frame = 8", "packets_per_frame = 201", "0 to 200"),
            ("subscribers = 50", "subscribers = 0", "nobody watches"),
            ("subscribers = 50", "rooms = 1000\nsubscribers = 1000", "20000"),
            ("frames_per_second = 25", "frames_per_second = 25\nlayers = 4", "1 to 3"),
            ("frames_per_second = 25", "frames_per_second = 25\nprefer = 1", "1 layers"),
            ("packets_per_frame = 8", "packets_per_frame = 0", "neither"),
            ("subscribers = 50", "subscribers = 5\npackets_per_frame = 0", "nothing is sent"),
            ("subscribers = 50", "subscribers = 5\nframes_per_second = 0.01", "0.1 to 2000"),
            ("subscribers = 50", "subscribers = 5\nrooms = 2\njoins = 10", "in one room"),
            ("subscribers = 50", "subscribers = 5\njoins = 5001", "0 to 5000"),
            ("[traffic]", "[transport]\nloss = nan\n[traffic]", "NaN"),
            ("[traffic]", "[transport]\nopen_one_in = 3\nloss = 0.1\n[traffic]", "goes without"),
        ] {
            let error = format!("{:#}", Scenario::parse(&SMALL.replace(before, after)).unwrap_err());
            assert!(error.contains(said), "{after}: {error}");
        }
    }

    #[test]
    fn a_row_has_its_own_rhythm_and_people_who_come_later() {
        let row = "subscribers = 5\nmuted = 3\njoins = 7\npace = \"bursts\"\npackets_per_frame = 4\n\
                   frames_per_second = 1.25";
        let scenario = Scenario::parse(&SMALL.replace("subscribers = 50", row)).unwrap();
        let row = &scenario.rows[0];
        assert_eq!((row.bots(), row.bots_in_all()), (9, 16));
        assert_eq!(row.name(), "1 to 5, 3 muted, 7 join, bursts");
        let traffic = scenario.traffic.of(row);
        assert_eq!((traffic.pace, traffic.packets_per_frame), (Pacing::Bursts, 4));
        assert_eq!(traffic.frames_per_second, 1.25);
        assert!(scenario.check_files(128 + 16 * 3).is_ok());
        assert!(scenario.check_files(127 + 16 * 3).is_err());
    }

    #[test]
    fn too_many_files_are_refused_with_the_limit_and_the_way_to_raise_it() {
        let scenario = Scenario::parse(SMALL).unwrap();
        assert!(scenario.check_files(281).is_ok());
        let error = scenario.check_files(280).unwrap_err().to_string();
        for part in ["RLIMIT_NOFILE", "281", "280", "ulimit -n"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_tools_own_scenarios_are_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut count = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            Scenario::load(path.to_str().unwrap()).unwrap();
            count += 1;
        }
        assert!(count > 0);
    }
}
