// What a page plays, sample by sample.

/** Samples of 16 bits, little-endian, in base64; how many in a second; and `Date.now()` at the first. */
export interface Recording {
  samples: string;
  rate: number;
  beganAt: number;
}

export interface Recorder {
  start(): Promise<void>;
  /** Ends it. */
  read(): Recording;
}

declare global {
  interface Window {
    __recorder: Recorder;
  }
}

export const WORKLET = `
registerProcessor('recorder', class extends AudioWorkletProcessor {
  // Twenty blocks a message: as many messages as a second has packets.
  #samples = new Float32Array(20 * 128);
  #count = 0;
  #from = 0;
  process([[samples]]) {
    if (this.#count === 0) this.#from = currentFrame;
    // Without a source there is no channel: that is silence.
    if (samples) this.#samples.set(samples, this.#count);
    else this.#samples.fill(0, this.#count, this.#count + 128);
    this.#count += 128;
    if (this.#count === this.#samples.length) {
      this.port.postMessage({ from: this.#from, samples: this.#samples.slice() });
      this.#count = 0;
    }
    return true;
  }
});`;

/** In the page; may use nothing from this file but what it is given. */
export function installRecorder(worklet: string): void {
  /** Three minutes: no row takes longer. */
  const SECONDS_MAX = 180;
  /** New tracks, as after a reconnection, are looked for so often. */
  const LOOK_MS = 100;

  let rate = 0;
  let beganAt = 0;
  let firstFrame = -1;
  let frames = 0;
  let samples = new Int16Array(0);

  const start = async () => {
    const ac = new AudioContext();
    await ac.resume();
    rate = ac.sampleRate;
    samples = new Int16Array(rate * SECONDS_MAX);
    const url = URL.createObjectURL(new Blob([worklet], { type: 'text/javascript' }));
    await ac.audioWorklet.addModule(url);
    const node = new AudioWorkletNode(ac, 'recorder', {
      channelCount: 1,
      channelCountMode: 'explicit',
      outputChannelCount: [1],
    });
    node.port.onmessage = ({ data }: MessageEvent<{ from: number; samples: Float32Array }>) => {
      if (firstFrame < 0) {
        firstFrame = data.from;
        // The message is about the time that has just passed, and the context says how long ago that was.
        beganAt = Date.now() - (ac.currentTime - data.from / rate) * 1_000;
      }
      for (const [place, value] of data.samples.entries()) {
        const at = data.from - firstFrame + place;
        if (at < samples.length) samples[at] = Math.max(-1, Math.min(1, value)) * 32_767;
      }
      frames = Math.min(samples.length, data.from - firstFrame + data.samples.length);
    };
    // A graph that ends nowhere may not run; the recorder itself gives silence.
    node.connect(ac.destination);
    const sources = new Map<MediaStreamTrack, MediaStreamAudioSourceNode>();
    const look = () => {
      const playing = [...document.querySelectorAll<HTMLMediaElement>('audio, video')]
        .filter((it) => !it.paused && !it.muted && it.volume > 0 && it.isConnected)
        .flatMap((it) => (it.srcObject instanceof MediaStream ? it.srcObject.getAudioTracks() : []))
        .filter((track) => track.readyState === 'live' && track.enabled);
      for (const track of playing) {
        if (sources.has(track)) continue;
        const source = ac.createMediaStreamSource(new MediaStream([track]));
        source.connect(node);
        sources.set(track, source);
      }
      for (const [track, source] of sources) {
        if (playing.includes(track)) continue;
        source.disconnect();
        sources.delete(track);
      }
    };
    look();
    setInterval(look, LOOK_MS);
  };

  const read = () => {
    const bytes = new Uint8Array(samples.buffer, 0, frames * 2);
    let letters = '';
    for (let at = 0; at < bytes.length; at += 8_192) {
      letters += String.fromCharCode(...bytes.subarray(at, at + 8_192));
    }
    return { samples: btoa(letters), rate, beganAt };
  };

  window.__recorder = { start, read };
}
