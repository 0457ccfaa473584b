// Which pictures are asked for and which are shown: joins the slots' machine (`slots.ts`) to what the view lays out
// and to what the server says of it.
//
// While a new peer connection is being made the pictures of the old one stay on display, moving or standing still;
// each gives way to the new one's when the server says that its slot carries something again.

import { signal, type ReadonlySignal } from '@preact/signals-core';
import type { Environment } from './env';
import { isTileActive, type Roster } from './members';
import type { TileId } from './model';
import type { ClientMessage, SlotState } from './protocol';
import { Slots, type Shown } from './slots';

/** Layouts change in bursts while windows are dragged; the server limits the rate of messages. */
const VIEW_PERIOD_MS = 150;
/** How tall pictures are asked for before the view has laid itself out. */
const FIRST_HEIGHT_PX = 360;
/** For how long after the change to another peer connection an old picture stands in for one that is under way. */
const KEPT_MS_MAX = 3_000;

export interface PicturesHooks {
  roster(): Roster;
  /** The slots' streams, by number. */
  streams(): readonly MediaStream[];
  /** The own pictures, by tile key. */
  own(): ReadonlyMap<string, MediaStream>;
  send(message: ClientMessage): boolean;
}

export class Pictures {
  readonly #videos = signal<ReadonlyMap<string, MediaStream>>(new Map());
  readonly #paused = signal<ReadonlySet<string>>(new Set());
  readonly #slots = new Slots();
  /** Tile key to slot index as they were when the old peer connection was given up; null when all is up to date. */
  #kept: Map<string, number> | null = null;
  /** Whether the new peer connection does not play yet, so that its slots are not shown. */
  #isHeld = false;
  #keptTimer: number | null = null;
  #shown: Shown[] | null = null;
  #sentView = '';
  #viewTimer: number | null = null;

  constructor(
    private readonly env: Pick<Environment, 'setTimer' | 'clearTimer'>,
    private readonly hooks: PicturesHooks,
  ) {}

  get videos(): ReadonlySignal<ReadonlyMap<string, MediaStream>> {
    return this.#videos;
  }

  /** Keys of the tiles whose picture is held back. */
  get paused(): ReadonlySignal<ReadonlySet<string>> {
    return this.#paused;
  }

  /** What the view shows from now on. */
  setShown(shown: Shown[]): void {
    this.#shown = shown;
  }

  /** The video slots that were answered. */
  setMids(mids: readonly string[]): void {
    this.#slots.setMids(mids);
    this.#sentView = '';
  }

  handleSlots(states: readonly SlotState[]): void {
    this.#slots.handleSlots(states);
    this.refresh();
  }

  /**
   * The server knows nothing of the slots any more, or another server is asked. What is on display stays until
   * `release` if a new peer connection takes the place of one that played.
   */
  forget(isReplaced: boolean): void {
    if (isReplaced) {
      this.#keep();
      this.#isHeld = true;
    }
    this.#slots.forget();
    this.refresh();
  }

  /** The new peer connection plays. */
  release(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#keptTimer = this.env.setTimer(() => {
      this.#keptTimer = null;
      this.#kept = null;
      this.refresh();
    }, KEPT_MS_MAX);
    this.refresh();
  }

  /** Everything is to be said again. */
  resay(): void {
    this.#sentView = '';
  }

  /** Nothing is left of the membership. */
  clear(): void {
    for (const timer of [this.#viewTimer, this.#keptTimer]) if (timer !== null) this.env.clearTimer(timer);
    this.#viewTimer = null;
    this.#keptTimer = null;
    this.#kept = null;
    this.#isHeld = false;
    this.#shown = null;
    this.#sentView = '';
    this.#slots.setMids([]);
    this.#slots.forget();
    this.#videos.value = new Map();
    this.#paused.value = new Set();
  }

  /** Lays the shown tiles out over the slots, says so when something changed, and returns how many slots are wanted. */
  layOut(): number {
    const roster = this.hooks.roster();
    const wanted = this.#slots.show(
      (this.#shown ?? this.#firstTiles()).filter(
        ({ tile }) => tile.person !== roster.self && roster.members.has(tile.person),
      ),
      (tile) => isTileActive(roster, tile),
    );
    this.refresh();
    if (this.#viewTimer === null) this.#view();
    return wanted;
  }

  /** Shows what there is to show. */
  refresh(): void {
    const roster = this.hooks.roster();
    const streams = this.hooks.streams();
    const videos = new Map<string, MediaStream>();
    const carried = this.#isHeld ? new Map<string, number>() : this.#slots.carried();
    const taken = new Set(carried.values());
    const kept = [...(this.#kept ?? [])].filter(([key, index]) => !carried.has(key) && !taken.has(index));
    for (const [key, index] of [...carried, ...kept]) {
      const stream = streams[index];
      if (stream && isKeyActive(roster, key)) videos.set(key, stream);
    }
    for (const [key, stream] of this.hooks.own()) videos.set(key, stream);
    if (!isSameMap(videos, this.#videos.value)) this.#videos.value = videos;
    const paused = this.#isHeld ? new Set<string>() : this.#slots.paused();
    if (!isSameSet(paused, this.#paused.value)) this.#paused.value = paused;
  }

  #keep(): void {
    if (this.#keptTimer !== null) this.env.clearTimer(this.#keptTimer);
    this.#keptTimer = null;
    this.#kept = new Map([...(this.#kept ?? []), ...this.#slots.carried()]);
  }

  #view(): void {
    const slots = this.#slots.wishes();
    const view = JSON.stringify(slots);
    if (slots.length === 0 || view === this.#sentView) return;
    if (!this.hooks.send({ type: 'view', slots })) return;
    this.#sentView = view;
    this.#viewTimer = this.env.setTimer(() => {
      this.#viewTimer = null;
      this.#view();
    }, VIEW_PERIOD_MS);
  }

  /** Until the view has laid itself out, those who can be seen are asked for. */
  #firstTiles(): Shown[] {
    const roster = this.hooks.roster();
    return [...roster.members.keys()]
      .flatMap((person): TileId[] => [
        { person, kind: 'screen' },
        { person, kind: 'camera' },
      ])
      .filter((tile) => isTileActive(roster, tile))
      .map((tile) => ({ tile, heightPx: FIRST_HEIGHT_PX }));
  }
}

/** Whether a tile's picture may be on display: of someone who is on the way back it may. */
function isKeyActive(roster: Roster, key: string): boolean {
  const [person, kind] = key.split(':') as [string, TileId['kind']];
  const id = Number(person);
  const member = roster.members.get(id) ?? roster.returning.get(id);
  return member?.ups.some((up) => up.kind === kind && up.active) ?? false;
}

function isSameMap<K, V>(a: ReadonlyMap<K, V>, b: ReadonlyMap<K, V>): boolean {
  return a.size === b.size && [...a].every(([key, value]) => b.get(key) === value);
}

function isSameSet<T>(a: ReadonlySet<T>, b: ReadonlySet<T>): boolean {
  return a.size === b.size && [...a].every((value) => b.has(value));
}
