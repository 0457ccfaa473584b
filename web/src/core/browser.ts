// The real browser behind `Environment`. Decides nothing; everything that decides is tested without it.

import type { Environment, Meter, StorageLike } from './env';

/** Below this a microphone counts as silent. */
const LEVEL_FLOOR_DB = -60;

export function browserEnvironment(): Environment {
  return {
    now: () => Date.now(),
    random: () => Math.random(),
    setTimer: (run, delayMs) => window.setTimeout(run, delayMs),
    clearTimer: (timer) => window.clearTimeout(timer),
    fetch: (path, options) =>
      window.fetch(path, { ...options, cache: 'no-store', credentials: 'same-origin' }),
    openSocket: (url) => new WebSocket(url),
    newPeerConnection:
      typeof RTCPeerConnection === 'undefined'
        ? null
        : (configuration) => new RTCPeerConnection(configuration),
    newStream: () => new MediaStream(),
    mediaDevices: navigator.mediaDevices ?? null,
    newMeter,
    isSecureContext: window.isSecureContext,
    canChooseSpeaker: 'setSinkId' in HTMLMediaElement.prototype,
    location: window.location,
    localStorage: storage(() => window.localStorage),
    sessionStorage: storage(() => window.sessionStorage),
    onOnline: (run) => window.addEventListener('online', run),
    onDoubt: (run) => {
      document.addEventListener('visibilitychange', () => {
        if (document.visibilityState === 'visible') run();
      });
      // From Wi-Fi to mobile data without a moment offline; Firefox on desktops does not tell.
      const { connection } = navigator as { connection?: EventTarget };
      connection?.addEventListener?.('change', run);
    },
  };
}

/** Browsers throw on the mere mention of storage when cookies are blocked. */
function storage(get: () => Storage): StorageLike | null {
  try {
    return get();
  } catch {
    return null;
  }
}

let context: AudioContext | null = null;

function audioContext(): AudioContext | null {
  if (context || typeof AudioContext === 'undefined') return context;
  context = new AudioContext();
  // Firefox keeps it suspended until a gesture, even while the microphone is in use.
  const resume = () => void context?.resume();
  for (const gesture of ['pointerdown', 'keydown']) {
    window.addEventListener(gesture, resume, { capture: true, passive: true });
  }
  return context;
}

function newMeter(track: MediaStreamTrack): Meter | null {
  const audio = audioContext();
  if (!audio) return null;
  // A muted track measures as silence, and someone who speaks while muted is to be told: measure a copy.
  const copy = track.clone();
  copy.enabled = true;
  const source = audio.createMediaStreamSource(new MediaStream([copy]));
  const analyser = audio.createAnalyser();
  analyser.fftSize = 1024;
  source.connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  return {
    level() {
      analyser.getFloatTimeDomainData(samples);
      let power = 0;
      for (const sample of samples) power += sample * sample;
      const db = 10 * Math.log10(power / samples.length + 1e-12);
      return Math.min(1, Math.max(0, 1 - db / LEVEL_FLOOR_DB));
    },
    close() {
      source.disconnect();
      copy.stop();
    },
  };
}
