// A person at a browser: what they do through accessible names, what they hear and see through the oracle.

import { expect, type Browser, type BrowserContextOptions, type Locator, type Page } from '@playwright/test';
import { installOracle, type Colour, type OracleParams } from './oracle.ts';

/** No tone is near a multiple of another. */
const TONES_HZ = [440, 560, 720, 930];
const CAMERAS: Colour[] = ['red', 'green', 'blue', 'yellow'];
const SCREENS: Colour[] = ['magenta', 'cyan', 'orange', 'violet'];
const NAMES = ['Ana', 'Berta', 'Carlos', 'Dina'];

/** Heard clearly; and silent, far below what Opus leaves of a neighbouring tone. */
export const HEARD_DB = -45;
const SILENT_DB = -60;
/** A picture older than this stands still. */
const FRESH_MS = 2_000;

export interface PersonOptions extends Partial<OracleParams> {
  name?: string;
  context?: BrowserContextOptions;
}

export class Person {
  readonly name: string;
  readonly page: Page;
  readonly toneHz: number;
  readonly camera: Colour;
  readonly screen: Colour;
  /** Every address that the page asked for. */
  readonly requests: string[];
  /** What the page complained of. */
  readonly complaints: string[];
  /** Set by a test that makes the page do what it must not. */
  isProvoked = false;

  private constructor(
    name: string,
    page: Page,
    params: OracleParams,
    requests: string[],
    complaints: string[],
  ) {
    this.name = name;
    this.page = page;
    this.toneHz = params.toneHz;
    this.camera = params.camera;
    this.screen = params.screen;
    this.requests = requests;
    this.complaints = complaints;
  }

  /** Seats the `index`th person at a browser. */
  static async at(browser: Browser, index: number, options: PersonOptions = {}): Promise<Person> {
    const { name = NAMES[index]!, context: contextOptions, ...oracle } = options;
    const params: OracleParams = {
      toneHz: TONES_HZ[index]!,
      camera: CAMERAS[index]!,
      screen: SCREENS[index]!,
      ...oracle,
    };
    const context = await browser.newContext({ locale: 'en-US', ...contextOptions });
    const requests: string[] = [];
    const complaints: string[] = [];
    const page = await context.newPage();
    page.on('request', (request) => requests.push(request.url()));
    page.on('pageerror', (error) => complaints.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text());
    });
    await page.addInitScript(installOracle, params);
    return new Person(name, page, params, requests, complaints);
  }

  async open(url: string): Promise<void> {
    await this.page.goto(url);
  }

  /** From the link into the meeting. */
  async join(url: string): Promise<void> {
    await this.open(url);
    await this.page.getByLabel('Your name').fill(this.name);
    await this.button('Join').click();
    await this.expectInMeeting();
  }

  async expectInMeeting(): Promise<void> {
    await expect(this.button('Leave')).toBeVisible();
  }

  button(name: string): Locator {
    return this.page.getByRole('button', { name, exact: true });
  }

  async press(name: string): Promise<void> {
    await this.button(name).click();
  }

  /** The tile with this name. */
  tile(name: string): Locator {
    return this.page
      .getByRole('list', { name: 'People in view' })
      .getByRole('listitem', { name, exact: true });
  }

  /** The level of each of these people's tones, in dB. */
  async levels(people: Person[]): Promise<Map<Person, number>> {
    const tones = people.map((person) => person.toneHz);
    const heard = await this.page.evaluate((hz) => window.__oracle.hear(hz), tones);
    return new Map(people.map((person) => [person, heard.tones[person.toneHz]!]));
  }

  /** Exactly these of all are heard; oneself never is. */
  async expectHears(heard: Person[], all: Person[]): Promise<void> {
    const wanted = Object.fromEntries(all.map((one) => [one.name, heard.includes(one) ? 'heard' : 'silent']));
    await expect
      .poll(async () => {
        const levels = await this.levels(all);
        return Object.fromEntries(
          [...levels].map(([one, db]) => [
            one.name,
            db > HEARD_DB ? 'heard' : db < SILENT_DB ? 'silent' : `faint: ${db}`,
          ]),
        );
      }, `what ${this.name} hears`)
      .toEqual(wanted);
  }

  /** What the tile with this label shows: a colour while the picture moves, else why not. */
  async picture(label: string): Promise<string> {
    const seen = (await this.page.evaluate(() => window.__oracle.see())).find((one) => one.label === label);
    if (!seen) return 'no picture';
    if (seen.stamp < 0 || seen.ageMs > FRESH_MS) return `${seen.colour}, standing still`;
    return seen.colour;
  }

  async expectSees(others: Person[]): Promise<void> {
    for (const other of others) {
      await expect.poll(() => this.picture(other.name), `${this.name} sees ${other.name}`).toBe(other.camera);
    }
  }

  async expectNoPictureOf(other: Person): Promise<void> {
    await expect.poll(() => this.picture(other.name), `${this.name} sees ${other.name}`).toBe('no picture');
  }

  /** Who is in the meeting, as the participants list has it. */
  async participants(): Promise<string[]> {
    const panel = this.page.getByRole('complementary', { name: 'Participants' });
    if (!(await panel.isVisible())) await this.page.getByRole('button', { name: 'Participants' }).click();
    const names = await panel.locator('.participant-name').allTextContents();
    return names.map((name) => name.trim()).sort();
  }

  /** Leaves the browser as it was. */
  async close(): Promise<void> {
    await this.page.context().close();
  }
}

/** Everyone hears exactly the others and sees moving pictures of the others. */
export async function expectEveryoneMeets(people: Person[]): Promise<void> {
  for (const person of people) {
    const others = people.filter((other) => other !== person);
    await person.expectHears(others, people);
    await person.expectSees(others);
  }
}
