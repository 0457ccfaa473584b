// The media side of a membership: one peer connection at a time, what it offers, and how it is mended.
//
// A new peer connection is made beside the old one, which goes on playing (or shows its last pictures) until the new
// one is connected: nothing that is there is taken away before there is something to take its place.

import { computed, signal, type ReadonlySignal } from '@preact/signals-core';
import type { Environment } from './env';
import { layersOf } from './layers';
import { readRelay, writeRelay } from './memory';
import { Mending } from './mending';
import type { Kind } from './model';
import { Peer, type Offer, type SlotStreams } from './peer';
import type { ClientMessage, RelayCredentials, ServerMessage, UpWanted } from './protocol';
import { SAMPLE_MS, SILENT_MS, Silence } from './silence';
import { VIDEO_SLOTS_MAX, VIDEO_SLOTS_MIN } from './slots';
import { Walls, iceServers } from './walls';

type MediaState = Extract<ServerMessage, { type: 'media' }>['state'];

/** The loudest few; more voices at once are not understood. */
const AUDIO_SLOTS = 4;
/**
 * Beside one that plays, a new peer connection waits this long for everyone's voice before it takes over: others may be
 * slow to move, and are heard on the old one until then. The old server ends after eight seconds.
 */
const FLOW_MS_MAX = 5_000;
/** After the first of them the others' are waited for no longer than this: who took over lingers a little longer. */
const VOICES_MS_MAX = 1_500;
/** For so long after that the old one goes on sending, to those who have not moved yet. */
const LINGER_MS = 2_000;

const KINDS = ['microphone', 'camera', 'screen'] as const;

export interface MediaHooks {
  send(message: ClientMessage): boolean;
  /** What is sent now. */
  track(kind: Kind): MediaStreamTrack | null;
  relay(): Promise<RelayCredentials | null>;
  /** How many others' microphones are on, of those too who are on their way back. */
  voices(): number;
  /** An answer was taken: these are the video slots' m-lines. */
  onAnswered(videoMids: string[]): void;
  /** A new peer connection plays in the place of the one before. */
  onTakeOver(): void;
  /** Nothing arrives any more. */
  onSilent(): void;
}

export class Media {
  readonly streams: SlotStreams = { audio: [], video: [] };
  /** The audio slots' streams; the same for the whole call. */
  readonly audios = signal<readonly MediaStream[]>([]);
  readonly #isBroken = signal(false);
  readonly #isHopeless = signal(false);
  readonly isBroken: ReadonlySignal<boolean> = computed(() => this.#isBroken.value);
  /** So many tries came to nothing that people should know. */
  readonly isHopeless: ReadonlySignal<boolean> = computed(() => this.#isHopeless.value);

  readonly #mending = new Mending();
  readonly #silence = new Silence();
  readonly #walls: Walls;
  /** The one that is signaled. */
  #peer: Peer | null = null;
  /** The one that plays: another than `#peer` while that is being made. */
  #playing: Peer | null = null;
  #hasPlayed = false;
  /** The one that goes on sending a while after it was replaced. */
  #lingering: Peer | null = null;
  /** Whether the old one's server still serves it, so that it makes sense to send to both, until another plays. */
  #isBeside = false;
  /** Whether the next welcome is of the process that takes over. */
  #isToMove = false;
  /** On how many slots of the newest peer connection a voice has come; null before anything has. */
  #voices: number | null = null;
  /** Whether the rest of them is waited for already. */
  #isHurried = false;
  /** Counts peer connections asked for, so that one that was given up while it waited is not made. */
  #generation = 0;
  #connection: RTCPeerConnectionState = 'new';
  /** The offer that waits for its answer; `revision` is 0 until it was sent. */
  #offer: (Offer & { revision: number }) | null = null;
  #revision = 0;
  #slotsMax = VIDEO_SLOTS_MAX;
  #slotsAnswered = 0;
  #isSocketUp = false;
  #mendTimer: number | null = null;
  #sampleTimer: number | null = null;
  #flowTimer: number | null = null;
  #lingerTimer: number | null = null;

  constructor(
    private readonly env: Environment,
    private readonly hooks: MediaHooks,
  ) {
    this.#walls = new Walls(readRelay(env.localStorage));
  }

  get hasPeer(): boolean {
    return this.#peer !== null;
  }

  /** Whether there is something on display that a new peer connection would replace. */
  get hasPlayed(): boolean {
    return this.#hasPlayed;
  }

  /** Makes a peer connection, the first or in the place of the one before. */
  makePeer(videoSlots = VIDEO_SLOTS_MIN): void {
    const { newPeerConnection } = this.env;
    if (!newPeerConnection) return;
    const beside = this.#isBeside;
    const generation = ++this.#generation;
    this.#offer = null;
    this.#mending.handleNewPeer();
    this.#silence.reset();
    if (!this.#walls.isNeeded) {
      this.#make(newPeerConnection, videoSlots, beside, null);
      return;
    }
    void this.hooks.relay().then((relay) => {
      if (generation === this.#generation) this.#make(newPeerConnection, videoSlots, beside, relay);
    });
  }

  /** A new membership begins: revisions from 1, earlier failures are forgotten. */
  beginMembership(): void {
    this.#revision = 0;
    this.#mending.reset();
    this.#isBroken.value = false;
    this.#slotsMax = VIDEO_SLOTS_MAX;
    this.#slotsAnswered = 0;
    if (!this.#peer || this.#peer.wasAnswered) this.makePeer();
    this.#isToMove = false;
    this.resay();
  }

  /** Another process takes over; the old one serves what it has for a while yet. The next welcome brings a new peer. */
  handleMoving(): void {
    this.#isBeside = this.#isToMove = true;
  }

  /** The membership is taken up again. */
  handleResumed(revision: number): void {
    this.#revision = Math.max(this.#revision, revision);
    if (this.#isToMove && this.#peer) this.makePeer(this.#slots());
    this.#isToMove = false;
    this.resay();
  }

  setSocketUp(isUp: boolean): void {
    this.#isSocketUp = isUp;
    if (!isUp) return;
    this.#sampleTimer ??= this.env.setTimer(() => this.#sample(), SAMPLE_MS);
    this.#mend();
  }

  /** What was offered last may not have arrived: it goes out again, with `sendOffer`. */
  resay(): void {
    if (this.#offer) this.#offer.revision = 0;
  }

  sendOffer(): void {
    const offer = this.#offer;
    if (!offer || offer.revision !== 0) return;
    const revision = this.#revision + 1;
    if (!this.hooks.send({ type: 'offer', revision, sdp: offer.sdp, ups: offer.ups })) return;
    this.#revision = revision;
    offer.revision = revision;
    this.#mending.handleSignaled(this.env.now());
    this.#mend();
  }

  async handleAnswer(revision: number, sdp: string): Promise<void> {
    // An answer to an offer that was said again, or of a peer connection that is gone, comes too late.
    const peer = this.#peer;
    if (!peer || revision !== this.#offer?.revision) return;
    this.#offer = null;
    const mids = peer.videoMids();
    if (!(await peer.handleAnswer(sdp)) || peer !== this.#peer) return;
    this.#slotsAnswered = mids.length;
    this.#mending.handleSignaled(this.env.now());
    if (this.#connection !== 'connected') this.#walls.handleAnswered(this.env.now());
    this.hooks.onAnswered(mids);
    this.#mend();
  }

  /** Goes back to as many slots as were answered before; with none, there is no media in this meeting. */
  handleOfferRefused(): void {
    if (this.#slotsAnswered === 0) {
      this.#mending.giveUp();
      this.#mend();
      return;
    }
    this.#slotsMax = Math.min(this.#slotsMax, this.#slotsAnswered);
    this.makePeer(this.#slotsMax);
  }

  handleServerState(state: MediaState): void {
    this.#mending.handleServerState(state, this.env.now());
    this.#mend();
  }

  handleWanted(ups: readonly UpWanted[]): void {
    for (const kind of ['camera', 'screen'] as const) this.#peer?.setLayers(kind, layersOf(ups, kind));
  }

  setTrack(kind: Kind, track: MediaStreamTrack | null): void {
    for (const peer of new Set([this.#peer, this.#lingering])) peer?.setTrack(kind, track);
  }

  /** As many video slots as are wanted, within bounds. */
  growTo(videoSlots: number): void {
    const wanted = Math.min(videoSlots, this.#slotsMax);
    if (this.#peer && wanted > this.#peer.videoSlots) this.#peer.growTo(wanted);
  }

  /** Lets go of everything that belongs to a membership. */
  end(): void {
    this.#generation += 1;
    for (const peer of [this.#peer, this.#playing, this.#lingering]) peer?.close();
    this.#peer = this.#playing = this.#lingering = null;
    this.#offer = null;
    this.#isSocketUp = this.#isBeside = this.#isToMove = this.#hasPlayed = false;
    this.#slotsAnswered = 0;
    this.#mending.reset();
    this.#silence.reset();
    this.#isBroken.value = this.#isHopeless.value = false;
    for (const timer of [this.#mendTimer, this.#sampleTimer, this.#flowTimer, this.#lingerTimer]) {
      if (timer !== null) this.env.clearTimer(timer);
    }
    this.#mendTimer = this.#sampleTimer = this.#flowTimer = this.#lingerTimer = null;
  }

  #slots(): number {
    return Math.max(VIDEO_SLOTS_MIN, this.#peer?.videoSlots ?? 0);
  }

  #make(
    newPeerConnection: NonNullable<Environment['newPeerConnection']>,
    videoSlots: number,
    beside: boolean,
    relay: RelayCredentials | null,
  ): void {
    // One that never played has nothing that is worth keeping.
    if (this.#peer !== this.#playing || !this.#hasPlayed) this.#peer?.close();
    if (!this.#hasPlayed) this.#playing = null;
    else if (!beside) for (const kind of KINDS) this.#playing?.setTrack(kind, null);
    if (this.#flowTimer !== null) this.env.clearTimer(this.#flowTimer);
    this.#flowTimer = null;
    this.#connection = 'new';
    this.#voices = null;
    this.#isHurried = false;
    this.#walls.handleNewPeer(relay !== null);
    const ifCurrent =
      <A extends unknown[]>(run: (...args: A) => void) =>
      (...args: A) => {
        if (peer === this.#peer) run(...args);
      };
    const peer: Peer = new Peer(
      newPeerConnection,
      this.env.newStream,
      this.streams,
      videoSlots,
      AUDIO_SLOTS,
      iceServers(this.env.location, relay),
      {
        onOffer: ifCurrent((offer: Offer) => {
          this.#offer = { ...offer, revision: 0 };
          this.sendOffer();
        }),
        onConnection: (state: RTCPeerConnectionState) => {
          if (peer === this.#peer) this.#handleConnection(peer, state, beside);
          else if (peer === this.#playing && state !== 'connected') this.#handleOldEnded();
        },
        onGathered: ifCurrent((hasCandidates: boolean) => {
          if (this.#walls.handleGathered(hasCandidates)) void this.#tryRelay();
          else if (!hasCandidates) this.#mending.handleNoWay(this.env.now());
          this.#mend();
        }),
        onFlow: ifCurrent((isVoice: boolean) => {
          this.#voices = (this.#voices ?? 0) + (isVoice ? 1 : 0);
          this.#handleFlow(peer, beside);
        }),
        onFailed: ifCurrent(() => {
          this.#mending.handleConnection('failed', this.env.now());
          this.#mend();
        }),
      },
    );
    this.#peer = peer;
    if (!this.#playing) {
      this.#isBeside = false;
      this.#playing = peer;
      peer.play();
    }
    for (const kind of KINDS) peer.setTrack(kind, this.hooks.track(kind));
    peer.negotiate();
    if (this.audios.value.length === 0) this.audios.value = [...this.streams.audio];
  }

  #handleConnection(peer: Peer, state: RTCPeerConnectionState, beside: boolean): void {
    this.#connection = state;
    this.#mending.handleConnection(state, this.env.now());
    if (state === 'connected') {
      if (peer === this.#playing) this.#hasPlayed = true;
      else if (!beside) this.#takeOver(peer, beside);
      else {
        this.#flowTimer ??= this.env.setTimer(() => this.#takeOver(peer, beside), FLOW_MS_MAX);
        this.#handleFlow(peer, beside);
      }
      void this.#rememberWay(peer);
    } else if (state === 'failed') {
      this.#walls.handleFailed();
    }
    this.#mend();
  }

  /** Takes over once every voice is here, or soon after the first. */
  #handleFlow(peer: Peer, beside: boolean): void {
    if (this.#voices === null || this.#connection !== 'connected') return;
    if (!beside || this.#voices >= Math.min(AUDIO_SLOTS, this.hooks.voices())) {
      this.#takeOver(peer, beside);
    } else if (!this.#isHurried && this.#flowTimer !== null) {
      this.#isHurried = true;
      this.env.clearTimer(this.#flowTimer);
      this.#flowTimer = this.env.setTimer(() => this.#takeOver(peer, beside), VOICES_MS_MAX);
    }
  }

  /** The old server has ended: nothing is heard on it any more, whether or not the new one has something to play. */
  #handleOldEnded(): void {
    this.#isBeside = false;
    if (this.#flowTimer !== null && this.#peer) this.#takeOver(this.#peer, true);
  }

  /** The new peer connection plays; the old one ends, or lingers for those who still listen to it. */
  #takeOver(peer: Peer, beside: boolean): void {
    if (this.#flowTimer !== null) this.env.clearTimer(this.#flowTimer);
    this.#flowTimer = null;
    const old = this.#playing;
    if (peer !== this.#peer || peer === old) return;
    this.#playing = peer;
    this.#hasPlayed = true;
    this.#isBeside = false;
    peer.play();
    this.hooks.onTakeOver();
    if (!beside) {
      old?.close();
      return;
    }
    this.#lingering?.close();
    this.#lingering = old;
    if (this.#lingerTimer !== null) this.env.clearTimer(this.#lingerTimer);
    this.#lingerTimer = this.env.setTimer(() => {
      this.#lingerTimer = null;
      this.#lingering?.close();
      this.#lingering = null;
    }, LINGER_MS);
  }

  async #rememberWay(peer: Peer): Promise<void> {
    const stats = await peer.stats().catch(() => null);
    if (!stats || peer !== this.#peer) return;
    this.#walls.handleConnected(stats.isRelayed);
    writeRelay(this.env.localStorage, stats.isRelayed);
  }

  /** Another peer connection, with the relay, if this bridge has one. */
  async #tryRelay(): Promise<void> {
    const generation = this.#generation;
    const relay = await this.hooks.relay();
    if (relay && generation === this.#generation && this.#connection !== 'connected')
      this.makePeer(this.#slots());
  }

  /** Reads how much has arrived, and sees to it that a silence is acted on. */
  async #sample(): Promise<void> {
    const peer = this.#peer;
    if (peer && this.#connection === 'connected') {
      const stats = await peer.stats().catch(() => null);
      if (this.#sampleTimer === null) return; // ended meanwhile
      if (stats && peer === this.#peer) {
        const before = this.#silence.silentMs;
        this.#silence.handleSample(stats.bytesReceived, this.env.now());
        const { silentMs } = this.#silence;
        this.#mending.handleSilence(silentMs, this.env.now());
        if (silentMs >= SILENT_MS && before < SILENT_MS) this.hooks.onSilent();
        this.#mend();
      }
    }
    this.#sampleTimer = this.env.setTimer(() => void this.#sample(), SAMPLE_MS);
  }

  /** Does what is due about a lost transport, and sees to being called again. */
  #mend(): void {
    if (this.#mendTimer !== null) this.env.clearTimer(this.#mendTimer);
    this.#mendTimer = null;
    this.#isBroken.value = this.#mending.isBroken;
    this.#isHopeless.value = this.#mending.isHopeless;
    if (!this.#isSocketUp || !this.#peer) return;
    const now = this.env.now();
    switch (this.#mending.handleWake(now)) {
      case 'restart-ice':
        this.#peer.restartIce();
        break;
      case 'replace':
        if (this.#connection !== 'connected') this.#walls.handleFailed();
        this.makePeer(this.#slots());
        break;
      case null:
        if (this.#walls.handleWake(now)) void this.#tryRelay();
        break;
    }
    const due = [this.#mending.wakeAt, this.#walls.wakeAt].filter((at) => at !== null);
    if (due.length === 0) return;
    this.#mendTimer = this.env.setTimer(() => this.#mend(), Math.max(0, Math.min(...due) - now));
  }
}
