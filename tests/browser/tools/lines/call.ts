// The call that is measured, over whatever server: who sends, who listens, and the line of each.

import type { Browser } from '@playwright/test';
import { startBridge } from '../../harness/bridge.ts';
import { Link } from '../../harness/link.ts';
import { Person } from '../../harness/person.ts';

export interface Call {
  sender: Person;
  receiver: Person;
  senderLine: Link;
  receiverLine: Link;
  /** The server's last words. */
  log(): string[];
  /** Leaves nothing behind, however far the call came. */
  close(): Promise<void>;
}

/** Seeds of the two lines: the same in every cell. */
export const SEEDS = { sender: 11, receiver: 12 };

/** Before the sender and the receiver come in: what every page of theirs is to have. */
export type Equip = (receiver: Person) => Promise<void>;

export async function callAsamblea(
  browser: Browser,
  name: string,
  equip: Equip,
  flags: string[],
): Promise<Call> {
  const bridge = await startBridge(...flags);
  const ends: (() => Promise<unknown>)[] = [() => bridge.program.stop()];
  const close = async () => {
    for (const end of ends.reverse()) await end().catch(() => undefined);
  };
  try {
    const open = async (seed: number) => {
      const line = await Link.open(bridge.port, seed);
      ends.push(() => line.close());
      return line;
    };
    const [senderLine, receiverLine] = [await open(SEEDS.sender), await open(SEEDS.receiver)];
    const sender = await Person.at(browser, 0, { isRestless: true });
    ends.push(() => sender.close());
    // The meeting's page lets no script in but its own, and a recorder is a script. Chromium can be told to let it in;
    // a Firefox that is driven over WebDriver BiDi cannot, and so gets the page without that header.
    const isChromium = browser.browserType().name() === 'chromium';
    const receiver = await Person.at(browser, 1, {
      cameraRefusal: 'NotFoundError',
      ...(isChromium && { context: { bypassCSP: true } }),
    });
    ends.push(() => receiver.close());
    await senderLine.carry(sender);
    await receiverLine.carry(receiver);
    await equip(receiver);
    if (!isChromium) {
      await receiver.page.route(/\/lines-[\w-]+$/, async (route) => {
        const response = await route.fetch();
        const { 'content-security-policy': _, ...headers } = response.headers();
        await route.fulfill({ response, headers });
      });
    }
    const link = `http://localhost:${bridge.port}/lines-${name}`;
    await sender.join(link);
    await receiver.join(link);
    return { sender, receiver, senderLine, receiverLine, log: () => bridge.program.lines, close };
  } catch (error) {
    await close();
    throw error;
  }
}
