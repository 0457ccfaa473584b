// The stock browsers of Debian, started for tests: no build of anyone else's.

import { chromium, firefox, type Browser } from '@playwright/test';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export type BrowserName = 'firefox' | 'chromium';

/** What users have, except where a test has no display, no sound card and no hand to click a permission. */
const FIREFOX_PREFERENCES: Record<string, string | number | boolean> = {
  // Devices without a question; the oracle replaces what they give.
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'permissions.default.camera': 1,
  'permissions.default.microphone': 1,
  // Several people in one browser: a window without the focus is as good as one with it.
  'media.devices.unfocused.enabled': true,
  'focusmanager.testmode': true,
  'dom.min_background_timeout_value': 4,
  'dom.timeout.enable_budget_timer_throttling': false,
  // The oracle's tone starts before anyone has clicked.
  'media.autoplay.default': 0,
  'media.autoplay.block-webaudio': false,
  // Without a sound card an AudioContext would never start: a card that Firefox makes up.
  'media.cubeb.force_mock_context': true,
  // The bridge is on this machine, where Firefox does not look by default.
  'media.peerconnection.ice.loopback': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  // Nothing of the browser's own on the line or on the processor.
  'app.normandy.enabled': false,
  'browser.backup.enabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'browser.safebrowsing.phishing.enabled': false,
  'datareporting.healthreport.uploadEnabled': false,
  'media.gmp-manager.updateEnabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'toolkit.telemetry.enabled': false,
};

/** Pages are told that the person prefers dark (0 dark, 1 light, 2 as the system). */
export const FIREFOX_DARK = { 'layout.css.prefers-color-scheme.content-override': 0 };

const CHROMIUM_FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--allow-loopback-in-peer-connection',
  '--autoplay-policy=no-user-gesture-required',
];

/** The same for Firefox in each way of starting it. */
function firefoxOptions(preferences: Record<string, string | number | boolean>) {
  // The card that Firefox makes up is too slow on a busy machine, which is heard: measurements give it a real one.
  const pulse = process.env['ASAMBLEA_PULSE'];
  const card: typeof preferences = pulse ? { 'media.cubeb.force_mock_context': false } : {};
  return {
    // `moz-firefox` drives the browser as it is shipped, over WebDriver BiDi.
    channel: 'moz-firefox',
    executablePath: process.env['FIREFOX'] ?? '/usr/bin/firefox-esr',
    firefoxUserPrefs: { ...FIREFOX_PREFERENCES, ...card, ...preferences },
    ...(pulse && { env: { ...(process.env as Record<string, string>), PULSE_SERVER: pulse } }),
  };
}

function chromiumOptions(flags: string[]) {
  return {
    executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
    args: [...CHROMIUM_FLAGS, ...flags],
  };
}

/** Starts a browser; Firefox with these preferences over the usual ones, Chromium with these flags beside them. */
export function launch(
  name: BrowserName,
  preferences: Record<string, string | number | boolean> = {},
  flags: string[] = [],
): Promise<Browser> {
  if (name === 'firefox') return firefox.launch(firefoxOptions(preferences));
  return chromium.launch(chromiumOptions(flags));
}

const FIXTURES = join(dirname(fileURLToPath(import.meta.url)), '../fixtures');

/**
 * For `localhost`, signed by an authority that signs nothing else and whose key was thrown away: of no worth but to
 * tests.
 */
export const CERTIFIED = [
  '--tls-cert',
  join(FIXTURES, 'localhost.pem'),
  '--tls-key',
  join(FIXTURES, 'localhost-key.pem'),
];

/**
 * Runs with a browser that trusts the authority of `CERTIFIED`, as an administrator's hand would make it: browsers let
 * nobody wave a relay's certificate through, as they do with a page's.
 */
export async function withTrusting(
  name: BrowserName,
  run: (browser: Browser) => Promise<void>,
): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), 'asamblea-trusting-'));
  try {
    // Firefox looks into its profile, Chromium into its user's home.
    const store = name === 'firefox' ? home : join(home, '.pki/nssdb');
    await mkdir(store, { recursive: true });
    const certutil = (...args: string[]) => promisify(execFile)('certutil', ['-d', `sql:${store}`, ...args]);
    await certutil('-N', '--empty-password');
    await certutil('-A', '-n', 'tests', '-t', 'C,,', '-i', join(FIXTURES, 'authority.pem'));
    if (name === 'firefox') {
      const context = await firefox.launchPersistentContext(home, firefoxOptions({}));
      try {
        await run(context.browser()!);
      } finally {
        await context.close();
      }
    } else {
      const env = { ...(process.env as Record<string, string>), HOME: home };
      const browser = await chromium.launch({ ...chromiumOptions([]), env });
      try {
        await run(browser);
      } finally {
        await browser.close();
      }
    }
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}
