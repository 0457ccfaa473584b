import { defineConfig } from '@playwright/test';
import type { BrowserName } from './harness/browsers.ts';

/** Files that start their own browsers: once, not for each cast. */
const OWN = ['oracle.spec.ts', 'hidden.spec.ts', 'walled.spec.ts'];

export default defineConfig<object, { cast: BrowserName[] }>({
  testDir: 'specs',
  outputDir: 'test-results',
  // A machine with two cores carries one call of browsers at a time.
  workers: 1,
  fullyParallel: false,
  retries: 0,
  forbidOnly: true,
  timeout: 150_000,
  expect: { timeout: 30_000 },
  reporter: [['list'], ['json', { outputFile: 'test-results/results.json' }]],
  projects: [
    { name: 'own', testMatch: OWN },
    { name: 'firefox', testIgnore: OWN, use: { cast: ['firefox'] } },
    { name: 'chromium', testIgnore: OWN, use: { cast: ['chromium'] } },
    {
      name: 'mixed',
      testMatch: ['call.spec.ts', 'controls.spec.ts', 'resume.spec.ts', 'twelve.spec.ts'],
      use: { cast: ['firefox', 'chromium'] },
    },
  ],
});
