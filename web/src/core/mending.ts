// Decides how a lost media transport is mended: wait, restart ICE, or start over with a new peer connection.
// Pure: it is told what the browser and the server report, and answers with what to do.

import { SILENT_MS } from './silence';

/** A short gap mends itself: a lost packet or a change of access point. */
const DISCONNECTED_MS_MAX = 2_500;
/** Longest time from an offer or its answer to a connected transport before something else is tried. */
const CONNECT_MS_MAX = 8_000;
/** The server says that nothing comes from us while the browser thinks that all is well: who is right? */
const CONTRADICTION_MS_MAX = 2_000;
/** From an ICE restart because of silence, or its answer, to the first byte; then the peer connection is replaced. */
const SILENT_RESTART_MS_MAX = 5_000;
/** A silence is told only when the restart, which takes a few round trips, has not ended it. */
const SILENCE_TOLD_MS = 3_500;
/** From a look for ways out that found none to another try: the network is gone, or what the relay is asked with. */
const NO_WAY_MS = 1_000;
const REPLACE_DELAY_MS_MIN = 500;
const REPLACE_DELAY_MS_MAX = 15_000;
/** After this many new peer connections without success people are told; it goes on being tried. */
const FAILURES_TOLD = 3;

export type Remedy = 'restart-ice' | 'replace';

export class Mending {
  #connection: RTCPeerConnectionState = 'new';
  #everConnected = false;
  #due: { at: number; remedy: Remedy } | null = null;
  #failures = 0;
  #isRestarted = false;
  #isGivenUp = false;
  #hasNoWay = false;
  #silentMs = 0;

  /** When to call `handleWake`; null for never. */
  get wakeAt(): number | null {
    return this.#due?.at ?? null;
  }

  /** Media flowed once, and does not now. */
  get isBroken(): boolean {
    return this.#everConnected && (this.#connection !== 'connected' || this.#silentMs >= SILENCE_TOLD_MS);
  }

  /** So many tries went wrong that people should know. */
  get isHopeless(): boolean {
    return this.#isGivenUp || (this.#failures >= FAILURES_TOLD && this.#connection !== 'connected');
  }

  /** A new peer connection took the place of the last. */
  handleNewPeer(): void {
    this.#connection = 'new';
    this.#isRestarted = false;
    this.#hasNoWay = false;
    this.#silentMs = 0;
    this.#due = null;
  }

  /** A new membership begins: earlier failures are forgotten. */
  reset(): void {
    this.handleNewPeer();
    this.#everConnected = false;
    this.#failures = 0;
    this.#isGivenUp = false;
  }

  /** The server will not have what this browser offers: nothing is tried again in this membership. */
  giveUp(): void {
    this.#isGivenUp = true;
    this.#due = null;
  }

  /** An offer went out or its answer came: from here on a connection is due. */
  handleSignaled(now: number): void {
    if (this.#hasNoWay) return;
    if (this.#connection !== 'connected') this.#plan('replace', now + CONNECT_MS_MAX);
    else if (this.#isSilent && this.#isRestarted) this.#plan('replace', now + SILENT_RESTART_MS_MAX);
  }

  /** The browser has looked for ways out, through the relay as well, and found none: no answer will help. */
  handleNoWay(now: number): void {
    if (this.#connection === 'connected' && !this.#isSilent) return;
    this.#hasNoWay = true;
    this.#plan('replace', now + Math.min(REPLACE_DELAY_MS_MAX, NO_WAY_MS * 2 ** this.#failures));
  }

  /** For how long nothing has come from the server while the browser may still think that all is well. */
  handleSilence(silentMs: number, now: number): void {
    const wasSilent = this.#isSilent;
    this.#silentMs = silentMs;
    if (this.#connection !== 'connected') return;
    if (this.#isSilent && !wasSilent && !this.#due) this.#plan('restart-ice', now);
    if (!this.#isSilent && wasSilent) {
      this.#due = null;
      this.#isRestarted = false;
    }
  }

  handleConnection(state: RTCPeerConnectionState, now: number): void {
    this.#connection = state;
    switch (state) {
      case 'connected':
        this.#everConnected = true;
        this.#failures = 0;
        // "Connected" is said of a restart before anything has come the new way.
        if (this.#isSilent) break;
        this.#isRestarted = false;
        this.#hasNoWay = false;
        this.#due = null;
        break;
      case 'disconnected':
        // A restart that is under way, because of silence, is given its time.
        if (!(this.#isRestarted && this.#due)) this.#plan('restart-ice', now + DISCONNECTED_MS_MAX);
        break;
      case 'failed':
        // A transport that never came up, or whose restart failed, is not helped by another restart.
        if (this.#everConnected && !this.#isRestarted) this.#plan('restart-ice', now);
        else this.#planReplace(now);
        break;
      default:
        break;
    }
  }

  handleServerState(state: 'connected' | 'disconnected' | 'lost', now: number): void {
    switch (state) {
      case 'connected':
        if (this.#connection === 'connected' && !this.#isSilent) this.#due = null;
        break;
      case 'disconnected':
        // What it says of a transport that is already being replaced is old news.
        if (this.#connection === 'connected') this.#plan('replace', now + CONTRADICTION_MS_MAX);
        break;
      case 'lost':
        this.#plan('replace', now);
        break;
    }
  }

  /** What is due. Call only while the socket is up: an offer has to reach the server. */
  handleWake(now: number): Remedy | null {
    if (!this.#due || now < this.#due.at) return null;
    const { remedy } = this.#due;
    this.#due = null;
    if (remedy === 'restart-ice') {
      this.#isRestarted = true;
      this.#hasNoWay = false;
      this.#plan('replace', now + (this.#isSilent ? SILENT_RESTART_MS_MAX : CONNECT_MS_MAX));
    } else if (this.#connection !== 'connected') {
      this.#failures += 1;
    }
    return remedy;
  }

  get #isSilent(): boolean {
    return this.#silentMs >= SILENT_MS;
  }

  #planReplace(now: number): void {
    const delayMs = Math.min(REPLACE_DELAY_MS_MAX, REPLACE_DELAY_MS_MIN * 2 ** this.#failures);
    this.#plan('replace', now + (this.#failures === 0 ? 0 : delayMs));
  }

  #plan(remedy: Remedy, at: number): void {
    if (this.#isGivenUp) return;
    this.#due = { at, remedy };
  }
}
