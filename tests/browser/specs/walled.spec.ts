// Browsers that are walled in by a setting of their own or by their network, and left to find the way by themselves.

import { expect, test } from '@playwright/test';
import { startBridge } from '../harness/bridge.ts';
import { CERTIFIED, launch, withTrusting } from '../harness/browsers.ts';
import { expectEveryoneMeets, Person } from '../harness/person.ts';
import { relayOnly, watchWays, ways } from '../harness/relay.ts';

test('a Firefox that is set to relayed candidates only, as Mullvad Browser is, meets one that is not', async () => {
  const bridge = await startBridge();
  const walled = await launch('firefox', { 'media.peerconnection.ice.relay_only': true });
  const free = await launch('firefox');
  try {
    const people = [await Person.at(walled, 0), await Person.at(free, 1)];
    await people[0]!.page.addInitScript(watchWays);
    for (const person of people) await person.join(`http://localhost:${bridge.port}/walled`);
    await expectEveryoneMeets(people);
    expect((await ways(people[0]!)).map((way) => way.split(' ')[0])).toEqual(['relay']);
    for (const person of people) expect(person.complaints).toEqual([]);
  } finally {
    await walled.close();
    await free.close();
    await bridge.program.stop();
  }
});

for (const name of ['firefox', 'chromium'] as const) {
  test(`where nothing but TLS gets out the call goes through it in ${name}`, async () => {
    const bridge = await startBridge(...CERTIFIED);
    try {
      await withTrusting(name, async (browser) => {
        const people = [await Person.at(browser, 0), await Person.at(browser, 1)];
        for (const person of people) await person.page.addInitScript(relayOnly, { way: 'turns tcp' });
        for (const person of people) await person.join(`https://localhost:${bridge.port}/tls-only`);
        await expectEveryoneMeets(people);
        for (const person of people) {
          expect(await ways(person)).toEqual(['relay tls']);
          expect(person.complaints).toEqual([]);
        }
      });
    } finally {
      await bridge.program.stop();
    }
  });
}
