// Pictures of every screen, to be looked at: desktop and phone, light and dark, English and Spanish, from a real call.
// They are written to the folder `out/`.

import type { BrowserContextOptions } from '@playwright/test';
import { Person } from '../harness/person.ts';
import { expect, test } from '../harness/test.ts';

const VIEWPORTS = { desktop: { width: 1280, height: 800 }, phone: { width: 360, height: 740 } };

for (const [size, viewport] of Object.entries(VIEWPORTS)) {
  for (const colorScheme of ['light', 'dark'] as const) {
    for (const locale of ['en-US', 'es-MX']) {
      test(`screens ${size} ${colorScheme} ${locale}`, async ({ house, cast, bridge, link, seat }, info) => {
        const isSpanish = locale.startsWith('es');
        const word = (en: string, es: string): string => (isSpanish ? es : en);
        const others = [await seat(), await seat()];
        for (const other of others) await other.join(link);
        const context: BrowserContextOptions = { locale, viewport, colorScheme, deviceScaleFactor: 1 };
        const me = await Person.at(await house.browser(cast[0]!), 2, { context });
        const shot = (name: string): Promise<unknown> =>
          me.page.screenshot({
            path: `out/${info.project.name}-${size}-${colorScheme}-${isSpanish ? 'es' : 'en'}-${name}.png`,
          });
        const press = (en: string, es: string): Promise<void> => me.press(word(en, es));

        await me.open(`http://localhost:${bridge.port}/`);
        await expect(me.button(word('New meeting', 'Nueva reunión'))).toBeVisible();
        await shot('1-start');
        await me.open(link);
        await me.page.getByLabel(word('Your name', 'Tu nombre')).fill('Carlos Ñáñez');
        await expect(me.page.locator('video')).toHaveCount(1);
        await shot('2-lobby');
        await press('Join', 'Unirse');
        await expect(me.button(word('Leave', 'Salir'))).toBeVisible();
        await me.expectSees(others);
        await shot('3-meeting');
        await me.participants().catch(() => []);
        await me.page.getByRole('button', { name: word('Participants', 'Participantes') }).click();
        await shot('4-participants');
        await me.page.keyboard.press('Escape');
        await others[0]!.press('Share screen');
        await expect(me.page.locator('[data-kind=screen]')).toHaveCount(1);
        await shot('5-share');
        await me.page.getByRole('button', { name: word('Settings', 'Ajustes') }).click();
        await shot('6-settings');
        await me.page.keyboard.press('Escape');
        await press('Leave', 'Salir');
        await shot('7-left');
        await me.close();
      });
    }
  }
}
