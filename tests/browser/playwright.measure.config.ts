// Measurements and pictures, not tests: `npx playwright test --config playwright.measure.config.ts [FILE]`.
// They print figures and write files; what they say is put into docs/ by hand, with the command.

import { defineConfig } from '@playwright/test';
import type { BrowserName } from './harness/browsers.ts';

export default defineConfig<object, { cast: BrowserName[] }>({
  testDir: 'measure',
  outputDir: 'test-results',
  workers: 1,
  retries: 0,
  timeout: 300_000,
  expect: { timeout: 30_000 },
  reporter: [['line']],
  projects: [
    { name: 'firefox', use: { cast: ['firefox'] } },
    { name: 'chromium', use: { cast: ['chromium'] } },
  ],
});
