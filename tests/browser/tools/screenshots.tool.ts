// What every screen looks like. See screenshots.mjs.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '../harness/test.ts';

const WORDS = {
  en: {
    locale: 'en-US',
    newMeeting: 'New meeting',
    name: 'Your name',
    join: 'Join',
    leave: 'Leave',
    people: 'Participants',
    settings: 'Settings',
    left: 'You left the meeting',
  },
  es: {
    locale: 'es-ES',
    newMeeting: 'Nueva reunión',
    name: 'Tu nombre',
    join: 'Unirse',
    leave: 'Salir',
    people: 'Participantes',
    settings: 'Ajustes',
    left: 'Saliste de la reunión',
  },
} as const;
const SIZES = { desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } } as const;

for (const [language, words] of Object.entries(WORDS)) {
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const colorScheme of ['light', 'dark'] as const) {
      test(`${language} ${size} ${colorScheme}`, async ({ seat, link, bridge }) => {
        const folder = process.env['ASAMBLEA_PICTURES'];
        if (!folder) throw new Error('run "node screenshots.mjs" instead');
        mkdirSync(folder, { recursive: true });
        const ana = await seat({ context: { locale: words.locale, viewport, colorScheme } });
        const { page } = ana;
        // A picture is taken with a style of Playwright's in the page, which the page's policy does not allow in Firefox.
        ana.isProvoked = true;
        const take = (screen: string) =>
          page.screenshot({ path: join(folder, `${screen}-${language}-${size}-${colorScheme}.png`) });

        await ana.open(`http://localhost:${bridge.port}/`);
        await expect(ana.button(words.newMeeting)).toBeVisible();
        await take('start');

        await ana.open(`http://localhost:${bridge.port}/unknown.png`);
        await expect(page.getByRole('heading')).toBeVisible();
        await take('wrong-address');

        await ana.open(link);
        const colours = () => page.evaluate(() => window.__oracle.see().map((seen) => seen.colour));
        await expect.poll(colours).toEqual([ana.camera]);
        await take('lobby');

        await page.getByLabel(words.name).fill('Ana');
        await ana.button(words.join).click();
        await expect(ana.button(words.leave)).toBeVisible();
        await take('alone');

        const [berta, carlos] = [await seat(), await seat()];
        await berta.join(link);
        await carlos.join(link);
        await carlos.press('Turn off camera');
        await take('joined');
        await ana.expectSees([berta]);
        await take('meeting');

        await page.getByRole('button', { name: words.people }).click();
        await take('participants');
        await page.getByRole('button', { name: words.people }).click();

        await page.getByRole('button', { name: words.settings }).click();
        await expect(page.getByRole('dialog')).toBeVisible();
        await take('settings');
        await page.keyboard.press('Escape');

        await berta.press('Share screen');
        const screen = () => page.evaluate(() => window.__oracle.see().map((seen) => seen.colour));
        await expect.poll(screen).toContain(berta.screen);
        await take('screen');

        await ana.button(words.leave).click();
        await expect(page.getByRole('heading', { name: words.left })).toBeVisible();
        await take('left');
      });
    }
  }
}
