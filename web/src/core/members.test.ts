import { describe, expect, test } from 'vitest';
import { EMPTY_ROSTER, endReturn, handleMessage, handleReturn, people, returnedAs } from './members';
import { SELF, member, welcome } from './testing/call';

const NOTHING = { microphone: false, camera: false, screen: false };
const inside = handleMessage(EMPTY_ROSTER, welcome([member(2, 'Ana', 'microphone')]));

test('a welcome replaces everything that was known', () => {
  const again = handleMessage(inside, welcome([member(3, 'Bo')]));
  expect([...again.members.keys()]).toEqual([SELF, 3]);
});

test('people come in order of arrival, change and go', () => {
  let roster = handleMessage(inside, { type: 'joined', member: member(3, 'Bo', 'camera') });
  roster = handleMessage(roster, { type: 'changed', member: { ...member(2, 'Ana María'), present: false } });
  expect(people(roster, NOTHING).map((person) => [person.id, person.name, person.present])).toEqual([
    [SELF, 'Me', true],
    [2, 'Ana María', false],
    [3, 'Bo', true],
  ]);
  expect(handleMessage(roster, { type: 'left', member: 2 }).members.has(2)).toBe(false);
  expect(handleMessage(roster, { type: 'left', member: 99 })).toBe(roster);
});

test('an up counts only while it is active', () => {
  const paused = member(2, 'Ana');
  paused.ups = [
    { kind: 'camera', active: false, height_px: 720 },
    { kind: 'microphone', active: true, height_px: 0 },
  ];
  const ana = people(handleMessage(inside, { type: 'changed', member: paused }), NOTHING)[1];
  expect(ana).toMatchObject({ camera: false, microphone: true, screen: false });
});

test('speakers are those of the newest message, and nobody speaks while muted', () => {
  let roster = handleMessage(inside, { type: 'speakers', speakers: [{ member: 2, level_dbov: 20 }] });
  expect(people(roster, NOTHING)[1]?.speaking).toBe(true);
  roster = handleMessage(roster, { type: 'changed', member: member(2, 'Ana') });
  expect(people(roster, NOTHING)[1]?.speaking).toBe(false);
  roster = handleMessage(inside, { type: 'speakers', speakers: [] });
  expect(people(roster, NOTHING)[1]?.speaking).toBe(false);
});

test('of oneself one knows better than the server', () => {
  expect(people(inside, { ...NOTHING, camera: true })[0]).toMatchObject({
    isSelf: true,
    camera: true,
    present: true,
  });
});

test('lines change for those who are named, and for them alone', () => {
  const both = handleMessage(inside, { type: 'joined', member: member(3, 'Bo') });
  const roster = handleMessage(both, {
    type: 'lines',
    lines: [
      { member: 3, line: 'weak' },
      { member: 99, line: 'lost' },
    ],
  });
  expect(people(roster, NOTHING).map(({ id, line }) => [id, line])).toEqual([
    [SELF, 'good'],
    [2, 'good'],
    [3, 'weak'],
  ]);
});

describe('after the server was away', () => {
  const before = handleMessage(inside, { type: 'joined', member: member(3, 'Bo') });
  const shown = (roster: typeof before) =>
    people(roster, NOTHING).map(({ name, present }) => `${name}${present ? '' : ' (away)'}`);
  const returned = (members: ReturnType<typeof member>[], changes = {}) =>
    handleReturn(before, handleMessage(before, welcome(members, changes)));
  const away = (id: number, name: string) => ({ ...member(id, name), present: false });

  test('those who are still on the way back are shown as they were', () => {
    const roster = returned([away(2, 'Ana')]);
    expect(shown(roster)).toEqual(['Me', 'Ana', 'Bo']);
    expect([...roster.returning.keys()].sort()).toEqual([2, 3]);
  });

  test('those who come are not news, under the same number or another', () => {
    let roster = returned([away(2, 'Ana')]);
    const ana = member(2, 'Ana');
    expect(returnedAs(roster, ana)).toBe(2);
    roster = handleMessage(roster, { type: 'changed', member: ana });
    const bo = member(77, 'Bo');
    expect(returnedAs(roster, bo)).toBe(3);
    roster = handleMessage(roster, { type: 'joined', member: bo });
    expect(shown(roster)).toEqual(['Me', 'Ana', 'Bo']);
    expect(roster.returning.size).toBe(0);
    expect(returnedAs(roster, member(78, 'Bo')), 'another of that name').toBeNull();
  });

  test('a word that someone is still away does not count as coming', () => {
    const roster = handleMessage(returned([away(2, 'Ana')]), { type: 'changed', member: away(2, 'Ana') });
    expect(roster.returning.has(2)).toBe(true);
  });

  test('those who came before us under another number are not shown twice', () => {
    expect(shown(returned([member(77, 'Ana'), member(78, 'Bo')]))).toEqual(['Me', 'Ana', 'Bo']);
  });

  test('oneself is never waited for, whatever the new number', () => {
    const roster = handleReturn(before, handleMessage(before, welcome([], { member: 50, members: [] })));
    expect([...roster.returning.keys()].sort()).toEqual([2, 3]);
  });

  test('those who were away before are away, not on the way', () => {
    const gone = handleMessage(before, { type: 'changed', member: away(2, 'Ana') });
    const roster = handleReturn(gone, handleMessage(gone, welcome([away(2, 'Ana'), member(3, 'Bo')])));
    expect(shown(roster)).toEqual(['Me', 'Ana (away)', 'Bo']);
  });

  test('who did not come is away or gone in the end', () => {
    const { roster, gone } = endReturn(returned([away(2, 'Ana')]));
    expect(gone.map(({ name }) => name)).toEqual(['Bo']);
    expect(shown(roster)).toEqual(['Me', 'Ana (away)']);
  });

  test('a second loss in the middle of it goes on waiting for the same people', () => {
    const once = returned([away(2, 'Ana')]);
    const twice = handleReturn(once, handleMessage(once, welcome([away(2, 'Ana')])));
    expect(shown(twice)).toEqual(['Me', 'Ana', 'Bo']);
  });

  test('who leaves on purpose is not waited for', () => {
    expect(shown(handleMessage(returned([]), { type: 'left', member: 3 }))).toEqual(['Me', 'Ana']);
  });
});
