// Whether to go through the bridge's own relay (TURN, RFC 8656). Pure.
//
// A relay costs the server an allocation for each person, so the first peer connection goes without. One that finds
// no way out makes room for another that may use both ways; what the browser chose then is remembered for the next
// time, until a direct way is found again.

import type { Environment } from './env';
import type { RelayCredentials } from './protocol';

/** From the answer to a connection: a direct way over UDP or TCP is found within two round trips of a slow line. */
export const DIRECT_MS_MAX = 2_500;

export class Walls {
  #isNeeded: boolean;
  #dueAt: number | null = null;
  #isRelayed = false;

  /** `remembered`: the relay was the way that worked last time. */
  constructor(remembered: boolean) {
    this.#isNeeded = remembered;
  }

  /** Whether the next peer connection is to be given the relay. */
  get isNeeded(): boolean {
    return this.#isNeeded;
  }

  /** When to call `handleWake`; null for never. */
  get wakeAt(): number | null {
    return this.#dueAt;
  }

  /** A peer connection was made, with or without the relay. */
  handleNewPeer(isRelayed: boolean): void {
    this.#isRelayed = isRelayed;
    this.#dueAt = null;
  }

  /** The browser has looked for ways out. Says whether a peer connection with the relay should take its place. */
  handleGathered(hasCandidates: boolean): boolean {
    if (hasCandidates || this.#isRelayed) return false;
    this.#isNeeded = true;
    return true;
  }

  /** The answer is there: from here on a connection is due. */
  handleAnswered(now: number): void {
    if (!this.#isRelayed) this.#dueAt = now + DIRECT_MS_MAX;
  }

  /** Connected, by the relay or not: what is to be remembered. */
  handleConnected(byRelay: boolean): void {
    this.#dueAt = null;
    this.#isNeeded = byRelay;
  }

  /** A peer connection came to nothing. */
  handleFailed(): void {
    this.#dueAt = null;
    this.#isNeeded = true;
  }

  /** Whether a peer connection with the relay should be made now. */
  handleWake(now: number): boolean {
    if (this.#dueAt === null || now < this.#dueAt) return false;
    this.#dueAt = null;
    this.#isNeeded = true;
    return true;
  }
}

/** The relay at the page's own host and port: over UDP, over TCP and, with a certificate that browsers take, over TLS. */
export function iceServers(
  location: Pick<Environment['location'], 'protocol' | 'host'>,
  relay: RelayCredentials | null,
): RTCIceServer[] {
  if (!relay) return [];
  const isSecure = location.protocol === 'https:';
  const hasPort = /:\d+$/.test(location.host);
  const host = hasPort ? location.host : `${location.host}:${isSecure ? 443 : 80}`;
  const urls = [`turn:${host}?transport=udp`, `turn:${host}?transport=tcp`];
  if (isSecure && relay.tls) urls.push(`turns:${host}?transport=tcp`);
  return [{ urls, username: relay.username, credential: relay.credential }];
}
