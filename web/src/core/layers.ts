// Which layers of a sender are on, and how tall they are. Pure.
//
// A layer that nobody receives or waits for costs the publisher's uplink and battery for nothing: the server says
// which are wanted (`wanted`), and the others are paused with `active: false`. Seen working layer by layer, off and
// on again, in Firefox ESR 153 and in Chromium 156.
//
// Chromium sends fewer layers of a small picture, and leaves out the last ones, which are the tallest: of 640x360 in
// three layers it would send 90 and 180 pixels and never 360. So of a small picture the first layers are made taller, in
// every browser, until those that are sent reach its full height. Layers that would repeat it are off everywhere; they
// would only cost the phone. The tallest that is left takes what so many pixels can use.
//
// Between two layers there is nothing to send, so a line that carries half of the tallest would be half empty: the server
// then says how much of a layer lines carry (`bps_max`), and its `maxBitrate` goes down to that. Both browsers follow
// without a key frame and without another offer.

import type { UpWanted } from './protocol';

/** Pixels from which Chromium sends three layers and two (`WebRTC-LegacySimulcastLayerLimit`); seen in Chromium 156. */
const THREE_LAYERS_PIXELS = 960 * 540;
const TWO_LAYERS_PIXELS = 480 * 270;

export interface Size {
  width?: number;
  height?: number;
}

/** The most that each layer of a large picture takes, smallest first, in bit/s. */
const CAMERA_BPS = [120_000, 350_000, 1_200_000];
const CAMERA_RIDS = ['q', 'h', 'f'];

/**
 * The most that the tallest layer of a picture takes, in bit/s, by how many layers would repeat it: what more would show no
 * better, and what less would leave a line of 1 Mbit/s half empty.
 */
const TALLEST_BPS = [1_200_000, 800_000, 350_000];

/** One layer: Firefox sends a shared screen's simulcast layers wrongly. */
export const SCREEN_LAYERS: readonly RTCRtpEncodingParameters[] = [{ active: true, maxBitrate: 2_500_000 }];

/** How many times the tallest of three layers stands for the full height: 0 for a large picture or an unknown one. */
function repeats({ width = 0, height = 0 }: Size): number {
  const pixels = width * height;
  if (pixels === 0 || pixels >= THREE_LAYERS_PIXELS) return 0;
  return pixels >= TWO_LAYERS_PIXELS ? 1 : 2;
}

/**
 * A camera's layers, smallest first, each twice as tall as the one before up to full height; what would repeat that is
 * off. Together they stay below what a weak home uplink carries.
 */
export function cameraLayers(size: Size): RTCRtpEncodingParameters[] {
  const tallest = CAMERA_BPS.length - 1 - repeats(size);
  return CAMERA_BPS.map((bps, layer) => ({
    rid: CAMERA_RIDS[layer] ?? '',
    active: layer <= tallest,
    scaleResolutionDownBy: Math.max(1, 2 ** (tallest - layer)),
    maxBitrate: (layer === tallest ? TALLEST_BPS[repeats(size)] : undefined) ?? bps,
  }));
}

/**
 * What is told as the tallest layer's height, from which the server reckons each smaller one as half of the next: a
 * layer that would repeat the full height counts as twice as tall, so that the ones below are known for what they are.
 */
export function toldHeightPx(size: Size): number {
  return Math.round(size.height ?? 0) * 2 ** repeats(size);
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
 * A sender's encodings as they are to be: made like this, on where they are wanted too, and with no more than is wanted.
 * Null when nothing would change. What the browser keeps in an encoding besides stays as it is.
 */
export function encodingsOf(
  encodings: readonly RTCRtpEncodingParameters[],
  made: readonly RTCRtpEncodingParameters[],
  { layers, bps_max = [] }: WantedLayers,
): RTCRtpEncodingParameters[] | null {
  const next = encodings.map((encoding, layer) => {
    const { active = true, scaleResolutionDownBy } = made[layer] ?? {};
    const maxBitrate = bitrateOf(made, layer, bps_max[layer] ?? 0);
    return {
      ...encoding,
      // A layer that the server says nothing of stays on.
      active: active && (layers[layer] ?? true),
      ...(scaleResolutionDownBy !== undefined && { scaleResolutionDownBy }),
      ...(maxBitrate !== undefined && { maxBitrate }),
    };
  });
  const isChanged = (one: RTCRtpEncodingParameters, layer: number) => {
    const { active = true, scaleResolutionDownBy = 1, maxBitrate } = encodings[layer] ?? {};
    return (
      one.active !== active ||
      (one.scaleResolutionDownBy ?? 1) !== scaleResolutionDownBy ||
      one.maxBitrate !== maxBitrate
    );
  };
  return next.some(isChanged) ? next : null;
}

/** What was said last of the layers of one up; all of them are on, and whole, before anything was said. */
export function layersOf(ups: readonly UpWanted[], kind: UpWanted['kind']): WantedLayers {
  return ups.find((up) => up.kind === kind) ?? { layers: [] };
}
