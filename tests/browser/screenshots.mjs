#!/usr/bin/env node
// Pictures of every screen: desktop and phone, light and dark, English and Spanish, from a real call.
//
//   node screenshots.mjs [FOLDER]      after "tests/run build"; the folder is "out" when none is given

import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';

const { status } = spawnSync('npx', ['playwright', 'test', '-c', 'tools.config.ts', 'screenshots'], {
  cwd: import.meta.dirname ?? new URL('.', import.meta.url).pathname,
  env: { ...process.env, ASAMBLEA_PICTURES: resolve(process.argv[2] ?? 'out') },
  stdio: ['ignore', 'inherit', 'inherit'],
});
process.exit(status ?? 1);
