// What every browser test gets: a bridge of its own file, browsers that are started once, people at them, and the
// checks that hold for every page whatever a test is about.

import { expect, test as base, type Browser } from '@playwright/test';
import { FIREFOX_DARK, launch, type BrowserName } from './browsers.ts';
import { startBridge, type Bridge } from './bridge.ts';
import { Person, type PersonOptions } from './person.ts';

export { expect };

/** Browsers and bridges that outlive a test. */
class House {
  readonly #browsers = new Map<string, Promise<Browser>>();
  #bridge: { file: string; bridge: Bridge } | undefined;

  /** A browser; a dark Firefox is one of its own, since WebDriver BiDi cannot ask a running one for it. */
  browser(name: BrowserName, isDark = false): Promise<Browser> {
    const preferences = name === 'firefox' && isDark ? FIREFOX_DARK : {};
    const key = `${name} ${JSON.stringify(preferences)}`;
    let browser = this.#browsers.get(key);
    if (!browser) this.#browsers.set(key, (browser = launch(name, preferences)));
    return browser;
  }

  async bridge(file: string): Promise<Bridge> {
    if (this.#bridge?.file !== file) {
      await this.#bridge?.bridge.program.stop();
      this.#bridge = { file, bridge: await startBridge() };
    }
    return this.#bridge.bridge;
  }

  async close(): Promise<void> {
    for (const browser of this.#browsers.values()) await (await browser).close();
    await this.#bridge?.bridge.program.stop();
  }
}

interface TestFixtures {
  bridge: Bridge;
  /** The link of a meeting that is this test's own. */
  link: string;
  /** Seats the next person at the next browser of the cast. */
  seat: (options?: PersonOptions) => Promise<Person>;
}

interface WorkerFixtures {
  /** Who sits at which browser, by project. */
  cast: BrowserName[];
  house: House;
}

let meetings = 0;

export const test = base.extend<TestFixtures, WorkerFixtures>({
  cast: [['firefox'], { option: true, scope: 'worker' }],

  house: [
    // eslint-disable-next-line no-empty-pattern
    async ({}, use) => {
      const house = new House();
      await use(house);
      await house.close();
    },
    { scope: 'worker', timeout: 60_000 },
  ],

  bridge: async ({ house }, use, info) => {
    const bridge = await house.bridge(info.file);
    await use(bridge);
    if (info.status !== info.expectedStatus) {
      await info.attach('bridge', {
        body: bridge.program.lines.slice(-200).join('\n'),
        contentType: 'text/plain',
      });
    }
  },

  link: async ({ bridge }, use) => {
    await use(`http://localhost:${bridge.port}/the-meeting-${process.pid}-${++meetings}`);
  },

  seat: async ({ house, cast }, use, info) => {
    const people: Person[] = [];
    await use(async (options) => {
      const index = people.length;
      const isDark = options?.context?.colorScheme === 'dark';
      const browser = await house.browser(cast[index % cast.length]!, isDark);
      const person = await Person.at(browser, index, options);
      people.push(person);
      return person;
    });
    const hasFailed = info.status !== info.expectedStatus;
    for (const person of people) {
      if (hasFailed && !person.page.isClosed()) {
        await info.attach(`${person.name}-complaints`, { body: person.complaints.join('\n') });
        const body = await person.page.screenshot().catch(() => undefined);
        if (body) await info.attach(`${person.name}.png`, { body, contentType: 'image/png' });
      }
      await person.close();
    }
    if (hasFailed) return;
    // Whatever the test was about: no page asks anyone but the bridge for anything, and none has an error.
    for (const person of people.filter((one) => !one.isProvoked)) {
      const foreign = person.requests.filter((url) => !/^(https?:\/\/localhost:\d+\/|data:|blob:)/.test(url));
      expect(foreign, 'requests to anyone but the bridge').toEqual([]);
      expect(
        person.complaints.filter((text) => !isOfALostLine(text)),
        'errors on the page',
      ).toEqual([]);
    }
  },
});

/** What browsers write on their own when a connection fails. */
function isOfALostLine(text: string): boolean {
  return /ERR_(CONNECTION|EMPTY_RESPONSE|NETWORK|SOCKET_NOT_CONNECTED)|Failed to load resource|can.t establish a connection|was interrupted|closed before receiving a handshake/i.test(
    text,
  );
}
