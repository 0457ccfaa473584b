// Which layers of a sender are on, and how tall they are. Pure.
//
// A layer that nobody receives or waits for costs the publisher's uplink and battery for nothing: the server says
// which are wanted (`wanted`), and the others are paused with `active: false`. Seen working layer by layer, off and
// on again, in Firefox ESR 153 and in Chromium 156.
//
// Chromium sends fewer layers of a small picture, and leaves out the last ones, which are the tallest: of 640x360 in
// three layers it would send 90 and 180 pixels and never 360. So of a small picture the first layers are made taller,
// in every browser, until those that are sent reach its full height; the layers that are left over repeat it.
//
// Between two layers there is nothing to send, so a line that carries half of the tallest would be half empty: the server
// then says how much of a layer lines carry (`bps_max`), and its `maxBitrate` goes down to that. Both browsers follow
// without a key frame and without another offer.

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

/** The smallest layer is never asked to do with less, in bit/s: below it no encoder makes a picture. */
const LEAST_BPS = 40_000;

/** What is wanted of the layers of one up, smallest first. */
export interface WantedLayers {
  /** Which are on; one that is not there is on. */
  layers: readonly boolean[];
  /** The most to send of each, in bit/s; 0, or not there, where there is no such limit. */
  bps_max?: readonly number[];
}

/**
 * The bitrate of a layer that is to take no more than this: never more than it was made with, nor less than the layer
 * below was made with, which would look better.
 */
function bitrateOf(
  made: readonly RTCRtpEncodingParameters[],
  layer: number,
  bpsMax: number,
): number | undefined {
  const full = made[layer]?.maxBitrate;
  // Whatever a server says, this is a number and within what the layer was made for.
  if (full === undefined || !(bpsMax > 0)) return full;
  const below = layer > 0 ? made[layer - 1]?.maxBitrate : undefined;
  return Math.min(full, Math.max(Math.round(bpsMax), below ?? LEAST_BPS));
}

/**
 * The encodings with each layer on or off as wanted, and with no more than is wanted of it; null when nothing would
 * change. `made` is how the layers were made.
 */
export function withWanted(
  encodings: readonly RTCRtpEncodingParameters[],
  made: readonly RTCRtpEncodingParameters[],
  { layers, bps_max = [] }: WantedLayers,
): RTCRtpEncodingParameters[] | null {
  const next = encodings.map((encoding, layer) => {
    const maxBitrate = bitrateOf(made, layer, bps_max[layer] ?? 0);
    return {
      ...encoding,
      // A layer that the server says nothing of stays on.
      active: layers[layer] ?? true,
      ...(maxBitrate !== undefined && { maxBitrate }),
    };
  });
  const isChanged = ({ active, maxBitrate }: RTCRtpEncodingParameters, layer: number) =>
    active !== (encodings[layer]?.active ?? true) || maxBitrate !== encodings[layer]?.maxBitrate;
  return next.some(isChanged) ? next : null;
}

/** What was said last of the layers of one up; all of them are on, and whole, before anything was said. */
export function layersOf(ups: readonly UpWanted[], kind: UpWanted['kind']): WantedLayers {
  return ups.find((up) => up.kind === kind) ?? { layers: [] };
}
