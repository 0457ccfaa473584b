// One peer connection: its lines, its tracks, and one offer at a time.
//
// The client offers, the server only ever answers. Lines are made up front and never removed, turned round or
// reordered: three to send on, then slots to receive on; more slots come with a new offer. What is on or off is
// a matter of `replaceTrack`. Codec preferences are left alone: narrowing them upsets one browser or the other.

import type { Environment } from './env';
import type { Kind } from './model';
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
  /** The browser could not do what it was asked to; the peer is of no more use. */
  onFailed(): void;
}

/** The streams that slots play in: they outlive a peer connection, so that elements keep playing. */
export interface SlotStreams {
  audio: MediaStream[];
  video: MediaStream[];
}

interface Line {
  role: Role;
  transceiver: RTCRtpTransceiver;
}

/** Smallest first. Together they stay below what a weak home uplink carries. */
const CAMERA_LAYERS: RTCRtpEncodingParameters[] = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 120_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 350_000 },
  { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 1_200_000 },
];
/** One layer: Firefox sends a shared screen's simulcast layers wrongly. */
const SCREEN_LAYERS: RTCRtpEncodingParameters[] = [{ maxBitrate: 2_500_000 }];

/** Tells the encoder what matters: motion in a face, sharpness in a page. */
const CONTENT_HINTS: Record<Kind, string> = { microphone: 'speech', camera: 'motion', screen: 'detail' };

export class Peer {
  readonly #connection: RTCPeerConnection;
  readonly #lines: Line[] = [];
  readonly #pendingTracks = new Map<Kind, Promise<void>>();
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
    private readonly events: PeerEvents,
  ) {
    this.#connection = newPeerConnection({
      iceServers: [],
      iceTransportPolicy: 'all',
      bundlePolicy: 'max-bundle',
      rtcpMuxPolicy: 'require',
    });
    this.#connection.onconnectionstatechange = () => {
      if (this.#state !== 'closed') this.events.onConnection(this.#connection.connectionState);
    };
    this.#addLine('microphone', 'audio', { direction: 'sendonly' });
    this.#addLine('camera', 'video', { direction: 'sendonly', sendEncodings: CAMERA_LAYERS.map(copy) });
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
    const sender = this.#lines.find((line) => line.role === kind)?.transceiver.sender;
    if (!sender || this.#state === 'closed') return;
    if (track && 'contentHint' in track) track.contentHint = CONTENT_HINTS[kind];
    // One after the other: which of two that overlap comes last is for the browser to choose otherwise.
    const before = this.#pendingTracks.get(kind) ?? Promise.resolve();
    const done = before.then(() => sender.replaceTrack(track)).catch(() => undefined);
    this.#pendingTracks.set(kind, done);
  }

  close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#connection.onconnectionstatechange = null;
    this.#connection.close();
  }

  #addLine(role: Role, kind: 'audio' | 'video', init: RTCRtpTransceiverInit): void {
    const transceiver = this.#connection.addTransceiver(kind, init);
    this.#lines.push({ role, transceiver });
    this.#wire(transceiver, role);
  }

  /**
   * Every sender and every receiver passes here, once, before its first packet: the place to put an encoded
   * transform (`RTCRtpScriptTransform`) on either of them, since the bridge needs nothing of the content.
   */
  #wire(transceiver: RTCRtpTransceiver, role: Role): void {
    if (role === 'audio-slot') this.#play(transceiver.receiver.track, this.streams.audio, role);
    else if (role === 'video-slot') this.#play(transceiver.receiver.track, this.streams.video, role);
  }

  /** Puts a slot's track in the stream of the slot with the same number. */
  #play(track: MediaStreamTrack, streams: MediaStream[], role: Role): void {
    const index = this.#lines.filter((line) => line.role === role).length - 1;
    const stream = (streams[index] ??= this.newStream());
    for (const old of stream.getTracks()) stream.removeTrack(old);
    stream.addTrack(track);
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
