import { describe, expect, test } from 'vitest';
import { layersOf, scalesOf, toldHeightPx, withScales, withWanted } from './layers';

const camera = (...active: boolean[]) => active.map((on, layer) => ({ rid: 'qhf'[layer] ?? '', active: on }));
const withLayers = (encodings: RTCRtpEncodingParameters[], layers: readonly boolean[]) =>
  withWanted(encodings, [], { layers });
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
  expect(withWanted(camera(true, true, true), [], layersOf([], 'camera'))).toBeNull();
});

test('everything else of an encoding is left as it is', () => {
  const [encoding] = withLayers([{ rid: 'f', active: true, maxBitrate: 5 }], [false]) ?? [];
  expect(encoding).toEqual({ rid: 'f', active: false, maxBitrate: 5 });
});

describe('a layer that lines do not carry as a whole', () => {
  const made = [120_000, 350_000, 1_200_000].map((maxBitrate, layer) => ({
    rid: 'qhf'[layer] ?? '',
    active: true,
    maxBitrate,
  }));
  const rates = (bps_max?: number[], encodings = made) =>
    withWanted(encodings, made, { layers: [], ...(bps_max && { bps_max }) })?.map((one) => one.maxBitrate);

  test('is sent with as much as they carry, and whole again when they do', () => {
    expect(rates([0, 0, 700_000])).toEqual([120_000, 350_000, 700_000]);
    const narrow = made.map((one, layer) => ({ ...one, maxBitrate: layer === 2 ? 700_000 : one.maxBitrate }));
    expect(rates([0, 0, 800_000], narrow)).toEqual([120_000, 350_000, 800_000]);
    expect(rates([0, 0, 0], narrow)).toEqual([120_000, 350_000, 1_200_000]);
    expect(rates([], narrow), 'nothing was said').toEqual([120_000, 350_000, 1_200_000]);
    expect(rates(undefined, narrow), 'by an earlier server').toEqual([120_000, 350_000, 1_200_000]);
  });

  test('is never sent with more than it was made for, nor with less than the one below', () => {
    expect(rates([0, 0, 5_000_000])).toBeUndefined();
    expect(rates([0, 1, 1])).toEqual([120_000, 120_000, 350_000]);
    expect(rates([1, 0, 0]), 'the smallest').toEqual([40_000, 350_000, 1_200_000]);
    expect(rates([NaN, -1, Infinity])).toBeUndefined();
  });

  test('may be the only one', () => {
    const screen = [{ active: true, maxBitrate: 2_500_000 }];
    expect(withWanted(screen, screen, { layers: [true], bps_max: [600_000] })).toEqual([
      { active: true, maxBitrate: 600_000 },
    ]);
    const bare = [{ active: true }];
    expect(withWanted(bare, bare, { layers: [true], bps_max: [600_000] }), 'made without a limit').toBeNull();
  });
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
