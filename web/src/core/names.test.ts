import { describe, expect, test } from 'vitest';
import {
  DIGIT_CHOICES,
  NAME_ENTROPY_BITS,
  WORD_CHOICES,
  isMeetingName,
  meetingOfPath,
  newMeetingName,
} from './names';
import { WORDS_EN, WORDS_ES } from './words';

describe('new meeting names', () => {
  test('carry more than 60 bits of chance', () => {
    expect(NAME_ENTROPY_BITS).toBeGreaterThan(60);
    expect(NAME_ENTROPY_BITS).toBeCloseTo(4 * Math.log2(WORD_CHOICES) + 3 * Math.log2(DIGIT_CHOICES));
  });

  test.each([
    ['en', WORDS_EN],
    ['es', WORDS_ES],
  ])('words in %s: as many different ones as are counted on, plain to type', (_, words) => {
    expect(new Set(words).size).toBe(WORD_CHOICES);
    for (const word of words) expect(word).toMatch(/^[a-z]{3,9}$/);
  });

  test('are made of what the entropy was counted for, in the language asked for', () => {
    for (const [language, words] of [
      ['en', WORDS_EN],
      ['es-MX', WORDS_ES],
    ] as const) {
      for (let i = 0; i < 200; i += 1) {
        const parts = newMeetingName(language).split('-');
        expect(parts).toHaveLength(7);
        for (const word of parts.slice(0, 4)) expect(words).toContain(word);
        for (const digits of parts.slice(4)) expect(digits).toMatch(/^\d{3}$/);
      }
    }
  });

  test('never repeat in practice', () => {
    const names = Array.from({ length: 2_000 }, () => newMeetingName('en'));
    expect(new Set(names).size).toBe(names.length);
  });

  test('are drawn fairly: what would favour small numbers is drawn again', () => {
    const draws = [0, 1, 2, 3, 65_535, 65_000, 7, 8, 9];
    const name = newMeetingName('en', (values) => {
      values[0] = draws.shift() ?? 0;
    });
    // 65,535 and 65,000 lie beyond the last whole thousand.
    expect(name.split('-').slice(4)).toEqual(['007', '008', '009']);
  });
});

describe('the meeting of a path', () => {
  test.each([
    ['/', ''],
    ['/Tea', 'tea'],
    ['/tea/else', 'tea'],
    ['/caf%C3%A9%20de%20Ana', 'café-de-ana'],
    ['/%', '%'],
  ])('%s is %j', (path, name) => expect(meetingOfPath(path)).toBe(name));
});

test('what the server takes for no name is none here either', () => {
  for (const name of ['tea', 'reunión-7', '3', 'a'.repeat(100)]) expect(isMeetingName(name), name).toBe(true);
  for (const name of ['', '-', '__', 'api', 'assets', 'a.png', 'a/b', '<b>', 'a b', 'a'.repeat(101)]) {
    expect(isMeetingName(name), name).toBe(false);
  }
});
