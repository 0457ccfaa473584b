// Lines that go silent, bridges that go away and come back, layers that nobody watches.

import type { Page } from '@playwright/test';
import { startBridge, startBridgeAt, type Bridge } from '../harness/bridge.ts';
import { expectEveryoneMeets, type Person } from '../harness/person.ts';
import { expect, test } from '../harness/test.ts';

/** Back in the meeting after a crash, as is promised to people. */
const BACK_MS_MAX = 5_000;
/** A browser that is busy with several people's video and sound gets a little longer to hear and see. */
const SEEN_MS_MAX = 15_000;

/** Counts what a page says about people who come and go, from now on. */
async function watchNotices(page: Page): Promise<() => Promise<string[]>> {
  await page.evaluate(() => {
    const said: string[] = [];
    Object.assign(window, { said });
    const log = document.querySelector('[role=log]');
    if (!log) throw new Error('no notices on this page');
    new MutationObserver((records) => {
      for (const record of records) for (const node of record.addedNodes) said.push(node.textContent ?? '');
    }).observe(log, { childList: true, subtree: true });
  });
  return () => page.evaluate(() => (window as unknown as { said: string[] }).said);
}

/** Keeps every peer connection of a page within reach of `layers` and `peers`. */
function keepPeers(): void {
  const kept: RTCPeerConnection[] = [];
  Object.assign(window, { kept });
  const Real = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Real {
    constructor(configuration?: RTCConfiguration) {
      super(configuration);
      kept.push(this);
    }
  };
}

const peers = (page: Page) =>
  page.evaluate(() => (window as unknown as { kept: RTCPeerConnection[] }).kept.length);

/** Frames that each layer of the camera has sent so far, by rid. */
const layers = (page: Page) =>
  page.evaluate(async () => {
    const { kept } = window as unknown as { kept: RTCPeerConnection[] };
    const frames: Record<string, number> = {};
    const stats = await kept.at(-1)?.getSenders()[1]?.getStats();
    stats?.forEach((entry: { type: string; rid?: string; framesEncoded?: number }) => {
      if (entry.type === 'outbound-rtp' && entry.rid) frames[entry.rid] = entry.framesEncoded ?? 0;
    });
    return frames;
  });

/** Waits until exactly these layers of the camera move, or until those that do are as asked. */
async function expectLayers(page: Page, expected: string[] | ((moving: string[]) => boolean)): Promise<void> {
  const isAsExpected = (moving: string[]) =>
    typeof expected === 'function' ? expected(moving) : moving.join() === expected.join();
  let before: Record<string, number> | null = null;
  const look = async () => {
    const [last, now] = [before, await layers(page)];
    before = now;
    // One frame may be on its way when a layer is paused; two looks are far enough apart for several.
    const moving = Object.keys(now).filter((rid) => (now[rid] ?? 0) - (last?.[rid] ?? 0) > 2);
    return last !== null && isAsExpected(moving.sort()) ? 'as expected' : moving.join();
  };
  await expect.poll(look, { intervals: [1_000], message: 'layers that move' }).toBe('as expected');
}

/** Waits until something has come from the bridge in several half seconds, so that its silence means something. */
async function expectBeat(page: Page): Promise<void> {
  let [before, beats] = [-1, 0];
  const beat = async () => {
    const bytes = await page.evaluate(async () => {
      const { kept } = window as unknown as { kept: RTCPeerConnection[] };
      let sum = 0;
      const stats = await kept.at(-1)?.getStats();
      stats?.forEach((entry: { type: string; bytesReceived?: number }) => {
        if (entry.type === 'candidate-pair') sum += entry.bytesReceived ?? 0;
      });
      return sum;
    });
    beats += bytes === before ? 0 : 1;
    before = bytes;
    return beats;
  };
  await expect.poll(beat, { intervals: [500] }).toBeGreaterThan(6);
}

/** Seats people whose peer connections are kept and who have met. */
async function meet(seat: () => Promise<Person>, link: string): Promise<[Person, Person]> {
  const people: [Person, Person] = [await seat(), await seat()];
  for (const person of people) {
    await person.page.addInitScript(keepPeers);
    await person.join(link);
  }
  await expectEveryoneMeets(people);
  return people;
}

test('a bridge that stands still for six seconds is noticed at once, and the call goes on with it', async ({
  seat,
}) => {
  const bridge = await startBridge();
  try {
    const people = await meet(seat, `http://localhost:${bridge.port}/silence`);
    const [ana, berta] = people;
    const before = await peers(ana.page);
    for (const person of people) await expectBeat(person.page);
    bridge.program.stall();
    const stalledAt = Date.now();
    // Two seconds of silence, one without an answer: long before the 45 s after which a socket counts as lost.
    await expect(ana.page.getByText('Reconnecting')).toBeVisible({ timeout: 6_000 });
    await expect(berta.page.getByText('Reconnecting')).toBeVisible({ timeout: 6_000 });
    await expect.poll(() => Date.now() - stalledAt, { intervals: [100] }).toBeGreaterThan(6_000);
    bridge.program.unstall();
    await expect(ana.page.getByText('Reconnecting')).toHaveCount(0, { timeout: BACK_MS_MAX });
    await expectEveryoneMeets(people);
    await expect(ana.button('Leave')).toBeVisible();
    expect(await peers(ana.page), 'the same peer connection, or one more').toBeLessThanOrEqual(before + 1);
  } finally {
    bridge.program.unstall();
    await bridge.program.stop();
  }
});

test('a bridge that crashes and is started again has everyone back, and nobody left or joined', async ({
  seat,
}) => {
  let bridge: Bridge = await startBridge();
  try {
    const people = await meet(seat, `http://localhost:${bridge.port}/crash`);
    const notices = await Promise.all(people.map((person) => watchNotices(person.page)));
    await bridge.program.crash();
    bridge = await startBridgeAt(bridge.port);
    const startedAt = Date.now();
    for (const person of people) {
      await expect(person.page.getByText('Reconnecting')).toHaveCount(0, {
        timeout: Math.max(1, startedAt + BACK_MS_MAX - Date.now()),
      });
      await expect(person.button('Leave')).toBeVisible();
    }
    await expect(async () => expectEveryoneMeets(people)).toPass({ timeout: SEEN_MS_MAX });
    await expect.poll(() => people[0].participants()).toEqual(['Ana (you)', 'Berta']);
    await expect.poll(() => people[1].participants()).toEqual(['Ana', 'Berta (you)']);
    for (const said of notices) {
      expect((await said()).filter((text) => /joined|left/.test(text))).toEqual([]);
    }
  } finally {
    await bridge.program.stop();
  }
});

/** The smallest goes on for whoever comes next. Chromium makes two layers of so small a camera, Firefox three. */
const withTallest = (moving: string[]) => moving.length === 2 && moving.includes('q');

test('layers that nobody watches are paused, and start again when somebody does', async ({ seat, link }) => {
  const [ana, berta] = await meet(seat, link);
  // Tiles that ask for the tallest layer.
  await expectLayers(ana.page, withTallest);
  await expectLayers(berta.page, withTallest);
  await berta.page.setViewportSize({ width: 360, height: 400 });
  await expectLayers(ana.page, (moving) => moving.length < 2 || !moving.includes('f'));
  await berta.expectSees([ana]);
  await berta.page.setViewportSize({ width: 1280, height: 720 });
  await expectLayers(ana.page, withTallest);
  await berta.press('Leave');
  // Nobody is left to watch: every layer stands still.
  await expectLayers(ana.page, []);
  await berta.press('Rejoin');
  await berta.expectInMeeting();
  await expectEveryoneMeets([ana, berta]);
  await expectLayers(ana.page, withTallest);
});
