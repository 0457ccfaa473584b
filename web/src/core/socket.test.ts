import { describe, expect, test } from 'vitest';
import type { ErrorCode, ServerMessage } from './protocol';
import { SocketMachine, backoffMs, fateOf, type SocketEffect, type SocketInput } from './socket';
import { RESUME_MS, SILENCE_MS, welcome } from './testing/call';

/** The machine with a clock, remembering what it last asked for. */
class Driven {
  readonly machine: SocketMachine;
  now = 1_000_000;

  constructor(random = () => 0.5) {
    this.machine = new SocketMachine(random);
  }

  in(...inputs: SocketInput[]): SocketEffect[] {
    return inputs.flatMap((input) => this.machine.handle(input, this.now));
  }

  say(message: ServerMessage): SocketEffect[] {
    return this.in({ type: 'message', message });
  }

  /** Sleeps until the machine wants to be woken. */
  wake(): SocketEffect[] {
    if (this.machine.wakeAt === null) throw new Error('the machine sleeps for ever');
    this.now = this.machine.wakeAt;
    return this.in({ type: 'wake' });
  }

  join(resume: string | null = null): SocketEffect[] {
    return this.in({ type: 'join', name: 'Me', resume });
  }

  up(): this {
    this.join();
    this.in({ type: 'token', token: 't' }, { type: 'opened' });
    this.say(welcome([]));
    return this;
  }

  /** A whole attempt to reconnect that meets an open socket. */
  reconnect(): SocketEffect[] {
    const effects = this.wake();
    if (this.machine.state === 'token') effects.push(...this.in({ type: 'token', token: 't' }));
    return [...effects, ...this.in({ type: 'opened' })];
  }
}

const types = (effects: SocketEffect[]) => effects.map((effect) => effect.type);
const hello = (effects: SocketEffect[]) => {
  for (const effect of effects) {
    if (effect.type === 'send' && effect.message.type === 'hello') return effect.message;
  }
  throw new Error('no hello was sent');
};
const fatal = (code: ErrorCode): ServerMessage => ({ type: 'error', code, message: '', fatal: true });

test('the lobby fetches a token and opens a socket, and says nothing on it', () => {
  const socket = new Driven();
  expect(types(socket.in({ type: 'prepare' }))).toEqual(['close', 'fetch-token']);
  expect(types(socket.in({ type: 'token', token: 't' }))).toEqual(['open']);
  expect(socket.in({ type: 'opened' })).toEqual([]);
  expect(socket.machine.state).toBe('ready');
});

test('joining on a ready socket says hello at once', () => {
  const socket = new Driven();
  socket.in({ type: 'prepare' }, { type: 'token', token: 't' }, { type: 'opened' });
  expect(hello(socket.join())).toEqual({ type: 'hello', versions: [1], token: 't', name: 'Me' });
});

test('a socket that the server closed in the lobby is opened again by Join, not before', () => {
  const socket = new Driven();
  socket.in({ type: 'prepare' }, { type: 'token', token: 't' }, { type: 'opened' });
  expect(types(socket.in({ type: 'closed' }))).not.toContain('open');
  expect(types(socket.join())).toEqual(['close', 'open']);
});

test('an old token is fetched anew', () => {
  const socket = new Driven();
  socket.in({ type: 'prepare' }, { type: 'token', token: 't' }, { type: 'opened' }, { type: 'closed' });
  socket.now += 20 * 60_000;
  expect(types(socket.join())).toEqual(['close', 'fetch-token']);
});

test('a lost socket is reconnected with the resume token', () => {
  const socket = new Driven().up();
  expect(socket.in({ type: 'closed' })).toContainEqual({ type: 'down', reason: 'lost' });
  expect(hello(socket.reconnect()).resume).toBe('resume me');
});

test('pings are answered', () => {
  const socket = new Driven().up();
  socket.now += SILENCE_MS / 2 - 1;
  expect(socket.say({ type: 'ping', nonce: 7 })).toContainEqual({
    type: 'send',
    message: { type: 'pong', nonce: 7 },
  });
  expect(socket.machine.wakeAt).toBe(socket.now + SILENCE_MS / 2);
});

test('a cut of 25 seconds is tried through within the time to resume, without ending', () => {
  const socket = new Driven().up();
  const cutAt = socket.now;
  let tries = 0;
  socket.in({ type: 'closed' });
  while (socket.now - cutAt < 25_000) {
    const effects = socket.wake();
    expect(types(effects)).not.toContain('ended');
    if (types(effects).includes('fetch-token') || types(effects).includes('open')) {
      tries += 1;
      socket.in(
        socket.machine.state === 'token' ? { type: 'token-failed', status: null } : { type: 'closed' },
      );
    }
  }
  expect(tries).toBeGreaterThan(5);
  expect(hello(socket.reconnect()).resume).toBe('resume me');
  expect(socket.now - cutAt).toBeLessThan(RESUME_MS);
});

test('the network coming back ends the wait', () => {
  const socket = new Driven().up();
  socket.in({ type: 'closed' });
  expect(types(socket.in({ type: 'online' }))).toContain('open');
});

test('waits double up to a bound and half of each is chance', () => {
  expect(backoffMs(1, 0)).toBe(200);
  expect(backoffMs(1, 1)).toBe(400);
  expect(backoffMs(2, 1)).toBe(800);
  expect(backoffMs(50, 1)).toBe(4_000);
  expect(backoffMs(50, 1, 1_000)).toBe(1_000);
});

test('right after a loss tries are at most a second apart, later up to four', () => {
  const socket = new Driven(() => 1).up();
  const lostAt = socket.now;
  socket.in({ type: 'closed' });
  const waits: { sinceMs: number; waitMs: number }[] = [];
  while (socket.now - lostAt < 60_000) {
    waits.push({ sinceMs: socket.now - lostAt, waitMs: (socket.machine.wakeAt ?? 0) - socket.now });
    socket.wake();
    socket.in(socket.machine.state === 'token' ? { type: 'token-failed', status: null } : { type: 'closed' });
  }
  const soon = waits.filter(({ sinceMs }) => sinceMs < 30_000).map(({ waitMs }) => waitMs);
  const late = waits.filter(({ sinceMs }) => sinceMs >= 30_000).map(({ waitMs }) => waitMs);
  expect(Math.max(...soon)).toBe(1_000);
  expect(soon.length).toBeGreaterThanOrEqual(30);
  expect(new Set(late)).toEqual(new Set([4_000]));
});

describe('a socket that may be dead', () => {
  const ping = { type: 'send', message: { type: 'ping', nonce: 1 } };

  test('is asked, and lives on when it answers', () => {
    const socket = new Driven().up();
    expect(socket.in({ type: 'check' })).toEqual([ping]);
    expect(socket.in({ type: 'check' }), 'one question at a time').toEqual([]);
    expect(socket.say({ type: 'pong', nonce: 1 })).toEqual([]);
    expect(socket.machine.wakeAt).toBe(socket.now + SILENCE_MS / 2);
    expect(socket.machine.state).toBe('up');
  });

  test('is given up after a second without an answer, and another is opened at once to resume', () => {
    const socket = new Driven().up();
    const askedAt = socket.now;
    socket.in({ type: 'check' });
    const effects = socket.wake();
    expect(socket.now - askedAt).toBe(1_000);
    expect(types(effects)).toEqual(['down', 'close', 'open']);
    expect(hello(socket.in({ type: 'opened' })).resume).toBe('resume me');
  });

  test('is asked when it was silent for half of what makes it a lost one, and given up 4 seconds later', () => {
    const socket = new Driven().up();
    const heardAt = socket.now;
    expect(socket.wake()).toEqual([ping]);
    expect(socket.now - heardAt).toBe(SILENCE_MS / 2);
    expect(types(socket.wake())).toEqual(['down', 'close', 'open']);
    expect(socket.now - heardAt).toBe(SILENCE_MS / 2 + 4_000);
  });

  test('is asked by whoever says something on it after a silence, and only then', () => {
    const socket = new Driven().up();
    socket.now += 5_000;
    expect(socket.in({ type: 'said' })).toEqual([]);
    socket.now += 1;
    expect(socket.in({ type: 'said' }, { type: 'said' })).toEqual([ping]);
    expect(socket.machine.wakeAt).toBe(socket.now + 4_000);
    socket.say({ type: 'pong', nonce: 1 });
    expect(socket.in({ type: 'said' })).toEqual([]);
    socket.now += 6_000;
    expect(socket.in({ type: 'rename', name: 'Ana María' })).toEqual([
      { type: 'send', message: { type: 'rename', name: 'Ana María' } },
      { type: 'send', message: { type: 'ping', nonce: 2 } },
    ]);
    socket.now += 1_000;
    expect(socket.in({ type: 'check' }), 'asked already, but it waits no longer for the answer').toEqual([]);
    expect(socket.machine.wakeAt).toBe(socket.now + 1_000);
  });

  test('is alive whatever it says', () => {
    const socket = new Driven().up();
    socket.in({ type: 'check' });
    socket.say({ type: 'speakers', speakers: [] });
    expect(socket.machine.wakeAt).toBe(socket.now + SILENCE_MS / 2);
  });

  test('is asked when the network comes back, too', () => {
    expect(new Driven().up().in({ type: 'online' })).toEqual([ping]);
  });

  test('is not waited for: an attempt on a network that is gone begins anew on the next', () => {
    const socket = new Driven().up();
    socket.in({ type: 'closed' });
    socket.wake();
    expect(socket.machine.state).toBe('opening');
    expect(types(socket.in({ type: 'online' }))).toEqual(['close', 'open']);
    expect(socket.in({ type: 'check' }), 'a mere doubt does not disturb it').toEqual([]);
  });

  test('a look at the page ends the wait for the next try', () => {
    const socket = new Driven().up();
    socket.in({ type: 'closed' });
    expect(types(socket.in({ type: 'check' }))).toEqual(['close', 'open']);
  });

  test('in the lobby nobody is asked', () => {
    const socket = new Driven();
    socket.in({ type: 'prepare' }, { type: 'token', token: 't' }, { type: 'opened' });
    expect(socket.in({ type: 'check' })).toEqual([]);
  });
});

test('a server that makes place for another is followed without a wait', () => {
  const socket = new Driven().up();
  expect(socket.say({ type: 'bye', reason: 'moving' })).toEqual([
    { type: 'down', reason: 'moving' },
    { type: 'close' },
    { type: 'open' },
  ]);
  expect(hello(socket.in({ type: 'opened' })).resume).toBe('resume me');
});

test('a first join that meets nobody ends after a few tries and says so', () => {
  const socket = new Driven();
  let effects = socket.join();
  for (let i = 0; i < 3; i += 1) {
    effects = socket.in({ type: 'token-failed', status: null });
    expect(types(effects)).not.toContain('ended');
    socket.wake();
  }
  effects = socket.in({ type: 'token-failed', status: null });
  expect(effects).toContainEqual({ type: 'ended', problem: 'server-unreachable' });
  expect(socket.machine.wakeAt).toBeNull();
});

test('a server that takes the socket and says nothing is given up too', () => {
  const socket = new Driven();
  socket.join();
  socket.in({ type: 'token', token: 't' }, { type: 'opened' });
  expect(types(socket.wake())).toEqual(['close']);
  expect(socket.machine.state).toBe('waiting');
});

test('a name that no meeting can have ends the attempt and says so', () => {
  const socket = new Driven();
  socket.join();
  expect(socket.in({ type: 'token-failed', status: 400 })).toContainEqual({
    type: 'ended',
    problem: 'bad-name',
  });
});

test('a refused token is replaced, but not for ever', () => {
  const socket = new Driven();
  socket.join();
  socket.in({ type: 'token', token: 'old' }, { type: 'opened' });
  for (let i = 0; i < 2; i += 1) {
    expect(types(socket.say(fatal('invalid_token')))).toEqual(['close', 'fetch-token']);
    socket.in({ type: 'token', token: `new ${i}` }, { type: 'opened' });
  }
  expect(socket.say(fatal('invalid_token'))).toContainEqual({ type: 'ended', problem: 'internal' });
});

describe('problems', () => {
  test.each([
    ['meeting_full', 'meeting-full'],
    ['server_full', 'server-full'],
    ['unsupported_version', 'outdated-client'],
    ['too_large', 'internal'],
    ['not_joined', 'internal'],
  ] as const)('%s ends with %s', (code, problem) => {
    const socket = new Driven();
    socket.join();
    socket.in({ type: 'token', token: 't' }, { type: 'opened' });
    expect(socket.say(fatal(code))).toContainEqual({ type: 'ended', problem });
  });

  test('being cut off for reading slowly is no problem: it resumes', () => {
    expect(fateOf('too_slow')).toBe('retry');
    const socket = new Driven().up();
    expect(types(socket.say(fatal('too_slow')))).toEqual(['close', 'down']);
    expect(hello(socket.reconnect()).resume).toBe('resume me');
  });

  test('what is not fatal is passed on and the socket lives', () => {
    const socket = new Driven().up();
    const message: ServerMessage = { type: 'error', code: 'unknown_reference', message: '', fatal: false };
    expect(socket.say(message)).toEqual([{ type: 'message', message }]);
    expect(socket.machine.state).toBe('up');
  });
});

test('"replaced" stops: two tabs do not take the place from each other for ever', () => {
  const socket = new Driven().up();
  expect(socket.say({ type: 'bye', reason: 'replaced' })).toEqual([
    { type: 'close' },
    { type: 'ended', problem: 'replaced' },
  ]);
  expect(socket.machine.wakeAt).toBeNull();
  expect(socket.in({ type: 'online' })).toEqual([]);
});

test('a server that stops is waited for', () => {
  const socket = new Driven().up();
  expect(socket.say({ type: 'bye', reason: 'stopping' })).toContainEqual({
    type: 'down',
    reason: 'stopping',
  });
  expect(hello(socket.reconnect()).resume).toBe('resume me');
});

test('leaving says so and a later join is a new membership', () => {
  const socket = new Driven().up();
  expect(socket.in({ type: 'leave' })).toEqual([
    { type: 'send', message: { type: 'leave' } },
    { type: 'close' },
    { type: 'ended', problem: null },
  ]);
  socket.join();
  expect(hello(socket.in({ type: 'opened' })).resume).toBeUndefined();
});
