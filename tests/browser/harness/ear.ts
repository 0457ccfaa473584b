// An ear that listens to one tone all the time, and how long it heard nothing of it: what a gap is to a person.

import { HEARD_DB, type Person } from './person.ts';

/** A look at what a page plays: when it ended (`Date.now()`, the same for every page), and the tone's level. */
interface Look {
  at: number;
  db: number;
}

/** A time without the tone, in ms; `to` is null while it lasts. */
export interface Silence {
  from: number;
  to: number | null;
}

/** How often a page looks: the length of an Opus packet. */
const EVERY_MS = 20;
/** A tone that is away for less than this is a hiccup of a busy machine; what is promised is told in seconds. */
const SILENCE_MS_MIN = 150;
/** A page that is too busy to look for longer than this may have missed a silence, and is taken to have. */
const BLIND_MS_MAX = 250;

declare global {
  interface Window {
    __ear: { looks: Look[] };
  }
}

export class Ear {
  readonly #page: Person['page'];
  readonly #name: string;

  private constructor(listener: Person) {
    this.#page = listener.page;
    this.#name = listener.name;
  }

  /** From now on the listener's page notes how loud the other's tone is in what it plays. */
  static async on(listener: Person, other: Person): Promise<Ear> {
    await listener.page.evaluate(listen, { toneHz: other.toneHz, everyMs: EVERY_MS });
    return new Ear(listener);
  }

  /** The times without the tone from a moment on, in order. */
  async silences(after: number): Promise<Silence[]> {
    const looks = (await this.#page.evaluate(() => window.__ear.looks)).filter((look) => look.at >= after);
    const silences: Silence[] = [];
    let from = after;
    let isQuiet = false;
    const note = (to: number, end: number | null) => {
      if (to - from >= (isQuiet ? SILENCE_MS_MIN : BLIND_MS_MAX)) silences.push({ from, to: end });
    };
    for (const { at, db } of looks) {
      if (db <= HEARD_DB) {
        isQuiet = true;
        continue;
      }
      note(at, at);
      [from, isQuiet] = [at, false];
    }
    note(Date.now(), null);
    return silences;
  }

  /** The silence that something began, until the tone was there again for so long; all of it after `after`. */
  async untilBack(after: number, forMs: number, timeoutMs: number): Promise<Silence> {
    const end = Date.now() + timeoutMs;
    for (;;) {
      const silences = await this.silences(after);
      const next = (place: number) => silences[place + 1]?.from ?? Date.now();
      const last = silences.find(({ to }, place) => to !== null && next(place) - to >= forMs);
      if (last) return { from: silences[0]!.from, to: last.to };
      if (Date.now() > end) {
        const heard = silences.map(
          ({ from, to }) => `${from - after} to ${to === null ? 'now' : to - after}`,
        );
        throw new Error(`${this.#name} heard nothing from ${heard.join(', ') || 'never'} ms`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Waits until the tone has been there for a while. */
  async untilSteady(forMs: number, timeoutMs: number): Promise<void> {
    const end = Date.now() + timeoutMs;
    for (;;) {
      const began = Date.now() - forMs;
      if ((await this.silences(began)).length === 0) return;
      if (Date.now() > end) throw new Error(`${this.#name} does not hear without a gap`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** How long the longest of these lasts. */
export function longest(silences: Silence[]): number {
  return Math.max(0, ...silences.map(({ from, to }) => (to ?? Date.now()) - from));
}

/** In the page; may use nothing from this file. */
function listen({ toneHz, everyMs }: { toneHz: number; everyMs: number }): void {
  const context = new AudioContext();
  void context.resume();
  const looks: Look[] = [];
  const ears = new Map<MediaStreamTrack, AnalyserNode>();
  window.__ear = { looks };

  const ear = (track: MediaStreamTrack): AnalyserNode => {
    const known = ears.get(track);
    if (known) return known;
    // 43 ms: short against the gaps that matter, and fine enough for tones 120 Hz apart.
    const made = new AnalyserNode(context, { fftSize: 2048, smoothingTimeConstant: 0 });
    const source = context.createMediaStreamSource(new MediaStream([track]));
    source.connect(made);
    // A graph that ends nowhere may not run: let it end in silence.
    made.connect(new GainNode(context, { gain: 0 })).connect(context.destination);
    Object.assign(made, { source });
    ears.set(track, made);
    return made;
  };

  const spectrum = new Float32Array(1024);
  const look = () => {
    let db = -200;
    for (const element of document.querySelectorAll<HTMLMediaElement>('audio, video')) {
      const isPlaying = !element.paused && !element.muted && element.volume > 0;
      if (!isPlaying || !(element.srcObject instanceof MediaStream)) continue;
      for (const track of element.srcObject.getAudioTracks()) {
        if (track.readyState !== 'live' || !track.enabled) continue;
        const analyser = ear(track);
        analyser.getFloatFrequencyData(spectrum);
        const bin = Math.round((toneHz * analyser.fftSize) / context.sampleRate);
        db = Math.max(db, spectrum[bin - 1]!, spectrum[bin]!, spectrum[bin + 1]!);
      }
    }
    for (const [track, analyser] of ears) {
      if (track.readyState !== 'ended') continue;
      analyser.disconnect();
      ears.delete(track);
    }
    looks.push({ at: Date.now(), db });
    // Ten minutes of looks: no test is longer.
    if (looks.length > 30_000) looks.shift();
    setTimeout(look, everyMs);
  };
  look();
}
