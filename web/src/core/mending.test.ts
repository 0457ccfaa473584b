import { describe, expect, test } from 'vitest';
import { Mending } from './mending';

/** Everything that is done, with the times of it, until nothing is due. */
function run(mending: Mending, from: number, until: number): [number, string][] {
  const done: [number, string][] = [];
  for (let at = mending.wakeAt; at !== null && at <= until; at = mending.wakeAt) {
    const remedy = mending.handleWake(Math.max(at, from));
    if (remedy) done.push([Math.max(at, from), remedy]);
    if (remedy === 'replace') mending.handleNewPeer();
  }
  return done;
}

function connected(): Mending {
  const mending = new Mending();
  mending.handleSignaled(0);
  mending.handleConnection('connected', 100);
  return mending;
}

test('a short gap mends itself', () => {
  const mending = connected();
  mending.handleConnection('disconnected', 1_000);
  expect(mending.isBroken).toBe(true);
  mending.handleConnection('connected', 2_000);
  expect(mending.isBroken).toBe(false);
  expect(run(mending, 0, 60_000)).toEqual([]);
});

test('a longer one restarts ICE, then makes a new peer connection', () => {
  const mending = connected();
  mending.handleConnection('disconnected', 1_000);
  expect(run(mending, 0, 60_000)).toEqual([
    [3_500, 'restart-ice'],
    [11_500, 'replace'],
  ]);
});

test('a failure is acted on at once: once by a restart, then by a new peer connection', () => {
  const mending = connected();
  mending.handleConnection('failed', 1_000);
  expect(mending.handleWake(1_000)).toBe('restart-ice');
  mending.handleConnection('failed', 2_000);
  expect(mending.handleWake(2_000)).toBe('replace');
});

test('a restart that finds no way out is not waited for, nor is a new peer connection', () => {
  const mending = connected();
  mending.handleConnection('failed', 1_000);
  expect(mending.handleWake(1_000)).toBe('restart-ice');
  mending.handleNoWay(1_050);
  mending.handleSignaled(1_100);
  expect(run(mending, 0, 2_050), 'soon, whatever is answered').toEqual([[2_050, 'replace']]);
  mending.handleSignaled(2_100);
  mending.handleNoWay(2_150);
  expect(mending.wakeAt, 'with growing waits').toBe(4_150);
  expect(run(mending, 0, 4_150)).toEqual([[4_150, 'replace']]);
  mending.handleSignaled(4_200);
  mending.handleConnection('connected', 4_400);
  expect(run(mending, 0, 60_000)).toEqual([]);
});

test('to look for ways out in vain means nothing while media flows', () => {
  const mending = connected();
  mending.handleNoWay(1_000);
  expect(run(mending, 0, 60_000)).toEqual([]);
});

test('what never came up is not restarted but replaced, with growing waits, and people are told', () => {
  const mending = new Mending();
  const waits: number[] = [];
  let now = 0;
  for (let i = 0; i < 8; i += 1) {
    mending.handleConnection('failed', now);
    waits.push((mending.wakeAt ?? 0) - now);
    now = mending.wakeAt ?? 0;
    expect(mending.handleWake(now)).toBe('replace');
    mending.handleNewPeer();
    expect(mending.isHopeless).toBe(i >= 2);
  }
  expect(waits).toEqual([0, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
});

test('an offer whose connection never comes is replaced', () => {
  const mending = new Mending();
  mending.handleSignaled(0);
  expect(run(mending, 0, 10_000)).toEqual([[8_000, 'replace']]);
});

test('media that the server lost starts over at once', () => {
  const mending = connected();
  mending.handleServerState('lost', 5_000);
  expect(mending.handleWake(5_000)).toBe('replace');
});

test('a server that hears nothing while the browser is content is believed after a moment', () => {
  const mending = connected();
  mending.handleServerState('disconnected', 5_000);
  expect(run(mending, 0, 60_000)).toEqual([[7_000, 'replace']]);
});

test('"disconnected" about a transport that is being replaced anyway changes nothing', () => {
  const mending = connected();
  mending.handleNewPeer();
  mending.handleServerState('disconnected', 5_000);
  expect(mending.wakeAt).toBeNull();
});

test('given up means that nothing is tried again', () => {
  const mending = new Mending();
  mending.handleSignaled(0);
  mending.giveUp();
  mending.handleConnection('failed', 1);
  expect(mending.wakeAt).toBeNull();
  expect(mending.isHopeless).toBe(true);
});

describe('silence while the browser thinks that all is well', () => {
  test('restarts ICE at once, is told when that does not help, and ends in a new peer connection', () => {
    const mending = connected();
    mending.handleSilence(1_500, 2_000);
    expect(mending.wakeAt).toBeNull();
    mending.handleSilence(2_000, 2_500);
    expect(mending.handleWake(2_500)).toBe('restart-ice');
    expect(mending.isBroken).toBe(false);
    mending.handleSilence(3_500, 4_000);
    expect(mending.isBroken).toBe(true);
    expect(run(mending, 0, 60_000)).toEqual([[7_500, 'replace']]);
    expect(mending.isBroken, 'the new one has not connected').toBe(true);
  });

  test('that is over by itself or by the restart changes nothing more', () => {
    const mending = connected();
    mending.handleSilence(2_000, 2_500);
    mending.handleWake(2_500);
    mending.handleSilence(0, 3_000);
    expect([mending.wakeAt, mending.isBroken]).toEqual([null, false]);
    mending.handleSilence(2_000, 9_000);
    expect(mending.handleWake(9_000), 'the next one is acted on as the first was').toBe('restart-ice');
  });

  test('gives the restart its time from the answer on', () => {
    const mending = connected();
    mending.handleSilence(2_000, 2_500);
    mending.handleWake(2_500);
    mending.handleSignaled(4_000);
    expect(mending.wakeAt).toBe(9_000);
  });

  test('does not restart twice when the browser notices as well', () => {
    const mending = connected();
    mending.handleSilence(2_000, 2_500);
    mending.handleWake(2_500);
    mending.handleConnection('disconnected', 5_000);
    expect(run(mending, 0, 60_000)).toEqual([[7_500, 'replace']]);
  });

  test('is not over because the browser or the server says "connected"', () => {
    const mending = connected();
    mending.handleSilence(2_000, 2_500);
    mending.handleWake(2_500);
    mending.handleConnection('connected', 3_000);
    mending.handleServerState('connected', 3_000);
    expect(run(mending, 0, 60_000)).toEqual([[7_500, 'replace']]);
  });

  test('of a transport that is not connected is no news', () => {
    const mending = new Mending();
    mending.handleSilence(9_000, 1_000);
    expect(mending.wakeAt).toBeNull();
  });
});
