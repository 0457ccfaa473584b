// Carries out what the socket machine decides: fetches, opens, sends, closes, and wakes it. Decides nothing.

import type { Environment, SocketLike } from './env';
import type { ClientMessage, RelayCredentials, ServerMessage, TokenResponse } from './protocol';
import { SocketMachine, type SocketEffect, type SocketInput } from './socket';

/** What the machine tells of the line, beyond what is carried out here. */
export type LineEvent = Extract<SocketEffect, { type: 'greeted' | 'welcome' | 'message' | 'down' | 'ended' }>;

/** Credentials of the relay belong to a join token; older ones than this are fetched anew with it. */
const RELAY_MS_MAX = 90_000;

export class Carrier {
  readonly #machine: SocketMachine;
  #socket: SocketLike | null = null;
  #isOpen = false;
  /** Counts sockets and token fetches, so that what a given-up one says later is not heard. */
  #generation = 0;
  #timer: number | null = null;
  #relay: { credentials: RelayCredentials | null; at: number } | null = null;

  constructor(
    private readonly env: Environment,
    /** The meeting's name as it stands in the path. */
    private readonly meeting: string,
    private readonly onEvent: (event: LineEvent) => void,
  ) {
    this.#machine = new SocketMachine(env.random);
    env.onOnline(() => this.handle({ type: 'online' }));
    env.onDoubt(() => this.handle({ type: 'check' }));
  }

  handle(input: SocketInput): void {
    const effects = this.#machine.handle(input, this.env.now());
    this.#arm();
    for (const effect of effects) this.#run(effect);
  }

  /** Sends if the hello is out; says whether it did. */
  send(message: ClientMessage): boolean {
    const { state } = this.#machine;
    if (!this.#isOpen || (state !== 'greeting' && state !== 'up')) return false;
    this.#socket?.send(JSON.stringify(message));
    this.handle({ type: 'said' });
    return true;
  }

  /** Credentials for the bridge's relay that are still fresh; null where there is none or it cannot be asked. */
  async relay(): Promise<RelayCredentials | null> {
    const known = this.#relay;
    if (known && this.env.now() - known.at <= RELAY_MS_MAX) return known.credentials;
    try {
      await this.#askToken();
    } catch {
      return null;
    }
    return this.#relay?.credentials ?? null;
  }

  #run(effect: SocketEffect): void {
    switch (effect.type) {
      case 'fetch-token':
        void this.#fetchToken();
        break;
      case 'open':
        this.#open();
        break;
      case 'close':
        this.#close();
        break;
      case 'send':
        if (this.#isOpen) this.#socket?.send(JSON.stringify(effect.message));
        break;
      default:
        this.onEvent(effect);
    }
  }

  async #fetchToken(): Promise<void> {
    const generation = ++this.#generation;
    let input: SocketInput;
    try {
      const { status, token } = await this.#askToken();
      input = token === null ? { type: 'token-failed', status } : { type: 'token', token };
    } catch {
      input = { type: 'token-failed', status: null };
    }
    if (generation === this.#generation) this.handle(input);
  }

  async #askToken(): Promise<{ status: number; token: string | null }> {
    const path = `/api/meetings/${encodeURIComponent(this.meeting)}/token`;
    const response = await this.env.fetch(path, { method: 'POST' });
    if (!response.ok) return { status: response.status, token: null };
    const { token, relay } = (await response.json()) as TokenResponse;
    this.#relay = { credentials: relay ?? null, at: this.env.now() };
    return { status: response.status, token };
  }

  #open(): void {
    const generation = ++this.#generation;
    const { protocol, host } = this.env.location;
    const socket = this.env.openSocket(`${protocol === 'https:' ? 'wss' : 'ws'}://${host}/api/socket`);
    const isCurrent = () => generation === this.#generation;
    socket.onopen = () => {
      if (!isCurrent()) return;
      this.#isOpen = true;
      this.handle({ type: 'opened' });
    };
    socket.onmessage = (event) => {
      const message = isCurrent() ? parse(event.data) : null;
      if (message) this.handle({ type: 'message', message });
    };
    socket.onclose = () => {
      if (!isCurrent()) return;
      this.#isOpen = false;
      this.handle({ type: 'closed' });
    };
    this.#socket = socket;
  }

  #close(): void {
    this.#generation += 1;
    this.#isOpen = false;
    this.#socket?.close();
    this.#socket = null;
  }

  #arm(): void {
    if (this.#timer !== null) this.env.clearTimer(this.#timer);
    this.#timer = null;
    const { wakeAt } = this.#machine;
    if (wakeAt === null) return;
    const delayMs = Math.max(0, wakeAt - this.env.now());
    this.#timer = this.env.setTimer(() => this.handle({ type: 'wake' }), delayMs);
  }
}

/** Unknown types pass: a newer server may say more, and the machines ignore what they do not know. */
function parse(data: unknown): ServerMessage | null {
  if (typeof data !== 'string') return null;
  try {
    const message: unknown = JSON.parse(data);
    return typeof message === 'object' && message !== null && 'type' in message
      ? (message as ServerMessage)
      : null;
  } catch {
    return null;
  }
}
