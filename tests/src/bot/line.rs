//! One transport of a bot to the bridge, and the media that it sends on it.

use super::BotConfig;
use super::door::relay_credentials;
use super::wire::Wire;
use crate::peer::Peer;
use crate::turn::Relayed;
use asamblea_seam::UpKind;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::net::UdpSocket;

/// Audio packets between two video frames: about 16 frames a second.
const AUDIO_PER_FRAME: u64 = 3;

/// Packets a frame has on each simulcast layer, and their bytes.
const LAYERS: [(u8, usize); 3] = [(1, 400), (2, 700), (4, 900)];

/// One transport to the bridge.
pub(super) struct Line {
    pub(super) peer: Peer,
    pub(super) wire: Wire,
    pub(super) is_up: bool,
    pub(super) needs_key: [bool; 3],
}

impl Line {
    pub(super) async fn new(config: &BotConfig) -> anyhow::Result<Self> {
        let wire = match (config.relayed, config.over_tcp) {
            (Some(way), _) => {
                let credentials = relay_credentials(config.bridge(), &config.meeting).await?;
                Wire::Relayed(Box::new(Relayed::allocate(config.bridge(), way, credentials).await?))
            }
            (None, false) => Wire::Udp(UdpSocket::bind((config.host, 0)).await?),
            (None, true) => Wire::stream(config.bridge()).await?,
        };
        let peer = Peer::new(Instant::now(), config.number, wire.local()?);
        Ok(Self { peer, wire, is_up: false, needs_key: [true; 3] })
    }

    /// What comes next; nothing ever where there is no line.
    pub(super) async fn receive(
        line: Option<&mut Self>,
        buffer: &mut [u8],
    ) -> std::io::Result<(usize, SocketAddr)> {
        match line {
            Some(line) => line.wire.receive(buffer).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn handle_datagram(&mut self, source: SocketAddr, datagram: &[u8]) {
        if let Ok(local) = self.wire.local() {
            self.peer.handle_datagram(Instant::now(), source, local, datagram);
        }
    }

    pub(super) fn send_media(&mut self, config: &BotConfig, ticks: u64) {
        let now = Instant::now();
        if let Some(level) = config.voice_dbov {
            self.peer.send_audio(now, level);
        }
        if config.camera && ticks.is_multiple_of(AUDIO_PER_FRAME) {
            for (layer, (packets, bytes)) in LAYERS.into_iter().enumerate() {
                let is_key = std::mem::take(&mut self.needs_key[layer]);
                self.peer.send_video(now, UpKind::Camera, layer, is_key, packets, bytes);
            }
        }
    }
}
