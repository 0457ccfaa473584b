import { describe, expect, test } from 'vitest';
import { cameraLayers, encodingsOf, layersOf, toldHeightPx } from './layers';

const camera = (...active: boolean[]) => active.map((on, layer) => ({ rid: 'qhf'[layer] ?? '', active: on }));
const withLayers = (encodings: RTCRtpEncodingParameters[], layers: readonly boolean[]) =>
  encodingsOf(encodings, [], { layers });
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
  expect(encodingsOf(camera(true, true, true), [], layersOf([], 'camera'))).toBeNull();
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
    encodingsOf(encodings, made, { layers: [], ...(bps_max && { bps_max }) })?.map((one) => one.maxBitrate);

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
    expect(encodingsOf(screen, screen, { layers: [true], bps_max: [600_000] })).toEqual([
      { active: true, maxBitrate: 600_000 },
    ]);
    const bare = [{ active: true }];
    expect(
      encodingsOf(bare, bare, { layers: [true], bps_max: [600_000] }),
      'made without a limit',
    ).toBeNull();
  });
});

/** How tall the server takes each of three layers to be. */
const reckoned = (told: number) => [told / 4, told / 2, told];

test.each([
  ['a common camera', { width: 1280, height: 720 }, [180, 360, 720], [120, 350, 1200]],
  ['held upright', { width: 720, height: 1280 }, [320, 640, 1280], [120, 350, 1200]],
  ['an old camera', { width: 640, height: 480 }, [240, 480], [120, 800]],
  ['a small one', { width: 640, height: 360 }, [180, 360], [120, 800]],
  ['a tiny one', { width: 320, height: 180 }, [180], [350]],
])(
  'of %s the layers that are sent reach the full height, and take what it can use',
  (_, size, heights, kbps) => {
    const sent = cameraLayers(size).filter((layer) => layer.active);
    expect(sent.map((layer) => layer.rid)).toEqual(['q', 'h', 'f'].slice(0, heights.length));
    expect(sent.map((layer) => size.height / (layer.scaleResolutionDownBy ?? 0))).toEqual(heights);
    expect(sent.map((layer) => (layer.maxBitrate ?? 0) / 1000)).toEqual(kbps);
    expect(reckoned(toldHeightPx(size)).slice(0, heights.length)).toEqual(heights);
  },
);

test('of a picture of unknown size nothing is assumed', () => {
  expect(cameraLayers({}).map((layer) => layer.scaleResolutionDownBy)).toEqual([4, 2, 1]);
  expect(toldHeightPx({})).toBe(0);
});

test('another camera changes the layers, and what is wanted of them holds on', () => {
  const [large, small] = [
    cameraLayers({ width: 1280, height: 720 }),
    cameraLayers({ width: 640, height: 360 }),
  ];
  const wanted = { layers: [true, true, true], bps_max: [0, 500_000, 0] };
  const before = large.map((layer) => ({ ...layer, priority: 'low' as const }));
  expect(encodingsOf(before, large, { layers: [] })).toBeNull();
  const after = encodingsOf(before, small, wanted);
  expect(
    after?.map((one) => [one.rid, one.active, one.scaleResolutionDownBy, one.maxBitrate, one.priority]),
  ).toEqual([
    ['q', true, 2, 120_000, 'low'],
    ['h', true, 1, 500_000, 'low'],
    ['f', false, 1, 1_200_000, 'low'],
  ]);
  expect(encodingsOf(after ?? [], large, { layers: [] })).toEqual(before);
  expect(active(encodingsOf(before, small, { layers: [true, false, true] }))).toEqual([true, false, false]);
});
