// What people hear and see over bad lines: one who sends sound and a picture, one who has a microphone only and is
// measured, each behind an emulator of their own. See lines.mjs.

import { writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { startBridge, type Bridge } from '../harness/bridge.ts';
import { Link } from '../harness/link.ts';
import { Person } from '../harness/person.ts';
import { expect, test } from '../harness/test.ts';
import { PROFILES, SETTLE_MS } from './lines/profiles.ts';
import { installGauge } from './lines/gauge.ts';
import { judge } from './lines/judge.ts';

const folder = process.env['ASAMBLEA_FIGURES'];
const wanted = process.env['ASAMBLEA_LINES']?.split(',').filter(Boolean) ?? [];
const log = process.env['ASAMBLEA_LINES_LOG'];

for (const profile of PROFILES) {
  if (wanted.length > 0 && !wanted.includes(profile.name)) continue;
  test(profile.name, async ({ house, cast }) => {
    if (!folder) throw new Error('run "node lines.mjs" instead');
    const browser = await house.browser(cast[0]!);
    const bridge: Bridge = await startBridge(...(log ? ['--log', log] : []));
    const [near, far] = [await Link.open(bridge.port, 11), await Link.open(bridge.port, 12)];
    try {
      const sender = await Person.at(browser, 0, { isRestless: true });
      const receiver = await Person.at(browser, 1, { cameraRefusal: 'NotFoundError' });
      await near.carry(sender);
      await far.carry(receiver);
      await receiver.page.addInitScript(installGauge);
      const link = `http://localhost:${bridge.port}/lines-${profile.name}`;
      await sender.join(link);
      await receiver.join(link);
      await receiver.expectSees([sender]);
      await receiver.expectHears([sender], [sender]);
      await receiver.page.evaluate(() => window.__gauge.start());
      await pause(SETTLE_MS);
      // Everything went through the emulators, or the figures are of something else.
      for (const one of [near, far]) {
        const { up, down } = await one.report();
        expect(Math.min(up.delivered, down.delivered)).toBeGreaterThan(50);
      }

      // Orders carry their own times: how busy this process is makes no difference.
      const began = Date.now();
      for (const order of profile.sender ?? []) near.order(order);
      for (const order of profile.receiver ?? []) far.order(order);
      await pause(profile.ms);
      const ended = Date.now();
      const reading = await receiver.page.evaluate(() => window.__gauge.read());
      const lines = { sender: await near.report(), receiver: await far.report() };
      const result = {
        browser: cast[0],
        version: browser.version(),
        profile: profile.name,
        event: profile.event,
        ...judge(reading, profile, began, ended),
        lines,
        sent: await sender.page.evaluate(sent),
        /** Of the machine, over the last minute: above 2 the two cores had more to do than they could. */
        load: loadavg()[0],
      };
      const file = join(folder, `${cast[0]}-${profile.name}`);
      writeFileSync(`${file}.json`, JSON.stringify({ result, reading, began, ended }));
      if (log) writeFileSync(`${file}.log`, bridge.program.lines.join('\n'));
      console.log(
        `  ${cast[0]} ${profile.name}: ${JSON.stringify({ ...result, lines: undefined, sent: undefined })}`,
      );
      for (const person of [sender, receiver]) await person.close();
    } finally {
      await Promise.all([near.close(), far.close(), bridge.program.stop()]);
    }
  });
}

/** In the page: what the camera's layers sent so far, and what held them back where the browser says so. */
async function sent(): Promise<Record<string, unknown>[]> {
  const layers: Record<string, unknown>[] = [];
  (await window.keptPeers.at(-1)!.getStats()).forEach((entry) => {
    if (entry.type !== 'outbound-rtp' || entry.kind !== 'video') return;
    const { rid, active, frameHeight, framesEncoded, bytesSent, targetBitrate, qualityLimitationReason } =
      entry;
    const { nackCount, pliCount, firCount } = entry;
    layers.push({
      ...{ rid, active, frameHeight, framesEncoded, bytesSent, targetBitrate, qualityLimitationReason },
      ...{ nackCount, pliCount, firCount },
    });
  });
  return layers;
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
