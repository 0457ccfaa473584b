// What a page notes of what it hears and sees: statistics of the sound, every frame of the picture, what the tile says.

/** All times are `Date.now()`: every page of a machine has the same. */
export interface GaugeReading {
  samples: Sample[];
  /** When each frame of someone else's picture was put on display. */
  frames: number[];
}

export interface Sample {
  at: number;
  sound: Record<string, { packets: number; samples: number; concealed: number; silent: number | null }>;
  video: { bytes: number; decoded: number; height: number };
  /** Whether the picture's tile says that it is paused; or that the person is away. */
  isPaused: boolean;
  isAway: boolean;
  /** Whether the page says that it is reconnecting. */
  isReconnecting: boolean;
  /** How long ago the frame on display was drawn by the sender, in ms, to 50 ms; -1 if it cannot be read. */
  ageMs: number;
}

export interface Gauge {
  start(): void;
  read(): GaugeReading;
}

declare global {
  interface Window {
    __gauge: Gauge;
    keptPeers: RTCPeerConnection[];
  }
}

/** In the page; may use nothing from this file. */
export function installGauge(): void {
  const INTERVAL_MS = 200;
  const samples: Sample[] = [];
  const frames: number[] = [];

  const watched = new WeakSet<HTMLVideoElement>();
  const watch = () => {
    for (const video of document.querySelectorAll('video')) {
      const item = video.closest('li[data-person]');
      if (watched.has(video) || !item || item.hasAttribute('data-self')) continue;
      watched.add(video);
      const onFrame = () => {
        frames.push(Date.now());
        video.requestVideoFrameCallback(onFrame);
      };
      video.requestVideoFrameCallback(onFrame);
    }
  };

  const sample = async () => {
    const one: Sample = {
      at: 0,
      sound: {},
      video: { bytes: 0, decoded: 0, height: 0 },
      isPaused: document.querySelector('li[data-person][data-held]') !== null,
      isAway: document.querySelector('li[data-person][data-away]') !== null,
      isReconnecting: document.body.innerText.includes('Reconnecting'),
      ageMs: -1,
    };
    const others = window.__oracle.see().filter((seen) => seen.label !== '' && seen.stamp >= 0);
    if (others[0]) one.ageMs = others[0].ageMs;
    for (const [index, peer] of window.keptPeers.entries()) {
      if (peer.connectionState === 'closed') continue;
      (await peer.getStats()).forEach((entry) => {
        if (entry.type !== 'inbound-rtp') return;
        if (entry.kind === 'audio') {
          one.sound[`${index} ${entry.ssrc}`] = {
            packets: entry.packetsReceived ?? 0,
            samples: entry.totalSamplesReceived ?? 0,
            concealed: entry.concealedSamples ?? 0,
            silent: entry.silentConcealedSamples ?? null,
          };
        } else {
          one.video.bytes += entry.bytesReceived ?? 0;
          one.video.decoded += entry.framesDecoded ?? 0;
          one.video.height = Math.max(one.video.height, entry.frameHeight ?? 0);
        }
      });
    }
    one.at = Date.now();
    samples.push(one);
  };

  window.__gauge = {
    start: () => {
      watch();
      new MutationObserver(watch).observe(document, { childList: true, subtree: true });
      const run = async () => {
        const began = performance.now();
        await sample();
        setTimeout(run, Math.max(0, INTERVAL_MS - (performance.now() - began)));
      };
      void run();
    },
    read: () => ({ samples, frames }),
  };
}
