// Whether a browser plays packets with a byte of RTP padding as well as others: the same call with and without.
// `npx playwright test -c tools.config.ts padding` after "tests/run build".

import { startBridge } from '../harness/bridge.ts';
import { launch } from '../harness/browsers.ts';
import { Person } from '../harness/person.ts';
import { expect, test } from '../harness/test.ts';

const SECONDS = 30;

interface Sums {
  framesDecoded: number;
  framesDropped: number;
  freezes: number;
  packets: number;
  lost: number;
  discarded: number;
  nacks: number;
  plis: number;
  headerBytes: number;
}

test('video with and without padded packets', async ({ cast }, info) => {
  const browser = await launch(cast[0]!);
  const headerBytes: Record<string, number> = {};
  for (const pad of ['false', 'true', 'false', 'true']) {
    const bridge = await startBridge('--pad-runs', pad);
    const people = [
      await Person.at(browser, 0, { isRestless: true }),
      await Person.at(browser, 1, { isRestless: true }),
    ];
    for (const person of people) await person.page.addInitScript(collectConnections);
    for (const person of people) await person.join(`http://localhost:${bridge.port}/padding`);
    const [ana, berta] = people as [Person, Person];
    await ana.expectSees([berta]);
    const before = await ana.page.evaluate(videoReceived);
    await ana.page.waitForFunction(
      ([from, seconds]) => performance.now() > from! + seconds! * 1_000,
      [await ana.page.evaluate(() => performance.now()), SECONDS],
      { timeout: (SECONDS + 20) * 1_000 },
    );
    await ana.expectSees([berta]);
    const after = await ana.page.evaluate(videoReceived);
    const change = Object.fromEntries(
      Object.entries(after).map(([key, value]) => [key, value - before[key as keyof Sums]]),
    ) as unknown as Sums;
    console.log(
      `\n${info.project.name}, padding ${pad}, ${SECONDS} s: ${JSON.stringify(change)}, ` +
        `header and padding bytes a packet ${(change.headerBytes / change.packets).toFixed(2)}`,
    );
    expect(change.framesDecoded).toBeGreaterThan(0);
    expect(change.packets / change.framesDecoded, 'frames of several packets').toBeGreaterThan(2);
    headerBytes[pad] = change.headerBytes / change.packets;
    for (const person of people) await person.close();
    await bridge.program.stop();
  }
  expect(headerBytes['true'], 'padding happened').toBeGreaterThan(headerBytes['false']!);
  await browser.close();
});

/** In the page: keeps every peer connection where `videoReceived` finds it. */
function collectConnections(): void {
  const kept: RTCPeerConnection[] = [];
  const Real = window.RTCPeerConnection;
  Object.assign(window, { keptConnections: kept });
  window.RTCPeerConnection = class extends Real {
    constructor(configuration?: RTCConfiguration) {
      super(configuration);
      kept.push(this);
    }
  };
}

/** In the page: what all video that came in adds up to. */
async function videoReceived(): Promise<Sums> {
  const sums = {
    framesDecoded: 0,
    framesDropped: 0,
    freezes: 0,
    packets: 0,
    lost: 0,
    discarded: 0,
    nacks: 0,
    plis: 0,
    headerBytes: 0,
  };
  const { keptConnections } = window as unknown as { keptConnections: RTCPeerConnection[] };
  for (const connection of keptConnections) {
    for (const report of (await connection.getStats()).values()) {
      if (report.type !== 'inbound-rtp' || report.kind !== 'video') continue;
      sums.framesDecoded += report.framesDecoded ?? 0;
      sums.framesDropped += report.framesDropped ?? 0;
      sums.freezes += report.freezeCount ?? 0;
      sums.packets += report.packetsReceived ?? 0;
      sums.lost += report.packetsLost ?? 0;
      sums.discarded += report.packetsDiscarded ?? 0;
      sums.nacks += report.nackCount ?? 0;
      sums.plis += report.pliCount ?? 0;
      sums.headerBytes += report.headerBytesReceived ?? 0;
    }
  }
  return sums;
}
