import { expect, test } from 'vitest';
import { layersOf, scalesOf, toldHeightPx, withLayers, withScales } from './layers';

const camera = (...active: boolean[]) => active.map((on, layer) => ({ rid: 'qhf'[layer] ?? '', active: on }));
const active = (encodings: RTCRtpEncodingParameters[] | null) => encodings?.map((one) => one.active) ?? null;

test('layers that nobody wants are off, and on again when somebody does', () => {
  expect(active(withLayers(camera(true, true, true), [true, false, false]))).toEqual([true, false, false]);
  expect(active(withLayers(camera(true, false, false), [true, true, true]))).toEqual([true, true, true]);
});

test('nothing is set when nothing changes', () => {
  expect(withLayers(camera(true, false, true), [true, false, true])).toBeNull();
  expect(withLayers([{ rid: 'q' }], [true]), 'a browser that does not say is one that sends').toBeNull();
  expect(withLayers([], [false])).toBeNull();
});

test('a layer of which nothing was said stays on', () => {
  expect(active(withLayers(camera(true, true, true), [false]))).toEqual([false, true, true]);
  expect(withLayers(camera(true, true, true), layersOf([], 'camera'))).toBeNull();
});

test('everything else of an encoding is left as it is', () => {
  const [encoding] = withLayers([{ rid: 'f', active: true, maxBitrate: 5 }], [false]) ?? [];
  expect(encoding).toEqual({ rid: 'f', active: false, maxBitrate: 5 });
});

/** How tall the server takes each of three layers to be. */
const reckoned = (told: number) => [told / 4, told / 2, told];

test.each([
  ['a common camera', { width: 1280, height: 720 }, [180, 360, 720], 3],
  ['held upright', { width: 720, height: 1280 }, [320, 640, 1280], 3],
  ['an old camera', { width: 640, height: 480 }, [240, 480, 480], 2],
  ['a small one', { width: 640, height: 360 }, [180, 360, 360], 2],
  ['a tiny one', { width: 320, height: 180 }, [180, 180, 180], 1],
])('of %s the layers that Chromium sends reach the full height', (_, size, heights, sent) => {
  expect(scalesOf(3, size).map((scale) => size.height / scale)).toEqual(heights);
  expect(heights[sent - 1]).toBe(size.height);
  expect(reckoned(toldHeightPx(size)).slice(0, sent)).toEqual(heights.slice(0, sent));
});

test('of a picture of unknown size nothing is assumed', () => {
  expect(scalesOf(3, {})).toEqual([4, 2, 1]);
  expect(toldHeightPx({})).toBe(0);
});

test('scales are set when they change and leave the rest as it is', () => {
  const encodings = [4, 2, 1].map((scaleResolutionDownBy, layer) => ({
    rid: 'qhf'[layer] ?? '',
    active: layer === 0,
    scaleResolutionDownBy,
  }));
  expect(withScales(encodings, { width: 1280, height: 720 })).toBeNull();
  const small = withScales(encodings, { width: 640, height: 360 });
  expect(small?.map((one) => one.scaleResolutionDownBy)).toEqual([2, 1, 1]);
  expect(small?.map(({ rid, active }) => [rid, active])).toEqual([
    ['q', true],
    ['h', false],
    ['f', false],
  ]);
  expect(withScales(small ?? [], { width: 1280, height: 720 })?.[0]?.scaleResolutionDownBy).toBe(4);
});
