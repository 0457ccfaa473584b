// People meet: each hears exactly the others and sees moving pictures of the others.

import { expectEveryoneMeets } from '../harness/person.ts';
import { expect, test } from '../harness/test.ts';

test('two people hear and see each other', async ({ seat, link }) => {
  const [ana, berta] = [await seat(), await seat()];
  await ana.join(link);
  await berta.join(link);
  await expectEveryoneMeets([ana, berta]);
  await expect.poll(() => ana.participants()).toEqual(['Ana (you)', 'Berta']);
  await expect.poll(() => berta.participants()).toEqual(['Ana', 'Berta (you)']);
});

test('three people hear and see each other, and one leaves', async ({ seat, link }) => {
  const [ana, berta, carlos] = [await seat(), await seat(), await seat()];
  const people = [ana, berta, carlos];
  for (const person of people) await person.join(link);
  await expectEveryoneMeets(people);

  await carlos.press('Leave');
  await expect(carlos.page.getByRole('heading', { name: 'You left the meeting' })).toBeVisible();
  await expect(ana.tile('Carlos')).toHaveCount(0);
  await ana.expectHears([berta], people);
  await berta.expectHears([ana], people);
  await ana.expectSees([berta]);
  await berta.expectSees([ana]);
  await carlos.expectHears([], people);

  await carlos.press('Rejoin');
  await carlos.expectInMeeting();
  await expectEveryoneMeets(people);
});

test('people in two meetings do not hear or see each other', async ({ seat, link }) => {
  const [ana, berta] = [await seat(), await seat()];
  await ana.join(link);
  await berta.join(`${link}-another`);
  await expect.poll(() => ana.participants()).toEqual(['Ana (you)']);
  await ana.expectHears([], [ana, berta]);
  expect(await ana.picture('Berta')).toBe('no picture');
});

test('a small camera is seen in its full height', async ({ seat, link }) => {
  const [ana, berta] = [await seat(), await seat()];
  await ana.join(link);
  await berta.join(link);
  await ana.expectSees([berta]);
  // The cameras of the tests are 640x360: of those Chromium sends the first two of three layers only.
  const heights = () =>
    ana.page.evaluate(() => [...document.querySelectorAll('video')].map((video) => video.videoHeight));
  await expect.poll(heights).toEqual([360, 360]);
});
