// One peer connection: its lines, its tracks, and one offer at a time.
//
// The client offers, the server only ever answers. Lines are made up front and never removed, turned round or
// reordered: three to send on, then slots to receive on; more slots come with a new offer. What is on or off is
// a matter of `replaceTrack`. What arrives plays nowhere before `play`: so a new peer connection can be made beside
// one that still plays, and take its place when it has something to play. Codec preferences are left alone: narrowing them upsets one browser or the other.

import type { Environment } from './env';
import type { Kind } from './model';
import { cameraLayers, encodingsOf, SCREEN_LAYERS, type Size, type WantedLayers } from './layers';
import type { UpLine } from './protocol';

/** What a line is for. */
export type Role = Kind | 'audio-slot' | 'video-slot';

export interface Offer {
  sdp: string;
  ups: UpLine[];
}

export interface PeerEvents {
  /** An offer stands and wants an answer. */
  onOffer(offer: Offer): void;
  onConnection(state: RTCPeerConnectionState): void;
  /** The browser has looked for its own addresses, and found one or none. */
  onGathered(hasCandidates: boolean): void;
  /** Something arrives on a slot, for the first time. */
  onFlow(isVoice: boolean): void;
  /** The browser could not do what it was asked to; the peer is of no more use. */
  onFailed(): void;
}

/** The streams that slots play in: they outlive a peer connection, so that elements keep playing. */
export interface SlotStreams {
  audio: MediaStream[];
  video: MediaStream[];
}

/** What the browser counts. */
export interface PeerStats {
  /** Everything that arrived, on all pairs of addresses. */
  bytesReceived: number;
  /** Whether the pair in use goes through a relay. */
  isRelayed: boolean;
}

interface Line {
  role: Role;
  transceiver: RTCRtpTransceiver;
  /** Whether anything has arrived on it. */
  hasFlowed: boolean;
}

/** Tells the encoder what matters: motion in a face, sharpness in a page. */
const CONTENT_HINTS: Record<Kind, string> = { microphone: 'speech', camera: 'motion', screen: 'detail' };

export class Peer {
  readonly #connection: RTCPeerConnection;
  readonly #lines: Line[] = [];
  readonly #pending = new Map<Kind, Promise<void>>();
  readonly #wanted = { camera: { layers: [] } as WantedLayers, screen: { layers: [] } as WantedLayers };
  /** Of the picture that the camera makes; unknown before there was one. */
  #cameraSize: Size = {};
  #isPlaying = false;
  /** making: an offer is being made; offered: it waits for its answer. */
  #state: 'stable' | 'making' | 'offered' | 'answering' | 'closed' = 'stable';
  /** Something has changed since the last offer. */
  #isDirty = false;
  /** Whether the server ever answered: then it knows this peer's certificate and lines. */
  wasAnswered = false;

  constructor(
    newPeerConnection: NonNullable<Environment['newPeerConnection']>,
    private readonly newStream: () => MediaStream,
    private readonly streams: SlotStreams,
    videoSlots: number,
    audioSlots: number,
    iceServers: RTCIceServer[],
    private readonly events: PeerEvents,
  ) {
    this.#connection = newPeerConnection({
      iceServers,
      iceTransportPolicy: 'all',
      bundlePolicy: 'max-bundle',
      rtcpMuxPolicy: 'require',
    });
    this.#connection.onconnectionstatechange = () => {
      if (this.#state !== 'closed') this.events.onConnection(this.#connection.connectionState);
    };
    this.#connection.onicegatheringstatechange = () => {
      if (this.#state === 'closed' || this.#connection.iceGatheringState !== 'complete') return;
      this.events.onGathered(/^a=candidate:/m.test(this.#connection.localDescription?.sdp ?? ''));
    };
    this.#addLine('microphone', 'audio', { direction: 'sendonly' });
    this.#addLine('camera', 'video', {
      direction: 'sendonly',
      sendEncodings: cameraLayers(this.#cameraSize),
    });
    this.#addLine('screen', 'video', { direction: 'sendonly', sendEncodings: SCREEN_LAYERS.map(copy) });
    for (let i = 0; i < audioSlots; i += 1) this.#addLine('audio-slot', 'audio', { direction: 'recvonly' });
    for (let i = 0; i < videoSlots; i += 1) this.#addLine('video-slot', 'video', { direction: 'recvonly' });
  }

  get videoSlots(): number {
    return this.#lines.filter((line) => line.role === 'video-slot').length;
  }

  /** The video slots' m-lines; fewer than there are slots before their offer is made. */
  videoMids(): string[] {
    return this.#lines
      .filter((line) => line.role === 'video-slot')
      .map((line) => line.transceiver.mid)
      .filter((mid) => mid !== null);
  }

  /** Makes an offer, now or when the last one is answered. */
  negotiate(): void {
    this.#isDirty = true;
    void this.#offer();
  }

  /** Adds video slots up to a number and offers them. */
  growTo(videoSlots: number): void {
    const missing = videoSlots - this.videoSlots;
    if (missing <= 0 || this.#state === 'closed') return;
    for (let i = 0; i < missing; i += 1) this.#addLine('video-slot', 'video', { direction: 'recvonly' });
    this.negotiate();
  }

  restartIce(): void {
    if (this.#state === 'closed') return;
    this.#connection.restartIce();
    this.negotiate();
  }

  /** Takes the answer to the offer that stands. */
  async handleAnswer(sdp: string): Promise<boolean> {
    if (this.#state !== 'offered') return false;
    this.#state = 'answering';
    try {
      await this.#connection.setRemoteDescription({ type: 'answer', sdp });
    } catch {
      this.#fail();
      return false;
    }
    if (this.#isClosed()) return false;
    this.#state = 'stable';
    this.wasAnswered = true;
    if (this.#isDirty) void this.#offer();
    return true;
  }

  /** Sends a track, or nothing, on one of the three lines. */
  setTrack(kind: Kind, track: MediaStreamTrack | null): void {
    if (track && 'contentHint' in track) track.contentHint = CONTENT_HINTS[kind];
    this.#onSender(kind, (sender) => sender.replaceTrack(track));
    if (!track || kind !== 'camera') return;
    this.#cameraSize = track.getSettings();
    this.#setEncodings(kind);
  }

  /** Pauses the layers of a line that nobody wants, starts those that somebody does, and sends no more of them than is wanted. */
  setLayers(kind: 'camera' | 'screen', wanted: WantedLayers): void {
    this.#wanted[kind] = wanted;
    this.#setEncodings(kind);
  }

  /** Plays what arrives, from now on, in the streams of the slots. */
  play(): void {
    if (this.#isPlaying) return;
    this.#isPlaying = true;
    for (const line of this.#lines) this.#play(line);
  }

  async stats(): Promise<PeerStats> {
    // Of one sender rather than of the whole connection: a fraction of the work, and it names the pairs as well.
    const report = await this.#lines[0]?.transceiver.sender.getStats();
    const all: Record<string, unknown>[] = [];
    report?.forEach((entry: Record<string, unknown>) => all.push(entry));
    const pairs = all.filter((entry) => entry['type'] === 'candidate-pair');
    const selected = all.find((entry) => entry['type'] === 'transport')?.['selectedCandidatePairId'];
    const pair = pairs.find((entry) => entry['id'] === selected);
    const local = all.find((entry) => pair && entry['id'] === pair['localCandidateId']);
    return {
      // Firefox counts for each pair only, Chromium for the transport as well.
      bytesReceived: pairs.reduce((sum, entry) => sum + (Number(entry['bytesReceived']) || 0), 0),
      isRelayed: local?.['candidateType'] === 'relay',
    };
  }

  close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#connection.onconnectionstatechange = null;
    this.#connection.onicegatheringstatechange = null;
    for (const { transceiver } of this.#lines) transceiver.receiver.track.onunmute = null;
    this.#connection.close();
  }

  #addLine(role: Role, kind: 'audio' | 'video', init: RTCRtpTransceiverInit): void {
    const transceiver = this.#connection.addTransceiver(kind, init);
    const line = { role, transceiver, hasFlowed: false };
    this.#lines.push(line);
    this.#wire(line);
  }

  /**
   * Every sender and every receiver passes here, once, before its first packet: the place to put an encoded
   * transform (`RTCRtpScriptTransform`) on either of them, since the bridge needs nothing of the content.
   */
  #wire(line: Line): void {
    if (line.role !== 'audio-slot' && line.role !== 'video-slot') return;
    const { track } = line.transceiver.receiver;
    track.onunmute = () => {
      const isFirst = !line.hasFlowed;
      line.hasFlowed = true;
      if (this.#isPlaying) this.#play(line);
      if (isFirst) this.events.onFlow(line.role === 'audio-slot');
    };
    if (this.#isPlaying) this.#play(line);
  }

  /** Puts a slot's track in the stream of the slot with the same number. */
  #play({ role, transceiver, hasFlowed }: Line): void {
    if (role !== 'audio-slot' && role !== 'video-slot') return;
    const streams = role === 'audio-slot' ? this.streams.audio : this.streams.video;
    const index = this.#lines
      .filter((line) => line.role === role)
      .findIndex((line) => line.transceiver === transceiver);
    const stream = (streams[index] ??= this.newStream());
    const { track } = transceiver.receiver;
    const old = stream.getTracks();
    if (old.includes(track)) return;
    // A picture stays, standing still, until there is another to take its place. What has flowed may be muted again by
    // the time it is to play, and no event says so once more.
    if (role === 'video-slot' && track.muted && !hasFlowed && old.length > 0) return;
    for (const one of old) stream.removeTrack(one);
    stream.addTrack(track);
    // Browsers tell of tracks that come from elsewhere only; who plays the stream has to know of this one.
    stream.dispatchEvent(new Event('addtrack'));
  }

  #setEncodings(kind: 'camera' | 'screen'): void {
    this.#onSender(kind, async (sender) => {
      const made = kind === 'camera' ? cameraLayers(this.#cameraSize) : SCREEN_LAYERS;
      const parameters = sender.getParameters();
      const encodings = encodingsOf(parameters.encodings ?? [], made, this.#wanted[kind]);
      if (encodings) await sender.setParameters({ ...parameters, encodings });
    });
  }

  /** One act on a sender after the other: which of two that overlap comes last is for the browser to choose otherwise. */
  #onSender(kind: Kind, act: (sender: RTCRtpSender) => Promise<void>): void {
    const sender = this.#lines.find((line) => line.role === kind)?.transceiver.sender;
    if (!sender || this.#state === 'closed') return;
    const before = this.#pending.get(kind) ?? Promise.resolve();
    this.#pending.set(
      kind,
      before.then(() => (this.#isClosed() ? undefined : act(sender))).catch(() => undefined),
    );
  }

  async #offer(): Promise<void> {
    if (this.#state !== 'stable' || !this.#isDirty) return;
    this.#state = 'making';
    this.#isDirty = false;
    try {
      await this.#connection.setLocalDescription(await this.#connection.createOffer());
    } catch {
      this.#fail();
      return;
    }
    if (this.#isClosed()) return;
    this.#state = 'offered';
    const ups: UpLine[] = this.#lines.flatMap(({ role, transceiver }) =>
      transceiver.mid !== null && (role === 'microphone' || role === 'camera' || role === 'screen')
        ? [{ mid: transceiver.mid, kind: role }]
        : [],
    );
    // Candidates do not matter: the server learns them from the checks it receives.
    this.events.onOffer({ sdp: this.#connection.localDescription?.sdp ?? '', ups });
  }

  /** `close` may come while a promise is awaited. */
  #isClosed(): boolean {
    return this.#state === 'closed';
  }

  #fail(): void {
    if (this.#isClosed()) return;
    this.close();
    this.events.onFailed();
  }
}

function copy<T extends object>(value: T): T {
  return { ...value };
}
