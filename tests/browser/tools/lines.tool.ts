// What people hear and see over bad lines: one who sends sound and a picture, one who has a microphone only and is
// measured, each behind an emulator of their own. See lines.mjs, which says what is to be measured and where to.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import type { Person } from '../harness/person.ts';
import { expect, test } from '../harness/test.ts';
import { callAsamblea, type Call } from './lines/call.ts';
import { installGauge } from './lines/gauge.ts';
import { callJanus } from './lines/janus/call.ts';
import { judge, STEADY_FROM_MS, usage } from './lines/judge.ts';
import { PROFILES, SETTLE_MS, type LineProfile } from './lines/profiles.ts';
import { installRecorder, WORKLET } from './lines/recorder.ts';

const folder = process.env['ASAMBLEA_FIGURES'];
/** Names of cells: `firefox-asamblea-clean`. */
const wanted = process.env['ASAMBLEA_CELLS']?.split(',') ?? [];
const log = process.env['ASAMBLEA_LINES_LOG'];

/** What is played at the end is heard a moment later. */
const TAIL_MS = 1_500;

for (const profile of PROFILES) {
  for (const system of ['asamblea', 'janus'] as const) {
    // All of them are always there, since a test that was retried reads this file again.
    test(`${system} ${profile.name}`, async ({ house, cast }) => {
      const cell = `${cast[0]}-${system}-${profile.name}`;
      test.skip(!wanted.includes(cell), 'not asked for, or measured before');
      if (!folder) throw new Error('run "node lines.mjs" instead');
      const browser = await house.browser(cast[0]!);
      const call = await (system === 'asamblea'
        ? callAsamblea(browser, profile.name, equip, log ? ['--log', log] : [])
        : callJanus(browser, equip, !profile.isUnrepaired));
      try {
        const { figures, speech, ...noted } = await measure(call, profile);
        const result = {
          event: profile.events !== undefined,
          ...{ browser: cast[0], version: browser.version(), system, profile: profile.name },
          ...figures,
          sent: await call.sender.page.evaluate(sent),
          /** Of the machine, over the last minute, and how many cores share it. */
          load: loadavg()[0],
          cores: cpus().length,
          commit: process.env['ASAMBLEA_COMMIT'],
          build: process.env['ASAMBLEA_PROFILE'] ?? 'debug',
          at: new Date(noted.began).toISOString(),
        };
        const file = join(folder, cell);
        if (speech) {
          writeFileSync(`${file}.wav`, wave(speech.recording.samples, speech.recording.rate));
          writeFileSync(
            `${file}.speech.json`,
            JSON.stringify({ spokeAt: speech.spokeAt, recordedAt: speech.recording.beganAt, ms: profile.ms }),
          );
        }
        if (log) writeFileSync(`${file}.log`, call.log().join('\n'));
        // Last: a cell is measured when this is there.
        writeFileSync(`${file}.json`, JSON.stringify({ result, ...noted }));
        console.log(`  ${cell}: ${JSON.stringify({ ...result, lines: undefined, sent: undefined })}`);
      } catch (error) {
        throw new Error(`${error}\n${call.log().slice(-20).join('\n')}`, { cause: error });
      } finally {
        await call.close();
      }
    });
  }
}

async function equip(receiver: Person): Promise<void> {
  await receiver.page.addInitScript(installGauge);
  await receiver.page.addInitScript(installRecorder, WORKLET);
}

async function measure({ sender, receiver, senderLine, receiverLine }: Call, profile: LineProfile) {
  await receiver.expectSees([sender]);
  await receiver.expectHears([sender], [sender]);
  await receiver.page.evaluate(() => window.__gauge.start());
  const speechFile = join(folder!, 'speech.wav');
  const words = existsSync(speechFile) ? readFileSync(speechFile) : null;
  if (words) await receiver.page.evaluate(() => window.__recorder.start());
  await pause(SETTLE_MS);
  // Everything went through the emulators, or the figures are of something else.
  for (const line of [senderLine, receiverLine]) {
    const { up, down } = await line.report();
    expect(Math.min(up.offered, down.offered)).toBeGreaterThan(20);
    expect(Math.max(up.delivered, down.delivered)).toBeGreaterThan(200);
  }

  const spokeAt = words && (await speak(sender, words));
  // Orders carry their own times: how busy this process is makes no difference.
  const began = Date.now();
  for (const order of profile.sender ?? []) senderLine.order(order);
  for (const order of profile.receiver ?? []) receiverLine.order(order);
  await pause(Math.min(STEADY_FROM_MS, profile.ms));
  const early = await receiverLine.report();
  const steadyFrom = Date.now();
  await pause(began + profile.ms - Date.now());
  const steady = await receiverLine.report();
  const ended = Date.now();
  const reading = await receiver.page.evaluate(() => window.__gauge.read());
  if (words) await pause(TAIL_MS);
  const recording = words && (await receiver.page.evaluate(() => window.__recorder.read()));
  return {
    figures: {
      ...judge(reading, profile, began, ended),
      ...usage(profile, steady.down, ended - steadyFrom),
      lines: { sender: await senderLine.report(), receiver: { early, steady } },
    },
    speech: recording && spokeAt ? { recording, spokeAt } : null,
    ...{ reading, began, ended },
  };
}

/** The sender's microphone gives speech from now on. */
function speak(sender: Person, words: Buffer): Promise<number> {
  const { data, rate } = samplesOf(words);
  return sender.page.evaluate(([samples, hz]) => window.__oracle.speak(samples, hz), [
    data.toString('base64'),
    rate,
  ] as const);
}

/** Where speech.py's files have them: 44 bytes of header, one channel, 16 bits. */
const WAVE_HEADER_BYTES = 44;

function samplesOf(file: Buffer): { data: Buffer; rate: number } {
  return { data: file.subarray(WAVE_HEADER_BYTES), rate: file.readUInt32LE(24) };
}

function wave(samples: string, rate: number): Buffer {
  const data = Buffer.from(samples, 'base64');
  const header = Buffer.alloc(WAVE_HEADER_BYTES);
  header.write('RIFF', 0);
  header.writeUInt32LE(WAVE_HEADER_BYTES - 8 + data.length, 4);
  header.write('WAVEfmt ', 8);
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(1, 20); // PCM
  header.writeUInt16LE(1, 22); // one channel
  header.writeUInt32LE(rate, 24);
  header.writeUInt32LE(rate * 2, 28);
  header.writeUInt16LE(2, 32);
  header.writeUInt16LE(16, 34);
  header.write('data', 36);
  header.writeUInt32LE(data.length, 40);
  return Buffer.concat([header, data]);
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

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, Math.max(0, ms)));
