import { describe, expect, it } from 'vitest';
import {
  bestColumns,
  gridCapacity,
  layoutGrid,
  layoutStage,
  stripCapacity,
  TILES_MAX,
  type Rect,
  type Size,
} from './grid';

const DESK: Size = { width: 1256, height: 660 };
const PHONE: Size = { width: 348, height: 600 };
const SIDEWAYS: Size = { width: 720, height: 250 };
const GAP = 8;

const BOXES: [string, Size][] = [
  ['a desk', DESK],
  ['a phone', PHONE],
  ['a phone on its side', SIDEWAYS],
  ['a sliver', { width: 90, height: 40 }],
  ['a wall', { width: 3840, height: 2160 }],
];

function overlap(a: Rect, b: Rect): boolean {
  const slack = 0.01;
  return (
    a.left + a.width > b.left + slack &&
    b.left + b.width > a.left + slack &&
    a.top + a.height > b.top + slack &&
    b.top + b.height > a.top + slack
  );
}

function expectInside(rects: readonly Rect[], box: Size): void {
  for (const { left, top, width, height } of rects) {
    expect(width).toBeGreaterThan(0);
    expect(height).toBeGreaterThan(0);
    expect(left).toBeGreaterThanOrEqual(-0.01);
    expect(top).toBeGreaterThanOrEqual(-0.01);
    expect(left + width).toBeLessThanOrEqual(box.width + 0.01);
    expect(top + height).toBeLessThanOrEqual(box.height + 0.01);
  }
  for (const [index, a] of rects.entries())
    for (const b of rects.slice(index + 1)) expect(overlap(a, b)).toBe(false);
}

describe.each(BOXES)('in the size of %s', (_, box) => {
  it('keeps every tile inside and apart, however many', () => {
    for (let count = 1; count <= gridCapacity(box, GAP); count++) {
      const rects = layoutGrid(count, box, GAP);
      expect(rects).toHaveLength(count);
      expectInside(rects, box);
    }
  });

  it('keeps the stage and the strip inside and apart', () => {
    for (let others = 0; others <= 20; others++) {
      const { stage, tiles } = layoutStage(others, box, GAP);
      expect(tiles).toHaveLength(Math.min(others, stripCapacity(box, GAP)));
      expectInside([...(stage ? [stage] : []), ...tiles], box);
    }
  });

  it('gives the stage more than any face beside it', () => {
    const { stage, tiles } = layoutStage(3, box, GAP);
    const area = (rect: Size | null): number => (rect ? rect.width * rect.height : 0);
    for (const tile of tiles) expect(area(stage)).toBeGreaterThan(area(tile));
  });
});

it('puts two people side by side on a desk and one above the other on a phone', () => {
  expect(bestColumns(2, DESK, GAP)).toBe(2);
  expect(bestColumns(2, PHONE, GAP)).toBe(1);
});

it('never has more than two columns on a phone', () => {
  for (let count = 1; count <= 12; count++) expect(bestColumns(count, PHONE, GAP)).toBeLessThanOrEqual(2);
  expect(bestColumns(6, PHONE, GAP)).toBe(2);
});

it('shows twelve at once on a desk, and at most sixteen on a wall', () => {
  expect(gridCapacity(DESK, GAP)).toBeGreaterThanOrEqual(12);
  expect(gridCapacity({ width: 3840, height: 2160 }, GAP)).toBe(TILES_MAX);
});

it('centres a short last row', () => {
  const rects = layoutGrid(5, DESK, GAP);
  const last = rects.slice(3);
  const left = last[0]?.left ?? 0;
  const right = DESK.width - ((last[1]?.left ?? 0) + (last[1]?.width ?? 0));
  expect(left).toBeGreaterThan(1);
  expect(left).toBeCloseTo(right);
});

it('lays nothing out where there is no room or nobody', () => {
  expect(layoutGrid(0, DESK, GAP)).toEqual([]);
  expect(layoutGrid(3, { width: 0, height: 0 }, GAP)).toEqual([]);
  expect(layoutStage(3, { width: 0, height: 0 }, GAP)).toEqual({ stage: null, tiles: [] });
});

it('puts the strip beside the stage where there is width, below it where there is height', () => {
  const wide = layoutStage(2, DESK, GAP);
  expect(wide.tiles[0]?.left).toBeGreaterThan(wide.stage?.width ?? Infinity);
  const tall = layoutStage(2, PHONE, GAP);
  expect(tall.tiles[0]?.top).toBeGreaterThan(tall.stage?.height ?? Infinity);
});
