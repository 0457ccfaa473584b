import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Person } from '../harness/person.ts';
import { relayOnly } from '../harness/relay.ts';
import { expect, test } from '../harness/test.ts';

test('from "Join" to the first frame', async ({ seat, house, cast, link }) => {
  const folder = process.env['ASAMBLEA_FIGURES'];
  if (!folder) throw new Error('run "node measure.mjs" instead');
  const browser = await house.browser(cast[0]!);
  const ana = await seat();
  await ana.join(link);
  const times: number[] = [];
  for (let i = 0; i < Number(process.env['ASAMBLEA_JOINS']); i++) {
    const guest = await Person.at(browser, 1);
    const way = process.env['ASAMBLEA_WAY'];
    if (way) await guest.page.addInitScript(relayOnly, { way });
    await guest.open(link);
    // People read the page before they press the button: the preview is there by then.
    const preview = () => guest.page.evaluate(() => window.__oracle.see().map((seen) => seen.colour));
    await expect.poll(preview).toEqual([guest.camera]);
    await guest.page.getByLabel('Your name').fill('Guest');
    await guest.press('Join');
    const marks = () => guest.page.evaluate(() => window.__oracle.marks);
    await expect.poll(async () => (await marks()).firstRemoteFrame).toBeGreaterThan(0);
    const { click, firstRemoteFrame } = await marks();
    times.push(firstRemoteFrame - click);
    await guest.press('Leave');
    await expect(ana.tile('Guest')).toHaveCount(0);
    await guest.close();
  }
  const figures = { browser: cast[0], version: browser.version(), times };
  writeFileSync(join(folder, `${cast[0]}.json`), JSON.stringify(figures));
});
