// Which layers of a sender are on, and how tall they are. Pure.
//
// A layer that nobody receives or waits for costs the publisher's uplink and battery for nothing: the server says
// which are wanted (`wanted`), and the others are paused with `active: false`. Seen working layer by layer, off and
// on again, in Firefox ESR 153 and in Chromium 156.
//
// Chromium sends fewer layers of a small picture, and leaves out the last ones, which are the tallest: of 640x360 in
// three layers it would send 90 and 180 pixels and never 360. So of a small picture the first layers are made taller,
// in every browser, until those that are sent reach its full height; the layers that are left over repeat it.

import type { UpWanted } from './protocol';

/** Pixels from which Chromium sends three layers and two (`WebRTC-LegacySimulcastLayerLimit`); seen in Chromium 156. */
const THREE_LAYERS_PIXELS = 960 * 540;
const TWO_LAYERS_PIXELS = 480 * 270;

interface Size {
  width?: number;
  height?: number;
}

/** How many times the tallest of three layers stands for the full height: 0 for a large picture or an unknown one. */
function repeats({ width = 0, height = 0 }: Size): number {
  const pixels = width * height;
  if (pixels === 0 || pixels >= THREE_LAYERS_PIXELS) return 0;
  return pixels >= TWO_LAYERS_PIXELS ? 1 : 2;
}

/** By how much each layer is scaled down, smallest first; each twice as tall as the one before up to full height. */
export function scalesOf(layers: number, size: Size): number[] {
  return Array.from({ length: layers }, (_, layer) => Math.max(1, 2 ** (layers - 1 - layer - repeats(size))));
}

/**
 * What is told as the tallest layer's height, from which the server reckons each smaller one as half of the next: a
 * layer that repeats the full height counts as twice as tall, so that the ones below are known for what they are.
 */
export function toldHeightPx(size: Size): number {
  return Math.round(size.height ?? 0) * 2 ** repeats(size);
}

/** The encodings scaled for a picture of this size; null when nothing would change. */
export function withScales(
  encodings: readonly RTCRtpEncodingParameters[],
  size: Size,
): RTCRtpEncodingParameters[] | null {
  const scales = scalesOf(encodings.length, size);
  const next = encodings.map((encoding, layer) => ({
    ...encoding,
    scaleResolutionDownBy: scales[layer] ?? 1,
  }));
  const is = (encoding: RTCRtpEncodingParameters | undefined) => encoding?.scaleResolutionDownBy ?? 1;
  return next.some((one, layer) => is(one) !== is(encodings[layer])) ? next : null;
}

/** The encodings with each layer on or off as wanted; null when nothing would change. */
export function withLayers(
  encodings: readonly RTCRtpEncodingParameters[],
  wanted: readonly boolean[],
): RTCRtpEncodingParameters[] | null {
  // A layer that the server says nothing of stays on.
  const next = encodings.map((encoding, layer) => ({ ...encoding, active: wanted[layer] ?? true }));
  return next.some(({ active }, layer) => active !== (encodings[layer]?.active ?? true)) ? next : null;
}

/** What was said last of the layers of one up; all of them are on before anything was said. */
export function layersOf(ups: readonly UpWanted[], kind: UpWanted['kind']): readonly boolean[] {
  return ups.find((up) => up.kind === kind)?.layers ?? [];
}
