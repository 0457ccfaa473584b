// What is said of the own line, without flickering. Pure.
//
// A line on the edge goes to and fro; a sentence that comes and goes with it would only unsettle. It comes when the
// line has been weak for a moment and goes when it has been good for longer.

import type { Line } from './model';

const WORSE_MS = 1_500;
const BETTER_MS = 5_000;

const RANK: Record<Line, number> = { good: 0, weak: 1, lost: 2 };

export class Steady {
  #shown: Line = 'good';
  #measured: Line = 'good';
  #since = 0;

  get shown(): Line {
    return this.#shown;
  }

  /** When to call `handleWake`; null for never. */
  get wakeAt(): number | null {
    if (this.#measured === this.#shown) return null;
    return this.#since + (RANK[this.#measured] > RANK[this.#shown] ? WORSE_MS : BETTER_MS);
  }

  handleLine(line: Line, now: number): void {
    if (line === this.#measured) return;
    // From bad to worse the wait goes on: the line has not been good in between.
    const isOnward =
      RANK[line] > RANK[this.#shown] === RANK[this.#measured] > RANK[this.#shown] &&
      this.#measured !== this.#shown;
    this.#measured = line;
    if (!isOnward) this.#since = now;
  }

  handleWake(now: number): void {
    const { wakeAt } = this;
    if (wakeAt !== null && now >= wakeAt) this.#shown = this.#measured;
  }

  reset(): void {
    this.#shown = this.#measured = 'good';
  }
}
