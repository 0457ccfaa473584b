// Meeting names: made so that nobody guesses them and anybody can say them.

import { WORDS_EN, WORDS_ES } from './words';

const WORDS = 4;
const DIGIT_GROUPS = 3;
/** The size of each word list; a power of two, so that a random byte picks fairly. */
export const WORD_CHOICES = 256;
export const DIGIT_CHOICES = 1000;

/** How many equally likely names there are, as a power of two: 61.9. */
export const NAME_ENTROPY_BITS = WORDS * Math.log2(WORD_CHOICES) + DIGIT_GROUPS * Math.log2(DIGIT_CHOICES);

type FillRandom = (values: Uint16Array<ArrayBuffer>) => void;

/**
 * A new meeting's name, such as `green-river-kind-table-042-917-386`, in the given language.
 * Whoever has it may join; it carries more than 60 bits of chance.
 */
export function newMeetingName(
  language = 'en',
  fillRandom: FillRandom = (values) => void crypto.getRandomValues(values),
): string {
  const words = language.startsWith('es') ? WORDS_ES : WORDS_EN;
  const draw = (choices: number) => drawBelow(choices, fillRandom);
  const parts: string[] = [];
  for (let i = 0; i < WORDS; i += 1) parts.push(words[draw(WORD_CHOICES)] ?? '');
  for (let i = 0; i < DIGIT_GROUPS; i += 1) parts.push(String(draw(DIGIT_CHOICES)).padStart(3, '0'));
  return parts.join('-');
}

/** Fair: what would make some choices likelier than others is drawn again. */
function drawBelow(choices: number, fillRandom: FillRandom): number {
  const fair = 65_536 - (65_536 % choices);
  const value = new Uint16Array(1);
  do fillRandom(value);
  while ((value[0] ?? 0) >= fair);
  return (value[0] ?? 0) % choices;
}

/** The server's bound, in Unicode code points. */
const NAME_CHARS_MAX = 100;
/** What other paths of the server begin with. */
const RESERVED = ['api', 'assets'];

/** Whether the server has a meeting of this name, which is in its spelling. */
export function isMeetingName(name: string): boolean {
  return (
    [...name].length <= NAME_CHARS_MAX &&
    /^[\p{L}\p{N}_-]+$/u.test(name) &&
    /[\p{L}\p{N}]/u.test(name) &&
    !RESERVED.includes(name)
  );
}

/** The meeting that a path names, in the server's spelling; '' for the start page. */
export function meetingOfPath(path: string): string {
  const segment = path.split('/')[1] ?? '';
  let name = segment;
  try {
    name = decodeURIComponent(segment);
  } catch {
    // No name that the server accepts; it says so.
  }
  return name.trim().split(/\s+/).join('-').toLowerCase();
}
