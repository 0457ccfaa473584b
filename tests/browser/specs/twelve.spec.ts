// A room of twelve: two people at browsers among ten bots that move and are silent.

import { Program } from '../harness/bridge.ts';
import { expect, test } from '../harness/test.ts';

const BOTS = 10;

test('two people among ten bots hear each other, see each other and have a tile of everyone', async ({
  seat,
  link,
}) => {
  const bots = new Program('bots', ['--url', link, '--count', String(BOTS), '--seconds', '120']);
  try {
    await bots.says(/^joined 10$/);
    await bots.says(/^everyone is seen$/);
    const [ana, berta] = [await seat(), await seat()];
    const people = [ana, berta];
    for (const person of people) await person.join(link);
    for (const person of people) {
      await expect.poll(async () => (await person.participants()).length).toBe(BOTS + 2);
      for (const other of people) await expect(person.tile(label(person.name, other.name))).toBeVisible();
      for (const other of people.filter((one) => one !== person)) {
        await person.expectHears([other], people);
        await person.expectSees([other]);
      }
    }
    await bots.stop();
    const reports = bots.lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
    expect(reports).toHaveLength(BOTS);
    for (const report of reports) {
      expect(report).toMatchObject({ connected: true, members: BOTS + 2, cameras: BOTS - 1 });
    }
    for (const person of people) {
      await expect.poll(async () => (await person.participants()).length).toBe(2);
    }
  } finally {
    await bots.stop();
  }
});

function label(self: string, name: string): string {
  return self === name ? `${name} (you)` : name;
}
