// Browsers that allow relayed candidates only, and networks that let out little: the bridge's own TURN relay.

import { expectEveryoneMeets } from '../harness/person.ts';
import { relayOnly, ways } from '../harness/relay.ts';
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
