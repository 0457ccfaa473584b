// The oracle: who hears whom, and who sees whom.
//
// In every page the microphone becomes a sine tone of the page's own frequency and the camera and the screen
// become canvases of the page's own colours that carry a running time stamp. What a page plays is then judged by
// a Fourier transform of what its <audio> elements play and by the pixels of its <video> elements. Nothing of the
// call itself is replaced: tracks travel as the client sends them.
//
// `installOracle` runs inside the page and may use nothing from this file.

export type Refusal = 'NotAllowedError' | 'NotFoundError' | 'NotReadableError';

/** What a page's own devices give. */
export interface OracleParams {
  /** The tone of the microphone, in Hz. */
  toneHz: number;
  /** The colours of the camera and the screen, by name. */
  camera: Colour;
  screen: Colour;
  /** Pictures full of change, of which every frame takes several packets. */
  isRestless?: boolean;
  /** What the browser says instead of giving a device. */
  microphoneRefusal?: Refusal;
  cameraRefusal?: Refusal;
}

export type Colour = 'red' | 'green' | 'blue' | 'yellow' | 'magenta' | 'cyan' | 'orange' | 'violet';

/** What an <audio> or <video> element of the page lets one hear. */
export interface Heard {
  /** Level by frequency of those asked for, in dB relative to full scale; -200 when nothing sounds at all. */
  tones: Record<number, number>;
  /** The loudest of what is none of the tones asked for, in dB. */
  otherDb: number;
}

/** What a <video> of the page shows. */
export interface Seen {
  /** The accessible name of the list item around it; empty outside of one. */
  label: string;
  /** The dominating colour, or 'dark' or 'none' while there is no picture. */
  colour: string;
  /** How long ago the frame on display was drawn, in ms; -1 when the stamp cannot be read. */
  ageMs: number;
  /** The frame's stamp, in 50 ms; -1 when it cannot be read. */
  stamp: number;
  width: number;
  height: number;
}

export interface Oracle {
  hear(tonesHz: number[]): Promise<Heard>;
  see(): Seen[];
  /** From now on the microphone gives this, over and over, instead of its tone. Says when that began (`Date.now()`). */
  speak(samples: string, rate: number): number;
  /** Times in ms since the page's time origin: the last click on a button, the first frame of another's video. */
  marks: { click: number; firstRemoteFrame: number };
}

declare global {
  interface Window {
    __oracle: Oracle;
  }
}

export function installOracle(params: OracleParams): void {
  if (window.top !== window || (window as { __oracle?: Oracle }).__oracle) return;

  // One unit of the stamp, and after how many it starts over: 12 bits and 4 bits of check.
  const UNIT_MS = 50;
  const STAMPS = 4096;
  const CELLS = 16;
  const COLOURS: Record<string, [number, number, number]> = {
    red: [220, 30, 30],
    green: [20, 160, 40],
    blue: [30, 50, 220],
    yellow: [230, 220, 30],
    magenta: [220, 40, 200],
    cyan: [30, 210, 220],
    orange: [240, 140, 20],
    violet: [110, 40, 160],
  };
  const check = (stamp: number) => ((stamp >> 8) ^ (stamp >> 4) ^ stamp ^ 0b0101) & 0xf;
  const stampNow = () => Math.floor(Date.now() / UNIT_MS) % STAMPS;

  // ---- What the page sends ----

  let audioContext: AudioContext | undefined;
  const context = () => {
    audioContext ??= new AudioContext();
    void audioContext.resume();
    return audioContext;
  };

  const microphones: { oscillator: OscillatorNode; out: AudioNode }[] = [];
  const tone = (): MediaStreamTrack => {
    const ac = context();
    const oscillator = new OscillatorNode(ac, { frequency: params.toneHz });
    const gain = new GainNode(ac, { gain: 0.3 });
    const out = ac.createMediaStreamDestination();
    oscillator.connect(gain).connect(out);
    oscillator.start();
    microphones.push({ oscillator, out });
    return out.stream.getAudioTracks()[0]!;
  };

  /** Samples of 16 bits, little-endian, in base64. */
  const speak = (samples: string, rate: number): number => {
    const ac = context();
    const bytes = Uint8Array.from(atob(samples), (letter) => letter.charCodeAt(0));
    const words = new Int16Array(bytes.buffer);
    const buffer = ac.createBuffer(1, words.length, rate);
    buffer.copyToChannel(
      Float32Array.from(words, (word) => word / 32_768),
      0,
    );
    for (const { oscillator, out } of microphones) {
      oscillator.stop();
      const voice = new AudioBufferSourceNode(ac, { buffer, loop: true });
      voice.connect(out);
      voice.start();
    }
    return Date.now();
  };

  const picture = (colour: Colour, width: number, height: number): MediaStreamTrack => {
    const canvas = document.createElement('canvas');
    canvas.width = width;
    canvas.height = height;
    const pen = canvas.getContext('2d')!;
    const [r, g, b] = COLOURS[colour]!;
    const draw = () => {
      pen.fillStyle = `rgb(${r} ${g} ${b})`;
      pen.fillRect(0, 0, width, height);
      if (params.isRestless) {
        const change = () => (Math.random() - 0.5) * 60;
        for (let x = 0; x < width; x += 8) {
          for (let y = 0; y < height * 0.65; y += 8) {
            pen.fillStyle = `rgb(${r + change()} ${g + change()} ${b + change()})`;
            pen.fillRect(x, y, 8, 8);
          }
        }
      }
      const stamp = stampNow();
      const bits = (stamp << 4) | check(stamp);
      const cell = width / CELLS;
      for (let i = 0; i < CELLS; i++) {
        pen.fillStyle = (bits >> (CELLS - 1 - i)) & 1 ? '#fff' : '#000';
        pen.fillRect(i * cell, height * 0.7, cell, height * 0.3);
      }
    };
    draw();
    const track = canvas.captureStream(15).getVideoTracks()[0]!;
    const timer = setInterval(() => {
      if (track.readyState === 'ended') clearInterval(timer);
      else draw();
    }, 66);
    return track;
  };

  const refuse = (name: Refusal) => new DOMException('refused by the test', name);
  const devices = navigator.mediaDevices;
  if (devices) {
    const real = devices.getUserMedia.bind(devices);
    devices.getUserMedia = async (constraints) => {
      if (constraints?.audio && params.microphoneRefusal) throw refuse(params.microphoneRefusal);
      if (constraints?.video && params.cameraRefusal) throw refuse(params.cameraRefusal);
      // The browser's own answer first: permissions, device choice and "capturing" are then as in real life.
      const shadow = await real(constraints);
      const stream = new MediaStream();
      for (const track of shadow.getTracks()) {
        const replacement = track.kind === 'audio' ? tone() : picture(params.camera, 640, 360);
        const id = track.getSettings().deviceId;
        const settings = replacement.getSettings.bind(replacement);
        replacement.getSettings = () => ({
          width: 640,
          height: 360,
          ...settings(),
          ...(id && { deviceId: id }),
        });
        if (track.kind === 'audio') {
          const stop = replacement.stop.bind(replacement);
          replacement.stop = () => {
            stop();
            track.stop();
          };
        } else {
          track.stop(); // two cores are few: one picture a person is enough to make
        }
        stream.addTrack(replacement);
      }
      return stream;
    };
    devices.getDisplayMedia = async () => new MediaStream([picture(params.screen, 960, 540)]);
  }

  // ---- What the page plays ----

  const ears = new WeakMap<MediaStreamTrack, AnalyserNode>();
  const listen = (track: MediaStreamTrack): AnalyserNode => {
    let ear = ears.get(track);
    if (!ear) {
      const ac = context();
      ear = new AnalyserNode(ac, { fftSize: 8192, smoothingTimeConstant: 0 });
      const source = ac.createMediaStreamSource(new MediaStream([track]));
      source.connect(ear);
      // A graph that ends nowhere may not run: let it end in silence.
      ear.connect(new GainNode(ac, { gain: 0 })).connect(ac.destination);
      (ear as unknown as { source: unknown }).source = source;
      ears.set(track, ear);
    }
    return ear;
  };
  const isPlaying = (element: HTMLMediaElement) =>
    !element.paused && !element.muted && element.volume > 0 && element.isConnected;

  const hear = async (tonesHz: number[]) => {
    const tracks = [...document.querySelectorAll<HTMLMediaElement>('audio, video')]
      .filter(isPlaying)
      .flatMap((element) =>
        element.srcObject instanceof MediaStream
          ? element.srcObject.getAudioTracks().filter((track) => track.readyState === 'live' && track.enabled)
          : [],
      );
    const analysers = tracks.map(listen);
    // A window of the transform is 170 ms: let it fill with what is played now.
    await new Promise((done) => setTimeout(done, 250));
    const tones: Record<number, number> = Object.fromEntries(tonesHz.map((hz) => [hz, -200]));
    let otherDb = -200;
    const spectrum = new Float32Array(4096);
    for (const analyser of analysers) {
      analyser.getFloatFrequencyData(spectrum);
      const binHz = analyser.context.sampleRate / analyser.fftSize;
      for (let bin = Math.ceil(200 / binHz); bin < 4000 / binHz; bin++) {
        const db = Math.max(spectrum[bin]!, -200);
        const near = tonesHz.find((hz) => Math.abs(hz - bin * binHz) <= 45);
        if (near === undefined) otherDb = Math.max(otherDb, db);
        else if (Math.abs(near - bin * binHz) <= 2 * binHz) tones[near] = Math.max(tones[near]!, db);
      }
    }
    return { tones, otherDb };
  };

  const eye = document.createElement('canvas');
  const see = () =>
    [...document.querySelectorAll('video')].map((video) => {
      const item = video.closest('li[aria-label]');
      const seen = {
        label: item?.getAttribute('aria-label') ?? '',
        colour: 'none',
        ageMs: -1,
        stamp: -1,
        width: video.videoWidth,
        height: video.videoHeight,
      };
      if (video.readyState < 2 || !video.videoWidth) return seen;
      const width = (eye.width = 160);
      const height = (eye.height = 90);
      const pen = eye.getContext('2d', { willReadFrequently: true })!;
      pen.drawImage(video, 0, 0, width, height);
      const pixels = pen.getImageData(0, 0, width, height).data;
      const at = (x: number, y: number): [number, number, number] => {
        const i = (Math.floor(y) * width + Math.floor(x)) * 4;
        return [pixels[i]!, pixels[i + 1]!, pixels[i + 2]!];
      };
      // The nearest colour of most of 40 points above the stamp.
      const votes = new Map<string, number>();
      for (let i = 0; i < 40; i++) {
        const [r, g, b] = at(8 + (i % 8) * 18, 6 + Math.floor(i / 8) * 12);
        let best = 'dark';
        let distance = r * r + g * g + b * b;
        for (const [name, [cr, cg, cb]] of Object.entries(COLOURS)) {
          const d = (r - cr) ** 2 + (g - cg) ** 2 + (b - cb) ** 2;
          if (d < distance) [best, distance] = [name, d];
        }
        votes.set(best, (votes.get(best) ?? 0) + 1);
      }
      seen.colour = [...votes].sort((a, b) => b[1] - a[1])[0]![0];
      let bits = 0;
      for (let i = 0; i < CELLS; i++) {
        const [r, g, b] = at((i + 0.5) * (width / CELLS), height * 0.86);
        bits = (bits << 1) | (r + g + b > 384 ? 1 : 0);
      }
      const stamp = bits >> 4;
      if ((bits & 0xf) === check(stamp)) {
        seen.stamp = stamp;
        seen.ageMs = ((stampNow() - stamp + STAMPS) % STAMPS) * UNIT_MS;
      }
      return seen;
    });

  // ---- When things happened ----

  const marks = { click: 0, firstRemoteFrame: 0 };
  addEventListener(
    'click',
    (event) => {
      if ((event.target as Element).closest('button')) marks.click = performance.now();
    },
    true,
  );
  const watched = new WeakSet<HTMLVideoElement>();
  const watch = () => {
    for (const video of document.querySelectorAll('video')) {
      const item = video.closest('li[data-person]');
      if (watched.has(video) || !item || item.hasAttribute('data-self')) continue;
      watched.add(video);
      video.requestVideoFrameCallback(() => {
        marks.firstRemoteFrame ||= performance.now();
      });
    }
  };
  new MutationObserver(watch).observe(document, { childList: true, subtree: true });

  window.__oracle = { hear, see, speak, marks };
}
