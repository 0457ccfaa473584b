// Which layers of a sender are on. Pure.
//
// A layer that nobody receives or waits for costs the publisher's uplink and battery for nothing: the server says
// which are wanted (`wanted`), and the others are paused with `active: false`. Seen working layer by layer, off and
// on again, in Firefox ESR 153 and in Chromium 156.

import type { UpWanted } from './protocol';

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
