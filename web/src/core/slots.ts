// Which video slot shows what. Pure: tiles and what the server says in, wishes and streams to show out.
//
// A tile keeps its slot for as long as it is shown, so that no picture jumps while people come and go. A slot's
// stream is shown for a tile only once the server has said that the slot carries it: until then it may still
// carry the picture of someone else.

import type { TileId } from './model';
import type { SlotState, SlotWish, Up } from './protocol';

/** Video slots to begin with. */
export const VIDEO_SLOTS_MIN = 4;
/** Slots are added this many at a time: each addition is a new offer. */
export const VIDEO_SLOTS_STEP = 4;
/**
 * More moving pictures than this help nobody, and offers grow with every slot: 45 m-lines are 222 kB in
 * Chromium. Tiles past it show initials.
 */
export const VIDEO_SLOTS_MAX = 24;
/** What the protocol's height field holds. */
const HEIGHT_PX_MAX = 65_535;

export interface Shown {
  tile: TileId;
  heightPx: number;
}

/** Names a tile in maps. */
export function tileKey(tile: TileId): string {
  return `${tile.person}:${tile.kind}`;
}

interface Slot {
  mid: string;
  wish: { key: string; up: Up; heightPx: number } | null;
}

export class Slots {
  #slots: Slot[] = [];
  /** What the server says of every slot, audio ones too, by mid: kept over a change of peer connection. */
  #carried = new Map<string, SlotState>();

  get count(): number {
    return this.#slots.length;
  }

  /** The video slots' m-lines, in order; tells of new ones after an offer was made. */
  setMids(mids: readonly string[]): void {
    this.#slots = mids.map((mid, index) => ({ mid, wish: this.#slots[index]?.wish ?? null }));
  }

  /**
   * Lays the shown tiles out over the slots, the first being the most important. Tiles that nothing is sent for
   * take only slots that are left over; so their picture comes without a round trip when they start.
   * Returns how many slots there should be.
   */
  show(shown: readonly Shown[], isActive: (tile: TileId) => boolean): number {
    const tiles = merge(shown);
    const active = tiles.filter((entry) => isActive(entry.tile));
    const idle = tiles.filter((entry) => !isActive(entry.tile));
    const placed = new Map(
      [...active, ...idle].slice(0, this.#slots.length).map((entry) => [tileKey(entry.tile), entry]),
    );
    for (const slot of this.#slots) {
      const stays = slot.wish && placed.get(slot.wish.key);
      if (stays) placed.delete(tileKey(stays.tile));
      slot.wish = stays ? toWish(stays) : null;
    }
    for (const slot of this.#slots) {
      if (slot.wish) continue;
      const next = placed.values().next().value;
      if (!next) break;
      placed.delete(tileKey(next.tile));
      slot.wish = toWish(next);
    }
    return slotsFor(active.length);
  }

  /** The whole of the view, as the protocol wants it. */
  wishes(): SlotWish[] {
    return this.#slots.map(({ mid, wish }) => ({
      mid,
      up: wish?.up ?? null,
      height_px: wish?.heightPx ?? 0,
    }));
  }

  /** The server says what some slots carry. */
  handleSlots(states: readonly SlotState[]): void {
    for (const state of states) this.#carried.set(state.mid, state);
  }

  /** Nothing is known any more. */
  forget(): void {
    this.#carried.clear();
  }

  /** Tile key to slot index, for slots that carry what they were asked for. */
  carried(): Map<string, number> {
    return new Map(this.#filled().map(({ key, index }) => [key, index]));
  }

  /** The keys of tiles whose picture is held back, since our line cannot carry it now. */
  paused(): Set<string> {
    return new Set(this.#filled().flatMap(({ key, isPaused }) => (isPaused ? [key] : [])));
  }

  #filled(): { key: string; index: number; isPaused: boolean }[] {
    return this.#slots.flatMap(({ mid, wish }, index) => {
      const state = this.#carried.get(mid);
      const up = state?.up;
      if (!wish || !up || up.peer !== wish.up.peer || up.kind !== wish.up.kind) return [];
      return [{ key: wish.key, index, isPaused: state.paused }];
    });
  }
}

/** How many slots a number of moving pictures asks for. */
export function slotsFor(pictures: number): number {
  const stepped = Math.ceil(pictures / VIDEO_SLOTS_STEP) * VIDEO_SLOTS_STEP;
  return Math.min(VIDEO_SLOTS_MAX, Math.max(VIDEO_SLOTS_MIN, stepped));
}

/** A tile that is shown twice needs one slot, at the greater height. */
function merge(shown: readonly Shown[]): Shown[] {
  const merged = new Map<string, Shown>();
  for (const { tile, heightPx } of shown) {
    const known = merged.get(tileKey(tile));
    if (known) known.heightPx = Math.max(known.heightPx, heightPx);
    else merged.set(tileKey(tile), { tile, heightPx });
  }
  return [...merged.values()];
}

function toWish({ tile, heightPx }: Shown): Slot['wish'] {
  return {
    key: tileKey(tile),
    up: { peer: tile.person, kind: tile.kind },
    heightPx: Math.round(Math.min(HEIGHT_PX_MAX, Math.max(0, heightPx))),
  };
}
