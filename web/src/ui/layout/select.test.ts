import { describe, expect, it } from 'vitest';
import type { Person } from '../../core/model';
import { NOTHING_SELECTED, orderShares, pageCount, pageOf, selectPeople, selectStage } from './select';

function people(count: number, change: Record<number, Partial<Person>> = {}): Person[] {
  return Array.from({ length: count }, (_, index) => ({
    id: index + 1,
    name: `P${index + 1}`,
    isSelf: index === 0,
    present: true,
    microphone: true,
    camera: true,
    screen: false,
    speaking: false,
    line: 'good' as const,
    ...change[index + 1],
  }));
}

describe('who is in view', () => {
  it('is everyone in order of arrival when everyone fits, whoever speaks', () => {
    const selection = selectPeople(NOTHING_SELECTED, people(4, { 3: { speaking: true } }), 4);
    expect(selection.places).toEqual([1, 2, 3, 4]);
  });

  it('takes someone who starts to speak in, in the place of the last who never spoke, and moves nobody else', () => {
    const before = selectPeople(NOTHING_SELECTED, people(6), 3);
    expect(before.places).toEqual([1, 2, 3]);
    const after = selectPeople(before, people(6, { 6: { speaking: true } }), 3);
    expect(after.places).toEqual([1, 2, 6]);
  });

  it('lets the one who has been quiet for longest give way', () => {
    let selection = selectPeople(NOTHING_SELECTED, people(5), 3);
    for (const id of [3, 2, 1])
      selection = selectPeople(selection, people(5, { [id]: { speaking: true } }), 3);
    selection = selectPeople(selection, people(5, { 4: { speaking: true } }), 3);
    expect(selection.places).toEqual([1, 2, 4]);
  });

  it('keeps everyone where they are once they fall silent', () => {
    const spoke = selectPeople(NOTHING_SELECTED, people(6, { 6: { speaking: true } }), 3);
    expect(selectPeople(spoke, people(6), 3).places).toEqual(spoke.places);
  });

  it('fills the place of someone who left', () => {
    const before = selectPeople(NOTHING_SELECTED, people(5), 3);
    const left = people(5).filter((person) => person.id !== 2);
    expect(selectPeople(before, left, 3).places).toEqual([1, 3, 4]);
  });

  it('never shows more than there are places, even when all speak', () => {
    const everyone = people(9, Object.fromEntries([4, 5, 6, 7, 8, 9].map((id) => [id, { speaking: true }])));
    const { places } = selectPeople(NOTHING_SELECTED, everyone, 4);
    expect(places).toHaveLength(4);
    expect(new Set(places).size).toBe(4);
  });
});

describe('pages', () => {
  it('show everyone once', () => {
    const everyone = people(10, { 9: { speaking: true } });
    const selection = selectPeople(NOTHING_SELECTED, everyone, 4);
    const pages = pageCount(everyone.length, 4);
    expect(pages).toBe(3);
    const seen = Array.from({ length: pages }, (_, page) => pageOf(everyone, selection, 4, page)).flat();
    expect(seen.map((person) => person.id).sort((a, b) => a - b)).toEqual(
      everyone.map((person) => person.id),
    );
  });
});

describe('the stage', () => {
  it('is empty while nobody shares and nothing is pinned', () => {
    expect(selectStage(people(3), null, [])).toBeNull();
  });

  it("holds the screen that was shared last, never one's own", () => {
    const everyone = people(4, { 1: { screen: true }, 2: { screen: true }, 3: { screen: true } });
    const shares = orderShares(orderShares([], people(4, { 3: { screen: true } })), everyone);
    expect(shares).toEqual([3, 2]);
    expect(selectStage(everyone, null, shares)).toEqual({ person: 2, kind: 'screen' });
  });

  it('prefers what the person pinned, until it is gone', () => {
    const everyone = people(3, { 2: { screen: true } });
    const face = { person: 3, kind: 'camera' } as const;
    expect(selectStage(everyone, face, [2])).toEqual(face);
    expect(selectStage(everyone.slice(0, 2), face, [2])).toEqual({ person: 2, kind: 'screen' });
    expect(selectStage(people(3), { person: 2, kind: 'screen' }, [])).toBeNull();
  });
});
