// Meeting names: made so that nobody guesses them and anybody can say them, and read from what people type.

import type { Environment } from './env';
import { WORDS_EN, WORDS_ES } from './words';

const WORDS = 4;
const DIGIT_GROUPS = 3;
/** The size of each word list; a power of two, so that a random byte picks fairly. */
export const WORD_CHOICES = 256;
export const DIGIT_CHOICES = 1000;

/** How many equally likely names there are, as a power of two: 61.9. */
export const NAME_ENTROPY_BITS = WORDS * Math.log2(WORD_CHOICES) + DIGIT_GROUPS * Math.log2(DIGIT_CHOICES);

/** Longest name that is taken from a link or a text box, in characters. */
const NAME_CHARS_MAX = 100;

type FillRandom = (values: Uint16Array<ArrayBuffer>) => void;

/**
 * A new meeting's name, such as `green-river-kind-table-042-917-386`, in the given language.
 * Whoever has it may join; it carries more than 60 bits of chance.
 */
export function newMeetingName(
  language: string,
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

/** The meeting that a path names; '' for the start page. */
export function meetingOfPath(path: string): string {
  const segment = path.split('/')[1] ?? '';
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/**
 * The path to go to for what was typed into "Meeting name or link"; null when it names no meeting here: empty,
 * too long, or a link to another site.
 */
export function pathOfInput(input: string, location: Pick<Environment['location'], 'host'>): string | null {
  const text = input.trim();
  const isLink = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) || text.startsWith(`${location.host}/`);
  let name: string;
  if (isLink) {
    let url: URL;
    try {
      url = new URL(text.includes('://') ? text : `https://${text}`);
    } catch {
      return null;
    }
    // Host and not origin: the same bridge answers http and https on the same port.
    if (!/^https?:$/.test(url.protocol) || url.host !== location.host) return null;
    name = meetingOfPath(url.pathname);
  } else {
    name = meetingOfPath(text.startsWith('/') ? text : `/${text.replaceAll('/', '-')}`);
    name = name.replace(/\s+/g, '-');
  }
  if (name === '' || name.length > NAME_CHARS_MAX || name === '.' || name === '..') return null;
  return `/${encodeURIComponent(name)}`;
}
