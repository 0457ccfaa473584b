// How a person is called on screen: pure apart from the language spoken.

import type { Person, TileId } from '../core/model';
import { t } from './l10n';

/** Faces without a picture get one of this many colours, by person. */
export const HUES = 8;

export function hueOf(person: Person): number {
  return Math.abs(person.id) % HUES;
}

/** The name, or the word for people who gave none. */
export function nameOf(person: Person): string {
  return person.name.trim() === '' ? t('guest') : person.name;
}

/** The name, saying so when it is oneself. */
export function labelOf(person: Person): string {
  return person.isSelf ? t('name-you', { name: nameOf(person) }) : nameOf(person);
}

/** Whether nothing comes from someone: then their picture stands still, and says so. */
export function isAway(person: Person): boolean {
  return !person.present || (person.line === 'lost' && !person.isSelf);
}

export function tileLabel(person: Person, kind: TileId['kind']): string {
  return kind === 'screen' ? t('tile-screen', { name: nameOf(person) }) : labelOf(person);
}

/** One or two letters for a face without a picture; a whole letter with its accents, an emoji unbroken. */
export function initialsOf(name: string): string {
  const words = name.trim().split(/\s+/u).filter(Boolean);
  const chosen = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  return chosen
    .map((word) => firstCharacter(word ?? ''))
    .join('')
    .toLocaleUpperCase();
}

function firstCharacter(word: string): string {
  if (typeof Intl.Segmenter === 'function') {
    for (const { segment } of new Intl.Segmenter().segment(word)) return segment;
    return '';
  }
  return [...word][0] ?? '';
}
