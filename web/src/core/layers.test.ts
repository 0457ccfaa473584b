import { expect, test } from 'vitest';
import { layersOf, withLayers } from './layers';

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
