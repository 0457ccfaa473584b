// People come back: after a reload, after the line was cut.

import { Line } from '../harness/line.ts';
import { expectEveryoneMeets, HEARD_DB, type Person } from '../harness/person.ts';
import { expect, test } from '../harness/test.ts';

test('a reload leads back into the meeting without a question', async ({ seat, link }) => {
  const [ana, berta] = [await seat(), await seat()];
  const people = [ana, berta];
  for (const person of people) await person.join(link);
  await expectEveryoneMeets(people);

  await ana.page.reload();
  await ana.expectInMeeting();
  await expectEveryoneMeets(people);
  await expect.poll(() => ana.participants()).toEqual(['Ana (you)', 'Berta']);
  await expect.poll(() => berta.participants()).toEqual(['Ana', 'Berta (you)']);
});

test('media go on while signaling is cut for 20 seconds, and the membership is taken up again', async ({
  seat,
  link,
  bridge,
}) => {
  const [ana, berta] = [await seat(), await seat()];
  const people = [ana, berta];
  const line = await Line.open(bridge.port);
  try {
    await ana.join(link.replace(`:${bridge.port}/`, `:${line.port}/`));
    await berta.join(link);
    await expectEveryoneMeets(people);

    line.cut();
    const end = Date.now() + 20_000;
    await expect(ana.page.getByText('Reconnecting')).toBeVisible();
    while (Date.now() < end) {
      // Both directions, at every look. A busy machine may make one look fall into a gap; none lasts.
      for (const [one, other] of [people, people.toReversed()] as [Person, Person][]) {
        const hears = async () => (await one.levels(people)).get(other);
        await expect.poll(hears, { timeout: 3_000, message: `${one.name} hears` }).toBeGreaterThan(HEARD_DB);
        const sees = () => one.picture(other.name);
        await expect.poll(sees, { timeout: 3_000, message: `${one.name} sees` }).toBe(other.camera);
      }
    }
    await expect(ana.button('Leave')).toBeVisible();

    line.mend();
    await expect(ana.page.getByText('Reconnecting')).toHaveCount(0);
    await expect(ana.button('Leave')).toBeVisible();
    await ana.press('Mute microphone');
    await expect(berta.tile('Ana').getByText('Microphone off')).toBeAttached();
    await ana.press('Unmute microphone');
    await berta.press('Turn off camera');
    await ana.expectNoPictureOf(berta);
    await berta.press('Turn on camera');
    await expectEveryoneMeets(people);
    await expect.poll(() => berta.participants()).toEqual(['Ana', 'Berta (you)']);
  } finally {
    line.close();
  }
});
