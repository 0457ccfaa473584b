// The signaling socket as a machine: when to fetch a token, to open, to greet, to take the line for dead and to
// try again. It is told what happened and answers with what to do; it never touches a socket or a clock
// (`carrier.ts` does).

import type { Problem } from './model';
import { VERSIONS, type ByeReason, type ClientMessage, type ErrorCode, type ServerMessage } from './protocol';

type Welcome = Extract<ServerMessage, { type: 'welcome' }>;

/** A token is good for a few minutes on the server; older ones than this are fetched anew. */
const TOKEN_MS_MAX = 90_000;
/** A socket opened ahead in the lobby is closed by the server when it stays silent for 10 s. */
const READY_MS_MAX = 8_000;
/** Longest wait for the token, for the socket to open, and for the welcome. */
const STEP_MS_MAX = 8_000;
/** Most tries of a first join before it is said that the server cannot be reached. */
const JOIN_TRIES_MAX = 4;
/** A forged or expired token is replaced this often in a row; a server that refuses fresh ones has a fault. */
const TOKEN_REFUSALS_MAX = 3;
/** A network that is gone swallows what is tried on it; who was in the meeting waits no longer than this for a step. */
const RESUME_STEP_MS_MAX = 4_000;
/** A socket that is asked whether it is alive, and in doubt, says so within this, or it is not. */
const PONG_MS_MAX = 1_000;
/** The same where nothing but a long silence speaks against it: a lost packet or two of a bad line later. */
const PATIENT_PONG_MS_MAX = 4_000;
/** Whoever says something after the server was silent for this long wants to know whether it was heard. */
const SAID_AFTER_MS = 5_000;
const BACKOFF_MS_MIN = 400;
/** Right after a loss: a bridge that is started again is back in a second or two, and so is everyone. */
const BACKOFF_SOON_MS_MAX = 1_000;
const SOON_MS = 30_000;
/** Later: short enough that a meeting is back soon after the network is. */
const BACKOFF_MS_MAX = 4_000;

export type SocketInput =
  | { type: 'prepare' } // someone is about to join: get ready
  | { type: 'join'; name: string; resume: string | null }
  | { type: 'token'; token: string }
  | { type: 'token-failed'; status: number | null } // null: nothing was heard
  | { type: 'opened' }
  | { type: 'closed' }
  | { type: 'message'; message: ServerMessage }
  | { type: 'wake' } // `wakeAt` has come
  | { type: 'online' } // the network is back, or another one
  | { type: 'check' } // is the socket still alive? Media has fallen silent, or the page was away
  | { type: 'said' } // something was sent past the machine
  | { type: 'rename'; name: string }
  | { type: 'leave' };

export type SocketEffect =
  | { type: 'fetch-token' }
  | { type: 'open' }
  | { type: 'close' } // the socket, and whatever token is under way
  | { type: 'send'; message: ClientMessage }
  | { type: 'greeted'; resuming: boolean } // the hello is out; more may be sent behind it
  | { type: 'welcome'; welcome: Welcome }
  | { type: 'message'; message: ServerMessage }
  | { type: 'down'; reason: DownReason } // was up, and is being mended
  | { type: 'ended'; problem: Problem | null }; // not tried again

/** `moving`: another process takes over; media of the old one may go on for a while. */
export type DownReason = 'lost' | 'stopping' | 'moving';

type State = 'idle' | 'token' | 'opening' | 'ready' | 'greeting' | 'up' | 'waiting';

export class SocketMachine {
  #state: State = 'idle';
  #wanted: 'nothing' | 'ready' | 'joined' = 'nothing';
  #name = '';
  #resume: string | null = null;
  #token: { text: string; at: number } | null = null;
  #wasUp = false;
  #tries = 0;
  #tokenRefusals = 0;
  #since = 0;
  #silenceMs = 0;
  /** When the server was last heard on a socket that is up. */
  #heardAt = 0;
  /** When an answer to a ping is due; null while none is awaited. */
  #pongDueAt: number | null = null;
  #nonce = 0;
  /** When the socket that was up was lost. */
  #lostAt = -Infinity;
  /** When to call with `wake`; null for never. */
  wakeAt: number | null = null;

  constructor(private readonly random: () => number) {}

  get state(): State {
    return this.#state;
  }

  handle(input: SocketInput, now: number): SocketEffect[] {
    switch (input.type) {
      case 'prepare':
        if (this.#wanted === 'joined' || this.#state !== 'idle') return [];
        this.#wanted = 'ready';
        return this.#connect(now);
      case 'join':
        return this.#handleJoin(input.name, input.resume, now);
      case 'token':
        if (this.#state !== 'token') return [];
        this.#token = { text: input.token, at: now };
        return this.#open(now);
      case 'token-failed':
        if (this.#state !== 'token') return [];
        // 4xx but "too many requests": trying again would only hear the same.
        if (input.status !== null && input.status >= 400 && input.status < 500 && input.status !== 429) {
          const problem = input.status === 400 ? 'bad-name' : 'internal';
          return this.#wanted === 'joined' ? this.#end(problem) : this.#rest();
        }
        if (input.status === 503 && !this.#wasUp) {
          return this.#wanted === 'joined' ? this.#end('server-full') : this.#rest();
        }
        return this.#retry(now);
      case 'opened':
        if (this.#state !== 'opening') return [];
        return this.#wanted === 'joined' ? this.#greet(now) : this.#step('ready', now, null);
      case 'closed':
        return this.#handleClosed(now);
      case 'message':
        return this.#handleMessage(input.message, now);
      case 'wake':
        return this.#handleWake(now);
      case 'online':
        // What is under way may be under way on a network that is gone.
        if (this.#wanted === 'joined' && (this.#state === 'token' || this.#state === 'opening')) {
          return this.#connect(now);
        }
        return this.#check(now);
      case 'check':
        return this.#check(now);
      case 'said':
        return this.#said(now);
      case 'rename':
        this.#name = input.name;
        if (this.#state !== 'up') return [];
        return [{ type: 'send', message: { type: 'rename', name: input.name } }, ...this.#said(now)];
      case 'leave': {
        const effects: SocketEffect[] =
          this.#state === 'up' || this.#state === 'greeting'
            ? [{ type: 'send', message: { type: 'leave' } }]
            : [];
        return [...effects, ...this.#end(null)];
      }
    }
  }

  #handleJoin(name: string, resume: string | null, now: number): SocketEffect[] {
    this.#name = name;
    if (this.#wanted === 'joined') return [];
    this.#resume = resume;
    this.#wanted = 'joined';
    this.#wasUp = false;
    this.#tries = 0;
    this.#tokenRefusals = 0;
    switch (this.#state) {
      case 'ready':
        return now - this.#since <= READY_MS_MAX ? this.#greet(now) : this.#connect(now);
      case 'token':
      case 'opening':
        return [];
      default:
        return this.#connect(now);
    }
  }

  #handleMessage(message: ServerMessage, now: number): SocketEffect[] {
    if (this.#state !== 'greeting' && this.#state !== 'up') return [];
    if (this.#state === 'up') {
      this.#heardAt = now;
      // Whatever it says, it is alive.
      this.#pongDueAt = null;
      this.wakeAt = now + this.#askAfterMs;
    }
    switch (message.type) {
      case 'welcome':
        if (this.#state !== 'greeting') return [];
        this.#resume = message.resume;
        this.#silenceMs = message.silence_ms_max;
        this.#wasUp = true;
        this.#tries = 0;
        this.#tokenRefusals = 0;
        return this.#step('up', now, now + this.#askAfterMs, { type: 'welcome', welcome: message });
      case 'resume':
        this.#resume = message.token;
        return [{ type: 'message', message }];
      case 'ping':
        return [
          { type: 'send', message: { type: 'pong', nonce: message.nonce } },
          { type: 'message', message },
        ];
      case 'pong':
        return [];
      case 'error':
        return message.fatal ? this.#handleFatal(message.code, now) : [{ type: 'message', message }];
      case 'bye':
        return this.#handleBye(message.reason, now);
      default:
        return [{ type: 'message', message }];
    }
  }

  #handleFatal(code: ErrorCode, now: number): SocketEffect[] {
    const fate = fateOf(code);
    if (fate === 'retry') return this.#retry(now);
    if (fate === 'fresh-token') {
      this.#token = null;
      this.#tokenRefusals += 1;
      return this.#tokenRefusals < TOKEN_REFUSALS_MAX ? this.#connect(now) : this.#end('internal');
    }
    return this.#end(fate);
  }

  #handleBye(reason: ByeReason, now: number): SocketEffect[] {
    switch (reason) {
      case 'left':
        return this.#end(null);
      case 'replaced':
        return this.#end('replaced');
      case 'moving':
        return this.#reopen(now, 'moving');
      case 'stopping':
        return this.#retry(now, 'stopping');
    }
  }

  #handleClosed(now: number): SocketEffect[] {
    switch (this.#state) {
      case 'ready': // the server does not keep silent guests; Join will open another
        return this.#rest();
      case 'opening':
      case 'greeting':
      case 'up':
        return this.#retry(now);
      default:
        return [];
    }
  }

  #handleWake(now: number): SocketEffect[] {
    if (this.wakeAt === null || now < this.wakeAt) return [];
    switch (this.#state) {
      case 'waiting':
        return this.#connect(now);
      case 'token':
      case 'opening':
      case 'greeting':
        return this.#retry(now);
      case 'up': // silence
        return this.#pongDueAt === null ? this.#ask(now, PATIENT_PONG_MS_MAX) : this.#reopen(now, 'lost');
      default:
        this.wakeAt = null;
        return [];
    }
  }

  /** Asks a socket that is up for a sign of life; ends the wait for one that is not. */
  #check(now: number): SocketEffect[] {
    return this.#state === 'waiting' ? this.#connect(now) : this.#ask(now, PONG_MS_MAX);
  }

  #said(now: number): SocketEffect[] {
    return now - this.#heardAt > SAID_AFTER_MS ? this.#ask(now, PATIENT_PONG_MS_MAX) : [];
  }

  /** Asks once, however often it is called meanwhile; the least patient decides. */
  #ask(now: number, patienceMs: number): SocketEffect[] {
    if (this.#state !== 'up') return [];
    const isAsked = this.#pongDueAt !== null;
    this.#pongDueAt = Math.min(this.#pongDueAt ?? Infinity, now + patienceMs);
    this.wakeAt = this.#pongDueAt;
    if (isAsked) return [];
    this.#nonce += 1;
    return [{ type: 'send', message: { type: 'ping', nonce: this.#nonce } }];
  }

  /** A socket that has said nothing for this long is asked: long before the server would have it taken for dead. */
  get #askAfterMs(): number {
    return this.#silenceMs / 2;
  }

  #connect(now: number): SocketEffect[] {
    if (this.#token && now - this.#token.at <= TOKEN_MS_MAX) return [{ type: 'close' }, ...this.#open(now)];
    return [{ type: 'close' }, ...this.#step('token', now, now + this.#stepMsMax, { type: 'fetch-token' })];
  }

  #open(now: number): SocketEffect[] {
    return this.#step('opening', now, now + this.#stepMsMax, { type: 'open' });
  }

  #greet(now: number): SocketEffect[] {
    const hello: ClientMessage = {
      type: 'hello',
      versions: [...VERSIONS],
      token: this.#token?.text ?? '',
      name: this.#name,
      ...(this.#resume === null ? {} : { resume: this.#resume }),
    };
    return this.#step(
      'greeting',
      now,
      now + this.#stepMsMax,
      { type: 'send', message: hello },
      { type: 'greeted', resuming: this.#resume !== null },
    );
  }

  get #stepMsMax(): number {
    return this.#wasUp ? RESUME_STEP_MS_MAX : STEP_MS_MAX;
  }

  /** The socket is no good any more and there is no reason to wait: another one at once. */
  #reopen(now: number, reason: DownReason): SocketEffect[] {
    const effects: SocketEffect[] = this.#state === 'up' ? [{ type: 'down', reason }] : [];
    this.#lostAt = now;
    return [...effects, ...this.#connect(now)];
  }

  #retry(now: number, reason: DownReason = 'lost'): SocketEffect[] {
    const effects: SocketEffect[] = [{ type: 'close' }];
    if (this.#state === 'up') {
      this.#lostAt = now;
      effects.push({ type: 'down', reason });
    }
    if (this.#wanted !== 'joined') return [...effects, ...this.#rest()];
    this.#tries += 1;
    if (!this.#wasUp && this.#tries >= JOIN_TRIES_MAX)
      return [...effects, ...this.#end('server-unreachable')];
    const boundMs = this.#wasUp && now - this.#lostAt < SOON_MS ? BACKOFF_SOON_MS_MAX : BACKOFF_MS_MAX;
    this.#step('waiting', now, now + backoffMs(this.#tries, this.random(), boundMs));
    return effects;
  }

  /** The lobby without a socket: Join makes one. */
  #rest(): SocketEffect[] {
    this.#step('idle', 0, null);
    return [{ type: 'close' }];
  }

  #end(problem: Problem | null): SocketEffect[] {
    this.#wanted = 'nothing';
    this.#resume = null;
    this.#step('idle', 0, null);
    return [{ type: 'close' }, { type: 'ended', problem }];
  }

  #step(state: State, now: number, wakeAt: number | null, ...effects: SocketEffect[]): SocketEffect[] {
    this.#state = state;
    this.#since = now;
    if (state === 'up') this.#heardAt = now;
    this.#pongDueAt = null;
    this.wakeAt = wakeAt;
    return effects;
  }
}

/** What to do about a fatal error. */
export function fateOf(code: ErrorCode): Problem | 'retry' | 'fresh-token' {
  switch (code) {
    case 'unsupported_version':
      return 'outdated-client';
    case 'meeting_full':
      return 'meeting-full';
    case 'server_full':
      return 'server-full';
    case 'invalid_token':
      return 'fresh-token';
    case 'too_slow':
    case 'too_many_requests':
      return 'retry';
    default:
      return 'internal';
  }
}

/** Doubles from try to try up to a bound; half of it is chance, so that a room does not come back as one. */
export function backoffMs(tries: number, random: number, boundMs = BACKOFF_MS_MAX): number {
  const full = Math.min(boundMs, BACKOFF_MS_MIN * 2 ** (tries - 1));
  return full / 2 + (full / 2) * random;
}
