// The buttons of a meeting do for the others what they say.

import { expectEveryoneMeets } from '../harness/person.ts';
import { expect, test } from '../harness/test.ts';

test('a muted microphone is not heard, and is heard again', async ({ seat, link }) => {
  const [ana, berta] = [await seat(), await seat()];
  const people = [ana, berta];
  for (const person of people) await person.join(link);
  await expectEveryoneMeets(people);

  await ana.press('Mute microphone');
  await berta.expectHears([], people);
  await expect(berta.tile('Ana').getByText('Microphone off')).toBeAttached();
  await ana.expectHears([berta], people);

  await ana.press('Unmute microphone');
  await berta.expectHears([ana], people);
  await expect(berta.tile('Ana').getByText('Microphone off')).toHaveCount(0);
  await expectEveryoneMeets(people);
});

test('a camera that is off shows nothing, and shows again', async ({ seat, link }) => {
  const [ana, berta] = [await seat(), await seat()];
  const people = [ana, berta];
  for (const person of people) await person.join(link);
  await expectEveryoneMeets(people);

  await ana.press('Turn off camera');
  await berta.expectNoPictureOf(ana);
  await berta.expectHears([ana], people);
  await ana.expectSees([berta]);

  await ana.press('Turn on camera');
  await expectEveryoneMeets(people);
});

test('who joins with microphone and camera off can turn them on later', async ({ seat, link }) => {
  const [ana, berta] = [await seat(), await seat()];
  const people = [ana, berta];
  await ana.join(link);
  await berta.open(link);
  await berta.press('Mute microphone');
  await berta.press('Turn off camera');
  await berta.page.getByLabel('Your name').fill(berta.name);
  await berta.press('Join');
  await berta.expectInMeeting();
  await berta.expectSees([ana]);
  await berta.expectHears([ana], people);
  await ana.expectHears([], people);
  await ana.expectNoPictureOf(berta);

  await berta.press('Unmute microphone');
  await berta.press('Turn on camera');
  await expectEveryoneMeets(people);
});

test('a shared screen is seen beside the camera, until it is stopped', async ({ seat, link }) => {
  const [ana, berta] = [await seat(), await seat()];
  const people = [ana, berta];
  for (const person of people) await person.join(link);
  await expectEveryoneMeets(people);

  await ana.press('Share screen');
  await expect.poll(() => berta.picture('Screen of Ana'), 'the screen that Berta sees').toBe(ana.screen);
  await expectEveryoneMeets(people);

  await ana.press('Stop sharing');
  await expect.poll(() => berta.picture('Screen of Ana')).toBe('no picture');
  await expect(berta.tile('Screen of Ana')).toHaveCount(0);
  await expectEveryoneMeets(people);

  await ana.press('Share screen');
  await expect.poll(() => berta.picture('Screen of Ana'), 'the screen, shared again').toBe(ana.screen);
});

test('who comes later sees the screen that is shared already', async ({ seat, link }) => {
  const [ana, berta] = [await seat(), await seat()];
  await ana.join(link);
  await ana.press('Share screen');
  await berta.join(link);
  await expect.poll(() => berta.picture('Screen of Ana')).toBe(ana.screen);
  await expectEveryoneMeets([ana, berta]);
});
