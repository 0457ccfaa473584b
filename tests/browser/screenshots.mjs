#!/usr/bin/env node
// Pictures of every screen: desktop and phone, light and dark, English and Spanish, from a real call.
//
//   node screenshots.mjs [FOLDER [BROWSER]]      after "tests/run build"; into "out" and in Firefox when none is given

import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';

const [folder = 'out', browser = 'firefox'] = process.argv.slice(2);
const playwright = ['playwright', 'test', '-c', 'tools.config.ts', `--project=${browser}`, 'screenshots'];
const { status } = spawnSync('npx', playwright, {
  cwd: import.meta.dirname ?? new URL('.', import.meta.url).pathname,
  env: { ...process.env, ASAMBLEA_PICTURES: resolve(folder) },
  stdio: ['ignore', 'inherit', 'inherit'],
});
process.exit(status ?? 1);
