// The pages around a call: start, before joining, refusals, languages, keyboard, accessibility, and what they load.

import axe from 'axe-core';
import type { Page } from '@playwright/test';
import { startBridge } from '../harness/bridge.ts';
import { expectEveryoneMeets } from '../harness/person.ts';
import { expect, test } from '../harness/test.ts';

test('a new meeting has a link of its own, and a name or link leads into a meeting', async ({
  seat,
  bridge,
}) => {
  const ana = await seat();
  const start = `http://localhost:${bridge.port}/`;
  await ana.open(start);
  await ana.press('New meeting');
  await expect(ana.button('Join')).toBeVisible();
  const link = ana.page.url();
  expect(new URL(link).pathname.length, 'an unguessable name').toBeGreaterThan(15);

  for (const typed of [new URL(link).pathname.slice(1), link]) {
    await ana.open(start);
    await ana.page.getByLabel('Meeting name or link').fill(typed);
    await ana.page.keyboard.press('Enter');
    await expect(ana.button('Join')).toBeVisible();
    expect(ana.page.url()).toBe(link);
  }
});

test('before joining one sees oneself and that the microphone works', async ({ seat, link }) => {
  const ana = await seat();
  await ana.open(link);
  const seen = () => ana.page.evaluate(() => window.__oracle.see());
  await expect.poll(async () => (await seen()).map((one) => one.colour)).toEqual([ana.camera]);
  const meter = ana.page.getByRole('meter', { name: 'Microphone level' });
  await expect.poll(async () => Number(await meter.getAttribute('aria-valuenow'))).toBeGreaterThan(10);
  await ana.press('Mute microphone');
  await expect.poll(async () => Number(await meter.getAttribute('aria-valuenow'))).toBeLessThan(5);
});

test('the link can be copied', async ({ seat, link, cast }) => {
  const ana = await seat(
    cast[0] === 'chromium' ? { context: { permissions: ['clipboard-read', 'clipboard-write'] } } : {},
  );
  await ana.join(link);
  await ana.button('Copy link').first().click();
  await expect(ana.page.getByText('Link copied').first()).toBeVisible();
});

test('a link copied at the bridge’s own machine leads others into the same meeting', async ({
  seat,
  cast,
}) => {
  // Stands for an address of the network, which a test does not use.
  const bridge = await startBridge('--public-address', '127.0.0.1');
  try {
    const ana = await seat(
      cast[0] === 'chromium' ? { context: { permissions: ['clipboard-read', 'clipboard-write'] } } : {},
    );
    await ana.join(`http://localhost:${bridge.port}/tea`);
    await ana.button('Copy link').first().click();
    await expect(ana.page.getByText('It works for others in your network').first()).toBeVisible();
    const link = `https://127.0.0.1:${bridge.port}/tea`;
    if (cast[0] === 'chromium') {
      expect(await ana.page.evaluate(() => navigator.clipboard.readText())).toBe(link);
    }
    const berta = await seat({ context: { ignoreHTTPSErrors: true } });
    // What she loads comes from the bridge, but not from localhost, as the check after each test wants it.
    berta.isProvoked = true;
    await berta.join(link);
    await expectEveryoneMeets([ana, berta]);
  } finally {
    await bridge.program.stop();
  }
});

test('an address that can be no meeting’s says so and leads back', async ({ seat, bridge }) => {
  const ana = await seat({ context: { locale: 'es-ES' } });
  await ana.open(`http://localhost:${bridge.port}/unknown.png`);
  await expect(ana.page.getByRole('heading', { name: 'Ninguna reunión puede llamarse así' })).toBeVisible();
  await ana.page.getByRole('link', { name: 'Página de inicio' }).click();
  await expect(ana.button('Nueva reunión')).toBeVisible();
});

const REFUSALS = [
  { refusal: 'NotAllowedError', says: 'The browser does not allow the microphone here' },
  { refusal: 'NotFoundError', says: 'No microphone was found' },
  { refusal: 'NotReadableError', says: 'Another program is using the microphone' },
] as const;

for (const { refusal, says } of REFUSALS) {
  test(`without devices one can still join to listen (${refusal})`, async ({ seat, link }) => {
    const ana = await seat();
    const berta = await seat({ microphoneRefusal: refusal, cameraRefusal: refusal });
    const people = [ana, berta];
    await ana.join(link);
    await berta.open(link);
    await expect(berta.page.getByText(says)).toBeVisible();
    await expect(berta.page.getByText('You can still join to listen')).toBeVisible();
    await berta.page.getByLabel('Your name').fill('Berta');
    await berta.press('Join');
    await berta.expectInMeeting();
    await berta.expectHears([ana], people);
    await berta.expectSees([ana]);
    await expect(ana.tile('Berta').getByText('Microphone off')).toBeAttached();
    await ana.expectHears([], people);
  });
}

test('the browser’s language is spoken, and another can be chosen', async ({ seat, link, bridge }) => {
  const ana = await seat({ context: { locale: 'es-ES' } });
  await ana.open(`http://localhost:${bridge.port}/`);
  await expect(ana.button('Nueva reunión')).toBeVisible();
  await expect(ana.page.locator('html')).toHaveAttribute('lang', 'es');
  await ana.open(link);
  await expect(ana.button('Unirse')).toBeVisible();
  await ana.page.getByLabel('Idioma').selectOption('en');
  await expect(ana.button('Join')).toBeVisible();
  await expect(ana.page.locator('html')).toHaveAttribute('lang', 'en');
  await ana.page.reload();
  await expect(ana.button('Join')).toBeVisible();
  await ana.page.getByLabel('Language').selectOption('es');
  await ana.page.getByLabel('Tu nombre').fill('Ana');
  await ana.button('Unirse').click();
  for (const name of ['Silenciar micrófono', 'Apagar cámara', 'Salir']) {
    await expect(ana.button(name)).toBeVisible();
  }
});

/** Presses Tab until the focus is on what has this accessible name. */
async function tabTo(page: Page, name: string): Promise<void> {
  const isThere = () =>
    page.evaluate((wanted) => {
      const focused = document.activeElement as HTMLElement & { labels?: NodeListOf<HTMLLabelElement> };
      const words =
        focused.getAttribute('aria-label') ?? focused.labels?.[0]?.textContent ?? focused.textContent;
      return words?.trim() === wanted;
    }, name);
  for (let i = 0; i < 40; i++) {
    if (await isThere()) return;
    await page.keyboard.press('Tab');
  }
  throw new Error(`the Tab key does not lead to "${name}"`);
}

test('one can join, mute and leave by keyboard alone', async ({ seat, link }) => {
  const [ana, berta] = [await seat(), await seat()];
  const people = [ana, berta];
  await berta.join(link);
  await ana.open(link);
  await expect(ana.button('Join')).toBeVisible();
  // Keys work in the window in front, as at a real desk.
  await ana.page.bringToFront();
  await tabTo(ana.page, 'Your name');
  await ana.page.keyboard.type('Ana');
  await tabTo(ana.page, 'Join');
  await ana.page.keyboard.press('Enter');
  await ana.expectInMeeting();
  await expectEveryoneMeets(people);

  await tabTo(ana.page, 'Mute microphone');
  await ana.page.keyboard.press('Space');
  await berta.expectHears([], people);
  await ana.page.keyboard.press('m');
  await berta.expectHears([ana], people);

  await tabTo(ana.page, 'Leave');
  await ana.page.keyboard.press('Enter');
  await expect(ana.page.getByRole('heading', { name: 'You left the meeting' })).toBeVisible();
  await expect(berta.tile('Ana')).toHaveCount(0);
});

/** What axe finds of weight on the page as it stands. */
async function barriers(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  return page.evaluate(async () => {
    const { run } = (window as unknown as { axe: typeof axe }).axe;
    const { violations } = await run(document, { resultTypes: ['violations'] });
    return violations
      .filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' ')}`);
  });
}

for (const colorScheme of ['light', 'dark'] as const) {
  test(`no barriers on any screen, ${colorScheme}`, async ({ seat, link, bridge }) => {
    const ana = await seat({ context: { colorScheme } });
    const berta = await seat();
    await ana.open(`http://localhost:${bridge.port}/`);
    await expect(ana.button('New meeting')).toBeVisible();
    expect(await ana.page.evaluate(() => matchMedia('(prefers-color-scheme: dark)').matches)).toBe(
      colorScheme === 'dark',
    );
    expect(await barriers(ana.page), 'start page').toEqual([]);
    await ana.open(link);
    await expect(ana.button('Join')).toBeVisible();
    expect(await barriers(ana.page), 'before joining').toEqual([]);
    await ana.page.getByLabel('Your name').fill('Ana');
    await ana.press('Join');
    await berta.join(link);
    await berta.press('Share screen');
    await expect.poll(() => ana.picture('Screen of Berta')).toBe(berta.screen);
    expect(await barriers(ana.page), 'meeting').toEqual([]);
    await ana.participants();
    expect(await barriers(ana.page), 'meeting with participants').toEqual([]);
    await ana.press('Leave');
    await expect(ana.page.getByRole('heading', { name: 'You left the meeting' })).toBeVisible();
    expect(await barriers(ana.page), 'after leaving').toEqual([]);
  });
}

test('a phone’s width is enough', async ({ seat, link }) => {
  const ana = await seat({ context: { viewport: { width: 360, height: 740 } } });
  const berta = await seat();
  await ana.join(link);
  await berta.join(link);
  // What is said on the way covers nobody's name.
  const covered = () =>
    ana.page.evaluate(() => {
      const boxes = (selector: string) =>
        [...document.querySelectorAll(selector)].map((element) => element.getBoundingClientRect());
      const [said, names] = [boxes('[role=log] > *'), boxes('.plate')];
      if (said.length === 0 || names.length < 2) return 'not yet';
      const meets = (a: DOMRect, b: DOMRect) =>
        a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
      return names.filter((name) => said.some((box) => meets(box, name))).length;
    });
  await expect.poll(covered).toBe(0);
  await expectEveryoneMeets([ana, berta]);
  for (const name of ['Mute microphone', 'Turn off camera', 'Share screen', 'Leave']) {
    await expect(ana.button(name)).toBeInViewport({ ratio: 1 });
  }
  expect(await ana.page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);
});

test('names are text, whatever they hold, and are cut at a bound', async ({ seat, link }) => {
  const markup = '<img src=x onerror="document.title=1"><b>Ana</b> & "co"';
  const ana = await seat({ name: markup });
  const berta = await seat({ name: 'B'.repeat(10_000) });
  await ana.join(link);
  await berta.join(link);
  await expect.poll(() => ana.participants()).toEqual([`${'B'.repeat(64)}`, `${markup} (you)`].sort());
  await expect.poll(async () => (await berta.participants()).includes(markup)).toBe(true);
  await expect(ana.page.locator('img[src=x]')).toHaveCount(0);
  expect(await berta.page.title()).not.toBe('1');
  await expectEveryoneMeets([
    Object.assign(Object.create(ana), { name: markup }),
    Object.assign(Object.create(berta), { name: 'B'.repeat(64) }),
  ]);
});

test('every page carries the policy that keeps it at home', async ({ seat, link, bridge }) => {
  const ana = await seat();
  for (const path of ['', new URL(link).pathname.slice(1)]) {
    const response = await fetch(`http://localhost:${bridge.port}/${path}`);
    expect(response.headers.get('content-security-policy')).toContain("default-src 'self'");
  }
  await ana.open(link);
  await expect(ana.button('Join')).toBeVisible();
  // The policy holds in this browser: nothing of another origin loads, nothing of the page's own text runs.
  ana.isProvoked = true;
  await ana.page.evaluate(() => {
    const blocked = new Set<string>();
    Object.assign(window, { blocked });
    addEventListener('securitypolicyviolation', (event) => blocked.add(event.effectiveDirective));
    const script = document.createElement('script');
    script.textContent = 'document.title = "owned"';
    document.body.append(script);
    new Image().src = 'http://127.0.0.2:9/x.png';
    void fetch('http://127.0.0.2:9/').catch(() => undefined);
  });
  const blocked = () =>
    ana.page.evaluate(() => [...(window as unknown as { blocked: Set<string> }).blocked].sort());
  await expect.poll(blocked).toEqual(['connect-src', 'img-src', 'script-src-elem']);
  expect(await ana.page.title()).not.toBe('owned');
});
