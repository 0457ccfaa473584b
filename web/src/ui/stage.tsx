// The tiles: who is in view, where, and how large; tells the meeting so.

import { useSignal } from '@preact/signals';
import type { JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import type { Meeting, Person, TileId } from '../core/model';
import { soon, useBox } from './box';
import { NextIcon, PreviousIcon } from './icons';
import { t } from './l10n';
import { gridCapacity, layoutGrid, layoutStage, stripCapacity, type Rect } from './layout/grid';
import {
  NOTHING_SELECTED,
  orderShares,
  pageCount,
  pageOf,
  selectPeople,
  selectStage,
  tileKey,
} from './layout/select';
import { Tile } from './tile';

interface Placed {
  tile: TileId;
  person: Person;
  rect: Rect;
  onStage: boolean;
}

const GAP = 12;
const GAP_PHONE = 6;
const PHONE_WIDTH = 560;

/** What `Meeting.show` is told: everything but oneself, in order of importance, in device pixels. */
export function wishesOf(
  placed: readonly Placed[],
  pixelRatio: number,
): { tile: TileId; heightPx: number }[] {
  return placed
    .filter(({ person }) => !person.isSelf)
    .map(({ tile, rect }) => ({ tile, heightPx: Math.round(rect.height * pixelRatio) }));
}

export function Stage({ meeting }: { meeting: Meeting }): JSX.Element {
  const ref = useRef<HTMLDivElement>(null);
  const box = useBox(ref).value;
  const pinned = useSignal<TileId | null>(null);
  const page = useSignal(0);
  const selection = useRef(NOTHING_SELECTED);
  const shares = useRef<readonly number[]>([]);

  const people = meeting.people.value;
  const videos = meeting.videos.value;
  const paused = meeting.paused.value;
  const gap = box.width < PHONE_WIDTH ? GAP_PHONE : GAP;

  shares.current = orderShares(shares.current, people);
  const stage = selectStage(people, pinned.value, shares.current);

  // Screens that are not on the stage keep a place among the faces; a face on the stage leaves its place there.
  const screens = shares.current.filter((id) => !(stage?.kind === 'screen' && stage.person === id));
  const faces = stage?.kind === 'camera' ? people.filter((person) => person.id !== stage.person) : people;
  const places = stage ? stripCapacity(box, gap) : gridCapacity(box, gap);
  const capacity = Math.max(1, places - screens.length);
  // Before the first measurement nothing is chosen: places are kept once they are given.
  if (box.width > 0) selection.current = selectPeople(selection.current, faces, capacity);
  const pages = pageCount(faces.length, capacity);
  const shownPage = Math.min(page.value, pages - 1);
  const inView: { person: Person; kind: TileId['kind'] }[] = [
    ...screens.flatMap((id) => {
      const person = people.find((candidate) => candidate.id === id);
      return person ? [{ person, kind: 'screen' as const }] : [];
    }),
    ...pageOf(faces, selection.current, capacity, shownPage).map((person) => ({
      person,
      kind: 'camera' as const,
    })),
  ];

  const layout = stage
    ? layoutStage(inView.length, box, gap)
    : { stage: null, tiles: layoutGrid(inView.length, box, gap) };
  const placed: Placed[] = [];
  if (stage && layout.stage) {
    const person = people.find((candidate) => candidate.id === stage.person);
    if (person) placed.push({ tile: stage, person, rect: layout.stage, onStage: true });
  }
  for (const [index, { person, kind }] of inView.entries()) {
    const rect = layout.tiles[index];
    if (rect) placed.push({ tile: { person: person.id, kind }, person, rect, onStage: false });
  }

  const wishes = JSON.stringify(wishesOf(placed, window.devicePixelRatio || 1));
  useEffect(() => soon(() => meeting.show(JSON.parse(wishes))), [meeting, wishes]);

  // In the document tiles stand in order of arrival, wherever they are placed: a video that is moved within the
  // document stops playing.
  const arrival = new Map(people.map((person, index) => [person.id, index]));
  const inDocument = [...placed].sort(
    (a, b) =>
      (arrival.get(a.person.id) ?? 0) - (arrival.get(b.person.id) ?? 0) ||
      a.tile.kind.localeCompare(b.tile.kind),
  );
  const choices = people.length + shares.current.length;

  return (
    <div class="stage">
      <div class="stage-box" ref={ref}>
        <ul class="tiles" aria-label={t('tiles-label')}>
          {inDocument.map(({ tile, person, rect, onStage }) => {
            const isPinned = pinned.value !== null && tileKey(pinned.value) === tileKey(tile);
            const own = person.isSelf && tile.kind === 'camera' ? meeting.devices.preview.value : null;
            return (
              <Tile
                key={tileKey(tile)}
                person={person}
                kind={tile.kind}
                rect={rect}
                onStage={onStage}
                stream={videos.get(tileKey(tile)) ?? own}
                paused={paused.has(tileKey(tile))}
                pinned={isPinned}
                onPin={choices > 1 ? () => (pinned.value = isPinned ? null : tile) : null}
              />
            );
          })}
        </ul>
      </div>
      {pages > 1 && (
        <div class="pager">
          <button
            type="button"
            class="icon-button"
            aria-label={t('tiles-previous')}
            disabled={shownPage === 0}
            onClick={() => (page.value = shownPage - 1)}
          >
            <PreviousIcon />
          </button>
          <span>{t('tiles-page', { page: shownPage + 1, pages })}</span>
          <button
            type="button"
            class="icon-button"
            aria-label={t('tiles-next')}
            disabled={shownPage === pages - 1}
            onClick={() => (page.value = shownPage + 1)}
          >
            <NextIcon />
          </button>
        </div>
      )}
    </div>
  );
}
