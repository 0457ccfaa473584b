import { FluentResource } from '@fluent/bundle';
import { describe, expect, it } from 'vitest';
import { bundleOf, chooseLanguage, LANGUAGES, speak, t } from './l10n';

const FILES = import.meta.glob<string>('../../locales/*/ui.ftl', {
  query: '?raw',
  import: 'default',
  eager: true,
});
const CODE = import.meta.glob<string>(['./**/*.{ts,tsx}', '!./**/*.test.ts'], {
  query: '?raw',
  import: 'default',
  eager: true,
});

const sourceOf = (code: string): string => FILES[`../../locales/${code}/ui.ftl`] ?? '';

/** Every id that stands in a message file, in order, repetitions included. */
function idsOf(code: string): string[] {
  return [...sourceOf(code).matchAll(/^([a-z][a-z0-9-]*) *=/gm)].map((match) => match[1] as string);
}

/** The view's own code, without its tests. */
const code = (): string => Object.values(CODE).join('\n');

/** The names that a message's text takes in. */
function variablesOf(code: string, id: string): string[] {
  const text =
    sourceOf(code)
      .split(/^(?=[a-z])/m)
      .find((entry) => new RegExp(`^${id} *=`).test(entry)) ?? '';
  return [...new Set([...text.matchAll(/\$([a-z]+)/g)].map((match) => match[1] as string))].sort();
}

describe('the message files', () => {
  it('hold the same messages in every language, each once', () => {
    const english = idsOf('en');
    expect(new Set(english).size).toBe(english.length);
    for (const { code } of LANGUAGES) expect(idsOf(code)).toEqual(english);
  });

  it('parse whole: what Fluent cannot read it would leave out silently', () => {
    for (const { code } of LANGUAGES) {
      expect(new FluentResource(sourceOf(code)).body.map((message) => message.id)).toEqual(idsOf(code));
    }
  });

  it('say something in every message, with the same names taken in', () => {
    for (const { code } of LANGUAGES) {
      const bundle = bundleOf(code);
      for (const id of idsOf(code)) {
        const pattern = bundle.getMessage(id)?.value;
        expect(pattern, id).toBeTruthy();
        const values = Object.fromEntries(variablesOf(code, id).map((name) => [name, 3]));
        const errors: Error[] = [];
        expect(bundle.formatPattern(pattern!, values, errors).trim(), id).not.toBe('');
        expect(errors, id).toEqual([]);
        expect(variablesOf(code, id), id).toEqual(variablesOf('en', id));
      }
    }
  });
});

describe('the code', () => {
  it('asks for no message that does not exist', () => {
    const known = new Set(idsOf('en'));
    const asked = [...code().matchAll(/\bt\(\s*'([^']+)'/g)].map((match) => match[1] as string);
    expect(asked.length).toBeGreaterThan(50);
    expect(asked.filter((id) => !known.has(id))).toEqual([]);
    const looksLikeOne = /'((?:problem|notice|microphone|camera)-[a-z-]+)'/g;
    const named = [...code().matchAll(looksLikeOne)].map((match) => match[1] as string);
    expect(named.filter((id) => !known.has(id) && !known.has(`notice-${id}`))).toEqual([]);
  });

  it('never puts an id together, so that this test sees them all', () => {
    expect(code()).not.toMatch(/\bt\(\s*`/);
  });

  it('uses every message', () => {
    const text = code();
    expect(idsOf('en').filter((id) => !text.includes(`'${id}'`))).toEqual([]);
  });
});

describe('the language', () => {
  it('is what was asked for before, else the first the browser has that we speak, else English', () => {
    expect(chooseLanguage('es', ['en-US'])).toBe('es');
    expect(chooseLanguage(null, ['es-MX', 'en'])).toBe('es');
    expect(chooseLanguage(null, ['qu-PE', 'es-PE', 'en'])).toBe('es');
    expect(chooseLanguage(null, ['fr-FR'])).toBe('en');
    expect(chooseLanguage('xx', [])).toBe('en');
  });

  it('follows its plural rules', () => {
    speak('en');
    expect(t('participants-count', { count: 1 })).toBe('1 person is here');
    expect(t('participants-count', { count: 3 })).toBe('3 people are here');
    speak('es');
    expect(t('participants-count', { count: 1 })).toBe('Hay 1 persona aquí');
    expect(t('participants-count', { count: 3 })).toBe('Hay 3 personas aquí');
    speak('en');
  });

  it('keeps a name that is written from right to left from turning the sentence, and leaves others as they are', () => {
    speak('en');
    expect(t('notice-someone-joined', { name: 'Ana' })).toBe('Ana joined');
    expect(t('notice-someone-joined', { name: 'سارة' })).toBe('\u2068سارة\u2069 joined');
  });
});
