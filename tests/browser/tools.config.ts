// Not tests: what makes the figures and the pictures of the documentation. See measure.mjs and screenshots.mjs.

import { defineConfig } from '@playwright/test';
import type { BrowserName } from './harness/browsers.ts';

export default defineConfig<object, { cast: BrowserName[] }>({
  testDir: 'tools',
  testMatch: '*.tool.ts',
  outputDir: 'test-results/tools',
  workers: 1,
  timeout: 600_000,
  expect: { timeout: 60_000 },
  reporter: 'list',
  projects: [
    { name: 'firefox', use: { cast: ['firefox'] } },
    { name: 'chromium', use: { cast: ['chromium'] } },
  ],
});
