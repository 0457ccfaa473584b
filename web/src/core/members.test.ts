import { expect, test } from 'vitest';
import { EMPTY_ROSTER, handleMessage, people } from './members';
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
