#!/usr/bin/env node
// A witness of a load test: stock Chromium watches the bots' publisher and says what came, as
// `loadtest/src/run/witness.rs` has it. From the project's folder:
//
//   target/release/loadtest witness --witness "node tests/browser/witness.mjs"

import { spawnSync } from 'node:child_process';

const args = ['playwright', 'test', '-c', 'tools.config.ts', 'witness', '--project=chromium'];
const { status } = spawnSync('npx', args, {
  cwd: import.meta.dirname ?? new URL('.', import.meta.url).pathname,
  stdio: ['ignore', 'inherit', 'inherit'],
});
process.exit(status ?? 1);
