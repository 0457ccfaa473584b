// What language the page speaks, and its words.
//
// Messages live in `locales/{en,es}/ui.ftl` (Project Fluent) and are built into the client: two small files, no
// request. Nothing outside this file knows which languages exist.

import { FluentBundle, FluentResource, type FluentVariable } from '@fluent/bundle';
import { negotiateLanguages } from '@fluent/langneg';
import { computed, effect, signal } from '@preact/signals';
import english from '../../locales/en/ui.ftl?raw';
import spanish from '../../locales/es/ui.ftl?raw';
import { remember, remembered } from './prefs';

export type Language = 'en' | 'es';

/** The languages to choose from, each in its own words. */
export const LANGUAGES: readonly { code: Language; name: string }[] = [
  { code: 'en', name: 'English' },
  { code: 'es', name: 'Español' },
];

const SOURCES: Record<Language, string> = { en: english, es: spanish };

/** The language people asked for before, or else the browser's first that we speak, or else English. */
export function chooseLanguage(asked: string | null, browser: readonly string[]): Language {
  const codes = LANGUAGES.map((language) => language.code);
  if (asked !== null && (codes as string[]).includes(asked)) return asked as Language;
  const [best] = negotiateLanguages(browser, codes, { defaultLocale: 'en', strategy: 'lookup' });
  return best as Language;
}

const chosen = signal<Language>(
  chooseLanguage(remembered('language'), typeof navigator === 'undefined' ? [] : navigator.languages),
);

/** The language spoken now. */
export const language = computed(() => chosen.value);

export function speak(code: Language): void {
  chosen.value = code;
  remember('language', code);
}

/** A bundle of one language's messages. Regional number forms ("es-MX") are left to the language's own. */
export function bundleOf(code: Language): FluentBundle {
  // Isolation marks would end up in every accessible name and page title; `isolated` puts them where they matter.
  const bundle = new FluentBundle(code, { useIsolating: false });
  const errors = bundle.addResource(new FluentResource(SOURCES[code]));
  if (errors.length > 0) throw errors[0];
  return bundle;
}

const bundle = computed(() => bundleOf(chosen.value));

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;

/** A name written from right to left must not turn the sentence around it (Unicode TR 9: FSI and PDI). */
function isolated(value: FluentVariable): FluentVariable {
  return typeof value === 'string' && RIGHT_TO_LEFT.test(value) ? `\u2068${value}\u2069` : value;
}

/** The text of a message in the language spoken now; a component that calls it renders again when that changes. */
export function t(id: string, args?: Record<string, FluentVariable>): string {
  const pattern = bundle.value.getMessage(id)?.value;
  if (!pattern) return id;
  const values =
    args && Object.fromEntries(Object.entries(args).map(([name, value]) => [name, isolated(value)]));
  return bundle.value.formatPattern(pattern, values, []);
}

/** Keeps `<html lang dir>` right, for screen readers, hyphenation and fonts. */
export function keepDocumentLanguage(root: HTMLElement): () => void {
  return effect(() => {
    root.lang = chosen.value;
    root.dir = 'ltr'; // of both languages
  });
}
