import { expect, test } from 'vitest';
import { SAMPLE_MS, SILENT_MS, Silence } from './silence';

/** A counter that is read every quarter of a second; `heard` says whether it has grown. */
class Counter {
  readonly silence = new Silence();
  bytes = 0;
  now = 0;

  read(heard: boolean, afterMs = SAMPLE_MS): number {
    this.now += afterMs;
    if (heard) this.bytes += 60;
    this.silence.handleSample(this.bytes, this.now);
    return this.silence.silentMs;
  }

  beating(): this {
    for (let i = 0; i < 5; i += 1) this.read(true);
    return this;
  }
}

test('two seconds without a byte are a silence, and the first byte ends it', () => {
  const counter = new Counter().beating();
  const readings = Array.from({ length: 8 }, () => counter.read(false));
  expect(readings).toEqual([250, 500, 750, 1_000, 1_250, 1_500, 1_750, SILENT_MS]);
  expect(counter.read(true)).toBe(0);
});

test('a server that never kept the beat proves nothing by being silent', () => {
  const counter = new Counter();
  counter.read(true);
  for (let i = 0; i < 60; i += 1) expect(counter.read(i % 6 === 0)).toBe(0);
});

test('a beat that is heard in every other sample is known', () => {
  const counter = new Counter();
  for (let i = 0; i < 6; i += 1) counter.read(i % 2 === 0);
  expect(counter.read(false)).toBe(500);
});

test('a beat that frames keep, one a second, is known', () => {
  const counter = new Counter();
  for (let i = 0; i < 12; i += 1) counter.read(i % 4 === 0);
  expect(counter.read(true)).toBe(0);
  expect(counter.read(false)).toBe(250);
});

test('another transport has a beat of its own to be heard first', () => {
  const counter = new Counter().beating();
  counter.silence.reset();
  for (let i = 0; i < 20; i += 1) expect(counter.read(false)).toBe(0);
});

test('a page whose timers are stretched to a second notices as soon', () => {
  const counter = new Counter().beating();
  expect([counter.read(false, 1_000), counter.read(false, 1_000)]).toEqual([1_000, SILENT_MS]);
});

test('the time that a computer slept counts for no more than one sample', () => {
  const counter = new Counter().beating();
  expect(counter.read(false, 3_600_000)).toBe(1_000);
});

test('a counter that begins anew after an ICE restart is a sign of life', () => {
  const counter = new Counter().beating();
  counter.read(false);
  counter.bytes = 1;
  expect(counter.read(false)).toBe(0);
});

test('a clock that is set back does not make a silence shorter or longer', () => {
  const counter = new Counter().beating();
  counter.read(false);
  expect(counter.read(false, -60_000)).toBe(250);
  expect(counter.read(false)).toBe(500);
});
