// Notices that nothing arrives any more, long before the browser does. Pure: it is told how much has been received
// and when, and says for how long nothing came.
//
// The server lets every connected peer hear something each 500 ms, or each second where it was a frame of several packets
// that came last, so two seconds without a byte are a line that is gone and no pause of the others. A server that was
// never heard to keep that beat proves nothing by being silent.

/**
 * How often the counters are read, twice a beat: a silence is noticed so much too late at most. Browsers stretch it to a
 * second and more in pages that nobody looks at.
 */
export const SAMPLE_MS = 250;
/** Four beats, two behind a frame: what a line with losses skips now and then is not taken for its end. */
export const SILENT_MS = 2_000;
/** A sample counts for no more than this: while a page or a computer sleeps nobody listens. */
const COUNTED_MS_MAX = 1_000;
/** So many samples with something new, each no later than the longest beat and a sample after the last, and the beat is known. */
const BEATS_MIN = 2;
const BEAT_MS_MAX = 1_250;

export class Silence {
  #bytes: number | null = null;
  #at = 0;
  #beats = 0;
  #silentMs = 0;

  /** For how long nothing has come, in milliseconds; 0 until the beat was heard once. */
  get silentMs(): number {
    return this.#beats >= BEATS_MIN ? this.#silentMs : 0;
  }

  /** Another transport, with a beat of its own to be heard first. */
  reset(): void {
    this.#bytes = null;
    this.#beats = 0;
    this.#silentMs = 0;
  }

  /** All bytes received so far. Any change is a sign of life: an ICE restart may begin to count anew. */
  handleSample(bytes: number, now: number): void {
    const isHeard = this.#bytes !== null && bytes !== this.#bytes;
    if (isHeard) {
      this.#beats = Math.min(BEATS_MIN, this.#beats + 1);
      this.#silentMs = 0;
    } else if (this.#bytes !== null) {
      this.#silentMs += Math.min(COUNTED_MS_MAX, Math.max(0, now - this.#at));
      if (this.#beats < BEATS_MIN && this.#silentMs >= BEAT_MS_MAX) this.#beats = 0;
    }
    this.#bytes = bytes;
    this.#at = now;
  }
}
