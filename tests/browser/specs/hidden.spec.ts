// Firefox as users have it hides its addresses behind names of the local network; the call works all the same.

import { expect, test } from '@playwright/test';
import { launch } from '../harness/browsers.ts';
import { startBridge } from '../harness/bridge.ts';
import { expectEveryoneMeets, Person } from '../harness/person.ts';

test('two people meet whose Firefox hides its addresses', async () => {
  const bridge = await startBridge();
  const browser = await launch('firefox', { 'media.peerconnection.ice.obfuscate_host_addresses': true });
  try {
    const people = [await Person.at(browser, 0), await Person.at(browser, 1)];
    for (const person of people) await person.join(`http://localhost:${bridge.port}/behind-a-name`);
    await expectEveryoneMeets(people);
    for (const person of people) expect(person.complaints).toEqual([]);
  } finally {
    await browser.close();
    await bridge.program.stop();
  }
});
