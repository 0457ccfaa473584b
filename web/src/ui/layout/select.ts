// Who is shown when not everyone fits: pure, no DOM.
//
// Places are sticky. People stand in order of arrival; when there are more than places, someone who starts to speak
// takes the place of the one in view who has been quiet for longest, and nobody else moves.

import type { Person, TileId } from '../../core/model';

/** What the selection carries from one call to the next. */
export interface Selection {
  /** Person ids in view on the first page, in order of their places. */
  places: readonly number[];
  /** Person ids by when they spoke last, latest first. */
  spoke: readonly number[];
}

export const NOTHING_SELECTED: Selection = { places: [], spoke: [] };

/** People on the first page of `capacity` places, given who was there before. */
export function selectPeople(before: Selection, people: readonly Person[], capacity: number): Selection {
  const here = new Set(people.map((person) => person.id));
  const speaking = people.filter((person) => person.speaking).map((person) => person.id);
  const spoke = [...speaking, ...before.spoke.filter((id) => here.has(id) && !speaking.includes(id))];

  if (people.length <= capacity) return { places: people.map((person) => person.id), spoke };

  const places = before.places.filter((id) => here.has(id)).slice(0, capacity);
  for (const person of people) {
    if (places.length >= capacity) break;
    if (!places.includes(person.id)) places.push(person.id);
  }
  const quietFor = (id: number): number => {
    const rank = spoke.indexOf(id);
    return rank < 0 ? Number.MAX_SAFE_INTEGER : rank;
  };
  for (const id of speaking) {
    if (places.includes(id)) continue;
    let quietest = -1;
    for (const [index, other] of places.entries()) {
      if (speaking.includes(other)) continue;
      // Among equals the later place gives way: the first places are the calmest.
      if (quietest < 0 || quietFor(other) >= quietFor(places[quietest] as number)) quietest = index;
    }
    if (quietest >= 0) places[quietest] = id;
  }
  return { places, spoke };
}

/** How many pages `count` tiles make. */
export function pageCount(count: number, capacity: number): number {
  return Math.max(1, Math.ceil(count / Math.max(1, capacity)));
}

/** The people of a page: the selected ones first, then the others in order of arrival. */
export function pageOf(
  people: readonly Person[],
  selection: Selection,
  capacity: number,
  page: number,
): Person[] {
  const byId = new Map(people.map((person) => [person.id, person]));
  const first = selection.places.flatMap((id) => byId.get(id) ?? []);
  const rest = people.filter((person) => !selection.places.includes(person.id));
  return [...first, ...rest].slice(page * capacity, (page + 1) * capacity);
}

/**
 * What is on the stage: what the person pinned, as long as it is there; else the screen that was shared last by
 * someone else; else nothing. One's own screen never is: it would show itself within itself.
 */
export function selectStage(
  people: readonly Person[],
  pinned: TileId | null,
  sharesInOrder: readonly number[],
): TileId | null {
  if (pinned) {
    const person = people.find((candidate) => candidate.id === pinned.person);
    if (person && (pinned.kind === 'camera' || (person.screen && !person.isSelf))) return pinned;
  }
  for (const id of [...sharesInOrder].reverse()) {
    const person = people.find((candidate) => candidate.id === id);
    if (person?.screen && !person.isSelf) return { person: id, kind: 'screen' };
  }
  return null;
}

/** Who shares a screen, in the order they began, given the order before. */
export function orderShares(before: readonly number[], people: readonly Person[]): number[] {
  const sharing = people.filter((person) => person.screen && !person.isSelf).map((person) => person.id);
  return [...before.filter((id) => sharing.includes(id)), ...sharing.filter((id) => !before.includes(id))];
}

/** A tile's name among tiles: also its key in `Meeting.videos`. */
export function tileKey(tile: TileId): string {
  return `${tile.person}:${tile.kind}`;
}
