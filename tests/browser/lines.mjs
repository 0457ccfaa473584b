#!/usr/bin/env node
// What people hear and see over bad lines, per browser and line.
//
//   node lines.mjs [--browsers firefox,chromium] [--profiles clean,loss-10] [--keep FOLDER]
//
// After "tests/run build"; better with a release build: ASAMBLEA_PROFILE=release node lines.mjs
// Prints JSON and a table in Markdown. FOLDER keeps all that was noted, and the table;
// with --print as well, nothing is measured and what it keeps is printed.

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    browsers: { type: 'string', default: 'firefox,chromium' },
    profiles: { type: 'string', default: '' },
    keep: { type: 'string' },
    print: { type: 'boolean', default: false },
  },
});
const folder = values.keep ? resolve(values.keep) : mkdtempSync(join(tmpdir(), 'asamblea-lines-'));
mkdirSync(folder, { recursive: true });
const here = import.meta.dirname ?? new URL('.', import.meta.url).pathname;

/** Rows stand in the order of the profiles. */
const order = [
  ...readFileSync(join(here, 'tools/lines/profiles.ts'), 'utf8').matchAll(/row\('([^']+)', '([^']+)'/g),
].map(([, name, says]) => ({ name, says }));

const percent = (share) => (share === null ? '?' : `${(share * 100).toFixed(1)} %`);
const seconds = (ms) => (ms === null ? '-' : `${(ms / 1000).toFixed(1)} s`);

function table(results) {
  const head = [
    'Line',
    'Sound made up (+ silent)',
    'from second 6',
    'Longest freeze',
    'from second 6',
    'Frames/s',
    'Video kbit/s (from second 6)',
    'Picture, lines',
    'Age',
    'Said paused',
    'Sound, picture, full picture back after',
  ];
  const rows = order.flatMap(({ name, says }) =>
    results
      .filter((one) => one.profile === name)
      .map((one) => [
        says,
        `${percent(one.concealed)} (+ ${percent(one.silent)})`,
        percent(one.concealedLater),
        seconds(one.longestFreeze),
        seconds(one.longestFreezeLater),
        one.framesPerSecond,
        `${one.videoKbps} (${one.videoKbpsLater})`,
        one.heights.slice(0, 8).join(', '),
        one.pictureAge === null ? '-' : `${one.pictureAge} ms`,
        one.pausedShare === 0 ? 'no' : `${Math.round(one.pausedShare * 100)} % of the time`,
        one.event ? [one.soundBack, one.pictureBack, one.pictureAsBefore].map(seconds).join(', ') : '',
      ]),
  );
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

function measure() {
  const projects = values.browsers.split(',').map((name) => `--project=${name}`);
  return spawnSync('npx', ['playwright', 'test', '-c', 'tools.config.ts', 'lines.tool', ...projects], {
    cwd: here,
    env: { ...process.env, ASAMBLEA_FIGURES: folder, ASAMBLEA_LINES: values.profiles },
    stdio: ['ignore', 'inherit', 'inherit'],
  }).status;
}

try {
  const status = values.print ? 0 : measure();
  const results = readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .map((file) => JSON.parse(readFileSync(join(folder, file), 'utf8')).result)
    .filter(Boolean);
  console.log(JSON.stringify({ lines: results }));
  const tables = [...new Set(results.map((one) => one.browser))].map((browser) => {
    const own = results.filter((one) => one.browser === browser);
    return `### ${browser} ${own[0].version}\n\n${table(own)}\n`;
  });
  console.log(`\n${tables.join('\n')}`);
  if (values.keep) writeFileSync(join(folder, 'table.md'), tables.join('\n'));
  process.exitCode = status ?? 1;
} finally {
  if (!values.keep) rmSync(folder, { recursive: true });
}
