import { describe, expect, test } from 'vitest';
import type { TileId } from './model';
import { Slots, VIDEO_SLOTS_MAX, slotsFor, type Shown } from './slots';

const cameras = (...people: number[]): Shown[] =>
  people.map((person) => ({ tile: { person, kind: 'camera' }, heightPx: 180 }));
const everyone = () => true;
const only =
  (...people: number[]) =>
  (tile: TileId) =>
    people.includes(tile.person);

function slots(count: number): Slots {
  const made = new Slots();
  made.setMids(Array.from({ length: count }, (_, index) => String(index + 7)));
  return made;
}

const layout = (of: Slots) => of.wishes().map((wish) => wish.up?.peer ?? null);

describe('a tile keeps its slot', () => {
  test('while others come and go and the order changes', () => {
    const view = slots(4);
    view.show(cameras(1, 2, 3), everyone);
    expect(layout(view)).toEqual([1, 2, 3, null]);
    view.show(cameras(3, 1), everyone);
    expect(layout(view)).toEqual([1, null, 3, null]);
    view.show(cameras(4, 5, 3, 1), everyone);
    expect(layout(view)).toEqual([1, 4, 3, 5]);
  });

  test('for any sequence of layouts that fit', () => {
    const view = slots(8);
    let state = 12_345;
    const random = (below: number) => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return (state >>> 8) % below;
    };
    for (let step = 0; step < 500; step += 1) {
      const before = layout(view);
      const shown = Array.from({ length: 12 }, (_, person) => person + 1)
        .map((person) => [random(1_000), person] as const)
        .sort((a, b) => a[0] - b[0])
        .slice(0, random(9))
        .map(([, person]) => person);
      view.show(cameras(...shown), everyone);
      const after = layout(view);
      expect(after.filter((person) => person !== null).sort()).toEqual([...shown].sort());
      before.forEach((person, index) => {
        if (person !== null && shown.includes(person)) expect(after[index]).toBe(person);
      });
    }
  });

  test('when slots are added', () => {
    const view = slots(2);
    view.show(cameras(1, 2, 3), everyone);
    view.setMids(['7', '8', '9', '10']);
    view.show(cameras(3, 2, 1), everyone);
    expect(layout(view)).toEqual([1, 2, 3, null]);
  });
});

test('what is important comes first when slots are short', () => {
  const view = slots(2);
  view.show(cameras(9, 8, 7), everyone);
  expect(layout(view)).toEqual([9, 8]);
});

test('tiles that nothing is sent for only take what is left over, and ask for no growth', () => {
  const view = slots(2);
  expect(view.show(cameras(1, 2, 3), only(3))).toBe(4);
  expect(layout(view)).toEqual([3, 1]);
  expect(view.show(cameras(1, 2, 3), only(2, 3))).toBe(4);
  expect(layout(view)).toEqual([3, 2]);
});

test('slots grow in steps with the pictures shown, up to a bound', () => {
  expect([0, 4, 5, 11, 24, 25, 200].map(slotsFor)).toEqual([4, 4, 8, 12, 24, 24, VIDEO_SLOTS_MAX]);
});

test('a tile that is shown twice takes one slot, at the greater height', () => {
  const view = slots(2);
  view.show(
    [
      { tile: { person: 1, kind: 'camera' }, heightPx: 90 },
      { tile: { person: 1, kind: 'camera' }, heightPx: 719.6 },
    ],
    everyone,
  );
  expect(view.wishes()).toEqual([
    { mid: '7', up: { peer: 1, kind: 'camera' }, height_px: 720 },
    { mid: '8', up: null, height_px: 0 },
  ]);
});

describe('a picture is shown only once the server says that its slot carries it', () => {
  test('not before, and not while it carries someone else', () => {
    const view = slots(2);
    view.show(cameras(1, 2), everyone);
    expect(view.carried().size).toBe(0);
    view.handleSlots([{ mid: '7', up: { peer: 1, kind: 'camera' }, paused: false }]);
    expect([...view.carried()]).toEqual([['1:camera', 0]]);
    view.show(cameras(3, 2), everyone);
    expect(view.carried().size).toBe(0);
    view.handleSlots([{ mid: '7', up: { peer: 3, kind: 'camera' }, paused: false }]);
    expect([...view.carried()]).toEqual([['3:camera', 0]]);
  });

  test('a screen is not taken for a face', () => {
    const view = slots(1);
    view.show(cameras(1), everyone);
    view.handleSlots([{ mid: '7', up: { peer: 1, kind: 'screen' }, paused: false }]);
    expect(view.carried().size).toBe(0);
  });

  test('nothing when the slot is emptied or everything is forgotten', () => {
    const view = slots(1);
    view.show(cameras(1), everyone);
    view.handleSlots([{ mid: '7', up: { peer: 1, kind: 'camera' }, paused: false }]);
    view.handleSlots([{ mid: '7', up: null, paused: false }]);
    expect(view.carried().size).toBe(0);
    view.handleSlots([{ mid: '7', up: { peer: 1, kind: 'camera' }, paused: false }]);
    view.forget();
    expect(view.carried().size).toBe(0);
  });
});
