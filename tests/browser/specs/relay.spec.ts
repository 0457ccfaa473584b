// Browsers that allow relayed candidates only, and networks that let out little: the bridge's own TURN relay.

import { expectEveryoneMeets } from '../harness/person.ts';
import { noDirectWay, relayOnly, watchWays, ways } from '../harness/relay.ts';
import { expect, test } from '../harness/test.ts';

for (const transport of ['udp', 'tcp']) {
  test(`people whose browsers allow relayed candidates only meet over ${transport}`, async ({
    seat,
    link,
  }) => {
    const [ana, berta, carlos] = [await seat(), await seat(), await seat()];
    for (const one of [ana, berta]) await one.page.addInitScript(relayOnly, { way: `turn ${transport}` });
    for (const person of [ana, berta, carlos]) await person.join(link);
    await expectEveryoneMeets([ana, berta, carlos]);
    for (const one of [ana, berta]) expect(await ways(one)).toEqual([`relay ${transport}`]);
    // Channels, permissions and allocations have begun; the call goes on through them.
    await berta.press('Leave');
    await ana.expectHears([carlos], [ana, carlos]);
  });
}

test('where no direct way works the relay is tried, and remembered', async ({ seat, link }) => {
  const [ana, berta] = [await seat(), await seat()];
  await ana.page.addInitScript(noDirectWay, { way: 'turn tcp' });
  for (const person of [ana, berta]) await person.join(link);
  await expectEveryoneMeets([ana, berta]);
  expect(await ways(ana)).toEqual(['relay tcp']);
  expect(await ana.page.evaluate(() => localStorage.getItem('asamblea-relay'))).toBe('{"isNeeded":true}');
});

test('a browser that remembers the relay goes without where there is a direct way', async ({
  seat,
  link,
}) => {
  const [ana, berta] = [await seat(), await seat()];
  await ana.page.addInitScript(watchWays);
  await ana.page.addInitScript(() => {
    // Firefox begins with a page that may keep nothing.
    if (location.protocol === 'http:') localStorage.setItem('asamblea-relay', '{"isNeeded":true}');
  });
  for (const person of [ana, berta]) await person.join(link);
  await expectEveryoneMeets([ana, berta]);
  const kinds = (await ways(ana)).map((way) => way.split(' ')[0]);
  expect(kinds).not.toContain('relay');
  expect(kinds).not.toHaveLength(0);
});
