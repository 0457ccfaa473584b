#!/usr/bin/env node
// Time from "Join" to the first decoded frame of someone else's camera, on one machine, per browser.
//
//   node measure.mjs [JOINS]      after "tests/run build"; better with a release build:
//   ASAMBLEA_PROFILE=release node measure.mjs
//   ASAMBLEA_WAY="turn udp" node measure.mjs      through the relay alone; also "turn tcp"
//
// Prints JSON and a table in Markdown.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const joins = Number(process.argv[2] ?? 11);
const folder = mkdtempSync(join(tmpdir(), 'asamblea-measure-'));
try {
  const { status } = spawnSync('npx', ['playwright', 'test', '-c', 'tools.config.ts', 'measure'], {
    cwd: import.meta.dirname ?? new URL('.', import.meta.url).pathname,
    env: { ...process.env, ASAMBLEA_FIGURES: folder, ASAMBLEA_JOINS: String(joins) },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (status !== 0) process.exit(status ?? 1);
  const figures = readdirSync(folder).map((file) => JSON.parse(readFileSync(join(folder, file), 'utf8')));
  const at = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  const results = figures.map(({ browser, version, times }) => {
    const sorted = times.toSorted((a, b) => a - b).map(Math.round);
    const [min, median, max] = [sorted[0], at(sorted, 0.5), sorted.at(-1)];
    return { browser, version, joins: sorted.length, min_ms: min, median_ms: median, max_ms: max };
  });
  console.log(JSON.stringify({ join_to_first_frame: results }, null, 2));
  console.log('\n| Browser | Joins | Minimum | Median | Maximum |\n|---|---|---|---|---|');
  for (const one of results) {
    const name = `${one.browser} ${one.version}`;
    console.log(`| ${name} | ${one.joins} | ${one.min_ms} ms | **${one.median_ms} ms** | ${one.max_ms} ms |`);
  }
} finally {
  rmSync(folder, { recursive: true });
}
