// From the click on "Join" to the first decoded frame of someone else, on one machine.

import { expect, test } from '../harness/test.ts';

const JOINS = 11;

test('time from Join to the first decoded remote frame', async ({ seat, link }, info) => {
  const host = await seat();
  await host.join(link);
  const guest = await seat();
  const times: number[] = [];
  for (let join = 0; join < JOINS; join += 1) {
    await guest.open(link);
    await guest.page.getByLabel('Your name').fill(guest.name);
    // People look at the lobby for a moment; the preview being there is that moment.
    await expect(guest.page.locator('video')).toHaveCount(1);
    await guest.page.evaluate(() => {
      const noted = new WeakSet<HTMLVideoElement>();
      const state = window as unknown as { joinedAt: number; firstFrameAt: number };
      const own = document.querySelector('video');
      state.firstFrameAt = 0;
      document.addEventListener('click', () => (state.joinedAt ||= performance.now()), { capture: true });
      if (own) noted.add(own);
      const look = (): void => {
        for (const video of document.querySelectorAll('video')) {
          if (noted.has(video) || video.closest('[data-self]')) continue;
          noted.add(video);
          video.requestVideoFrameCallback(() => (state.firstFrameAt ||= performance.now()));
        }
        if (!state.firstFrameAt) requestAnimationFrame(look);
      };
      look();
    });
    await guest.press('Join');
    const taken = await guest.page.waitForFunction(() => {
      const { joinedAt, firstFrameAt } = window as unknown as { joinedAt: number; firstFrameAt: number };
      return firstFrameAt > 0 ? firstFrameAt - joinedAt : 0;
    });
    times.push(Math.round(await taken.jsonValue()));
    await guest.press('Leave');
    await expect(host.tile(guest.name)).toHaveCount(0);
  }
  const sorted = times.toSorted((a, b) => a - b);
  console.log(
    `\n${info.project.name}: ${JOINS} joins, ms from Join to the first remote frame: ` +
      `min ${sorted[0]}, median ${sorted[(JOINS - 1) / 2]}, max ${sorted.at(-1)} (${times.join(' ')})`,
  );
});
