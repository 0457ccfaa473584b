// Microphone, camera, speaker and the shared screen: asking, losing, choosing, measuring.
//
// Each device is asked for on its own, so that a missing camera does not cost the microphone. A camera that is
// off is really off: its track is stopped and its light goes out. A muted microphone is kept, silenced, so that
// unmuting is instant and someone who talks while muted can be told.

import { computed, signal, type ReadonlySignal, type Signal } from '@preact/signals-core';
import type { Environment, Meter } from './env';
import { readDevices, writeDevices, type ChosenDevices } from './memory';
import type { Devices, DeviceState, Kind } from './model';

export type Capture = 'microphone' | 'camera';
type Status = DeviceState['status'];

export type DeviceEvent =
  | { type: 'track'; kind: Kind; track: MediaStreamTrack | null } // what to send from now on
  | { type: 'failed'; device: Capture; status: 'denied' | 'missing' | 'busy' | 'failed' }
  | { type: 'lost'; device: Capture } // it was live and is gone; another may follow
  | { type: 'gone'; device: Capture } // no other follows
  | { type: 'share-ended' }
  | { type: 'share-failed' }
  | { type: 'speaking-while-muted' };

const LEVEL_PERIOD_MS = 50;
/** Louder than a quiet room or a keyboard: about -33 dBFS. */
const SPEECH_LEVEL = 0.45;
/** So much of it before it counts as speaking. */
const SPEECH_MS_MIN = 600;
/** People mute on purpose; one reminder a while is enough. */
const REMINDER_MS_MIN = 30_000;

const AUDIO: MediaTrackConstraints = {
  echoCancellation: true,
  noiseSuppression: true,
  autoGainControl: true,
};
/** A phone held upright gives 720x1280: only the ideals are said, nothing is required. */
const VIDEO: MediaTrackConstraints = {
  width: { ideal: 1280 },
  height: { ideal: 720 },
  frameRate: { ideal: 30, max: 30 },
};
const SCREEN: MediaTrackConstraints = { frameRate: { ideal: 15, max: 30 } };

/** What became of a request, by the name of its error (Media Capture and Streams, section 10.2). */
export function statusOf(error: unknown): 'denied' | 'missing' | 'busy' | 'failed' {
  const name = typeof error === 'object' && error !== null && 'name' in error ? error.name : '';
  switch (name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return 'denied';
    case 'NotFoundError':
    case 'OverconstrainedError':
      return 'missing';
    case 'NotReadableError':
    case 'AbortError':
      return 'busy';
    default:
      return 'failed';
  }
}

/** One microphone or camera. */
class Captured {
  readonly status = signal<Status>('off');
  readonly chosen: Signal<string>;
  track: MediaStreamTrack | null = null;
  /** Counts requests, so that one that was given up does not come true later. */
  generation = 0;
  /** The request under way. */
  asking: Promise<boolean> | null = null;

  constructor(chosen: string) {
    this.chosen = signal(chosen);
  }
}

export class DeviceManager implements Devices {
  readonly microphone: ReadonlySignal<DeviceState>;
  readonly camera: ReadonlySignal<DeviceState>;
  readonly speaker: ReadonlySignal<DeviceState>;
  readonly microphoneLevel = signal(0);
  readonly preview = signal<MediaStream | null>(null);
  /** The own shared screen, for the own tile. */
  readonly shared = signal<MediaStream | null>(null);

  readonly #captured: Record<Capture, Captured>;
  readonly #speaker: Signal<string>;
  readonly #known = signal<readonly MediaDeviceInfo[]>([]);
  #isMuted = false;
  #meter: Meter | null = null;
  #meterTimer: number | null = null;
  #spokenMs = 0;
  #remindedAt = -Infinity;

  constructor(
    private readonly env: Environment,
    private readonly onEvent: (event: DeviceEvent) => void,
  ) {
    const chosen = readDevices(env.localStorage);
    this.#captured = {
      microphone: new Captured(chosen.microphone),
      camera: new Captured(chosen.camera),
    };
    this.#speaker = signal(chosen.speaker);
    this.microphone = this.#view('audioinput', this.#captured.microphone.status, this.#captured.microphone);
    this.camera = this.#view('videoinput', this.#captured.camera.status, this.#captured.camera);
    const speakerStatus = computed<Status>(() =>
      env.canChooseSpeaker && this.#known.value.some((device) => isChoice(device, 'audiooutput'))
        ? 'live'
        : 'off',
    );
    this.speaker = this.#view('audiooutput', speakerStatus, { chosen: this.#speaker });
    env.mediaDevices?.addEventListener?.('devicechange', () => void this.#enumerate());
    void this.#enumerate();
  }

  track(kind: Kind): MediaStreamTrack | null {
    if (kind === 'screen') return this.shared.peek()?.getVideoTracks()[0] ?? null;
    return this.#captured[kind].track;
  }

  isLive(device: Capture): boolean {
    return this.#captured[device].track !== null;
  }

  /** Asks for a device unless it is live; says whether it is then. */
  start(device: Capture): Promise<boolean> {
    const captured = this.#captured[device];
    if (captured.track) return Promise.resolve(true);
    captured.asking ??= this.#ask(device);
    return captured.asking;
  }

  async #ask(device: Capture): Promise<boolean> {
    const captured = this.#captured[device];
    const generation = ++captured.generation;
    captured.status.value = 'asking';
    let track: MediaStreamTrack;
    try {
      track = await this.#capture(device, captured.chosen.peek());
    } catch (error) {
      if (generation !== captured.generation) return false;
      captured.asking = null;
      const status = statusOf(error);
      captured.status.value = status;
      this.onEvent({ type: 'failed', device, status });
      return false;
    }
    if (generation !== captured.generation) {
      track.stop();
      return captured.track !== null;
    }
    captured.asking = null;
    this.#take(device, track);
    void this.#enumerate();
    return true;
  }

  /** Lets go of a device: its light goes out. */
  stop(device: Capture): void {
    const captured = this.#captured[device];
    captured.generation += 1;
    captured.asking = null;
    this.#drop(device);
    captured.status.value = 'off';
  }

  /** Silences the microphone without letting go of it. */
  setMuted(muted: boolean): void {
    this.#isMuted = muted;
    this.#spokenMs = 0;
    const { track } = this.#captured.microphone;
    if (track) track.enabled = !muted;
  }

  /** Takes another device; a capture that is live is taken over without a break in what is sent. */
  async choose(device: Capture | 'speaker', id: string): Promise<void> {
    if (device === 'speaker') {
      this.#speaker.value = id;
      this.#remember();
      return;
    }
    const captured = this.#captured[device];
    captured.chosen.value = id;
    this.#remember();
    if (!captured.track && captured.status.peek() !== 'asking') return;
    // Phones cannot open their second camera while the first is in use.
    captured.generation += 1;
    captured.asking = null;
    captured.track?.stop();
    captured.track = null;
    if (!(await this.start(device)) && captured.track === null) this.#drop(device);
  }

  /** Shares a screen. Call inside a click. */
  async startSharing(): Promise<boolean> {
    if (this.shared.peek()) return true;
    let stream: MediaStream;
    try {
      if (!this.env.mediaDevices?.getDisplayMedia) throw new Error('no screen sharing');
      stream = await this.env.mediaDevices.getDisplayMedia({ video: SCREEN, audio: false });
    } catch (error) {
      // "Cancel" in the browser's dialog is an answer, not a fault.
      if (statusOf(error) !== 'denied') this.onEvent({ type: 'share-failed' });
      return false;
    }
    const track = stream.getVideoTracks()[0];
    if (!track || this.shared.peek()) {
      for (const extra of stream.getTracks()) extra.stop();
      return this.shared.peek() !== null;
    }
    track.onended = () => {
      if (this.track('screen') !== track) return;
      this.stopSharing();
      this.onEvent({ type: 'share-ended' });
    };
    this.shared.value = stream;
    this.onEvent({ type: 'track', kind: 'screen', track });
    return true;
  }

  stopSharing(): void {
    const stream = this.shared.peek();
    if (!stream) return;
    this.shared.value = null;
    for (const track of stream.getTracks()) {
      track.onended = null;
      track.stop();
    }
    this.onEvent({ type: 'track', kind: 'screen', track: null });
  }

  stopAll(): void {
    this.stop('microphone');
    this.stop('camera');
    this.stopSharing();
  }

  async #capture(device: Capture, id: string): Promise<MediaStreamTrack> {
    const { mediaDevices } = this.env;
    if (!mediaDevices) throw new Error('no devices in an insecure context');
    const base = device === 'microphone' ? AUDIO : VIDEO;
    const request = async (constraints: MediaTrackConstraints) => {
      const stream = await mediaDevices.getUserMedia(
        device === 'microphone' ? { audio: constraints } : { video: constraints },
      );
      const track = stream.getTracks()[0];
      if (!track) throw new Error('a stream without a track');
      return track;
    };
    if (id === '') return request(base);
    try {
      return await request({ ...base, deviceId: { exact: id } });
    } catch (error) {
      // The device of last time is not plugged in today: take what there is.
      if (statusOf(error) === 'missing') return request(base);
      throw error;
    }
  }

  #take(device: Capture, track: MediaStreamTrack): void {
    const captured = this.#captured[device];
    captured.track = track;
    captured.status.value = 'live';
    track.onended = () => this.#handleEnded(device, track);
    if (device === 'microphone') {
      track.enabled = !this.#isMuted;
      this.#measure(track);
    } else {
      const stream = this.env.newStream();
      stream.addTrack(track);
      this.preview.value = stream;
    }
    this.onEvent({ type: 'track', kind: device, track });
  }

  #drop(device: Capture): void {
    const captured = this.#captured[device];
    const { track } = captured;
    captured.track = null;
    if (track) {
      track.onended = null;
      track.stop();
    }
    if (device === 'microphone') this.#measure(null);
    else this.preview.value = null;
    this.onEvent({ type: 'track', kind: device, track: null });
  }

  /** Unplugged, or permission taken away: says so, and takes another device if there is one. */
  #handleEnded(device: Capture, track: MediaStreamTrack): void {
    const captured = this.#captured[device];
    if (captured.track !== track) return;
    this.#drop(device);
    captured.status.value = 'missing';
    this.onEvent({ type: 'lost', device });
    void this.#fallBack(device);
  }

  async #fallBack(device: Capture): Promise<void> {
    await this.#enumerate();
    const captured = this.#captured[device];
    const kind = device === 'microphone' ? 'audioinput' : 'videoinput';
    if (captured.status.peek() !== 'missing') return;
    if (this.#known.peek().some((known) => isChoice(known, kind))) await this.start(device);
    else this.onEvent({ type: 'gone', device });
  }

  async #enumerate(): Promise<void> {
    try {
      this.#known.value = (await this.env.mediaDevices?.enumerateDevices()) ?? [];
    } catch {
      // Then there is nothing to choose from; the default still works.
    }
  }

  #view(
    kind: MediaDeviceKind,
    status: ReadonlySignal<Status>,
    of: { chosen: ReadonlySignal<string> },
  ): ReadonlySignal<DeviceState> {
    return computed(() => ({
      status: status.value,
      choices:
        kind === 'audiooutput' && !this.env.canChooseSpeaker
          ? []
          : this.#known.value
              .filter((device) => isChoice(device, kind))
              .map((device) => ({ id: device.deviceId, label: device.label })),
      chosen: of.chosen.value,
    }));
  }

  #remember(): void {
    const chosen: ChosenDevices = {
      microphone: this.#captured.microphone.chosen.peek(),
      camera: this.#captured.camera.chosen.peek(),
      speaker: this.#speaker.peek(),
    };
    writeDevices(this.env.localStorage, chosen);
  }

  #measure(track: MediaStreamTrack | null): void {
    this.#meter?.close();
    this.#meter = null;
    if (this.#meterTimer !== null) this.env.clearTimer(this.#meterTimer);
    this.#meterTimer = null;
    this.microphoneLevel.value = 0;
    if (!track) return;
    try {
      this.#meter = this.env.newMeter(track);
    } catch {
      return; // no level is shown; the microphone works
    }
    const tick = () => {
      this.#handleLevel(this.#meter?.level() ?? 0);
      this.#meterTimer = this.env.setTimer(tick, LEVEL_PERIOD_MS);
    };
    if (this.#meter) tick();
  }

  #handleLevel(level: number): void {
    this.microphoneLevel.value = this.#isMuted ? 0 : level;
    if (!this.#isMuted || level < SPEECH_LEVEL) {
      this.#spokenMs = Math.max(0, this.#spokenMs - LEVEL_PERIOD_MS);
      return;
    }
    this.#spokenMs += LEVEL_PERIOD_MS;
    const now = this.env.now();
    if (this.#spokenMs < SPEECH_MS_MIN || now - this.#remindedAt < REMINDER_MS_MIN) return;
    this.#remindedAt = now;
    this.onEvent({ type: 'speaking-while-muted' });
  }
}

/** Before permission is given, browsers list one nameless device of each kind. */
function isChoice(device: MediaDeviceInfo, kind: MediaDeviceKind): boolean {
  return device.kind === kind && device.deviceId !== '';
}
