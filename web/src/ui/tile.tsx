// One tile: a person's camera or their initials, or a shared screen.

import type { JSX } from 'preact';
import { useRef } from 'preact/hooks';
import type { Person, TileId } from '../core/model';
import { FullScreenIcon, LineLostIcon, LineWeakIcon, MicrophoneOffIcon, PauseIcon, PinIcon } from './icons';
import { t } from './l10n';
import type { Rect } from './layout/grid';
import { hueOf, initialsOf, isAway, nameOf, tileLabel } from './people';
import { Video } from './video';

/** Narrower than this, a sentence would stand in more lines than there is room for. */
const SHORT_WIDTH = 260;

export interface TileProps {
  person: Person;
  kind: TileId['kind'];
  rect: Rect;
  stream: MediaStream | null;
  /** The picture is held back, since the own line cannot carry it now. */
  paused: boolean;
  onStage: boolean;
  pinned: boolean;
  /** Null when there is nothing to choose between. */
  onPin: (() => void) | null;
}

export function Tile({ person, kind, rect, stream, paused, onStage, pinned, onPin }: TileProps): JSX.Element {
  const ref = useRef<HTMLLIElement>(null);
  const isScreen = kind === 'screen';
  const picture = isScreen ? person.screen : person.camera;
  const label = tileLabel(person, kind);
  const away = isAway(person);
  const held = paused && picture && !away && !person.isSelf;
  const speaking = person.speaking && !isScreen && !away;
  return (
    <li
      ref={ref}
      class="tile"
      aria-label={label}
      data-person={person.id}
      data-kind={kind}
      data-hue={hueOf(person)}
      data-speaking={speaking || undefined}
      data-away={away || undefined}
      data-held={held || undefined}
      data-self={person.isSelf || undefined}
      data-stage={onStage || undefined}
      data-small={rect.height < 120 || rect.width < 150 || undefined}
      style={{
        left: `${rect.left}px`,
        top: `${rect.top}px`,
        width: `${rect.width}px`,
        height: `${rect.height}px`,
      }}
    >
      {!isScreen && (
        <div class="face" aria-hidden="true">
          <span class="initials">{initialsOf(nameOf(person))}</span>
        </div>
      )}
      {picture && !stream && !away && !held && <p class="tile-waiting">{t('picture-waiting')}</p>}
      {picture && stream && (
        <Video key={stream.id} stream={stream} mirrored={person.isSelf && !isScreen} whole={isScreen} />
      )}
      {away && (
        <p class="tile-away">
          <LineLostIcon />
          <span class="tile-away-text">{onStage ? t('state-away-long') : t('state-away')}</span>
        </p>
      )}
      {held && (
        <p class={isScreen ? 'tile-held' : 'tile-away'}>
          <PauseIcon />
          <span class="tile-away-text">
            {rect.width < SHORT_WIDTH ? t('picture-paused-short') : t('picture-paused')}
          </span>
        </p>
      )}
      {onPin && (
        <button type="button" class="tile-pin" onClick={onPin}>
          <span class="hidden-text">
            {pinned ? t('unpin-tile', { tile: label }) : t('pin-tile', { tile: label })}
          </span>
        </button>
      )}
      <div class="plate">
        {!isScreen && !person.microphone && (
          <span class="plate-icon">
            <MicrophoneOffIcon />
            <span class="hidden-text">{t('state-muted')}</span>
          </span>
        )}
        {!isScreen && person.line !== 'good' && !away && (
          <span class="plate-icon" data-line={person.line}>
            {person.line === 'weak' ? <LineWeakIcon /> : <LineLostIcon />}
            <span class="hidden-text">{person.line === 'weak' ? t('state-line-weak') : t('state-away')}</span>
          </span>
        )}
        {pinned && (
          <span class="plate-icon">
            <PinIcon />
          </span>
        )}
        <span class="plate-name" dir="auto">
          {person.isSelf ? t('you') : isScreen ? label : nameOf(person)}
        </span>
        {speaking && <span class="hidden-text">{t('state-speaking')}</span>}
      </div>
      {onStage && isScreen && document.fullscreenEnabled && (
        <button
          type="button"
          class="icon-button tile-full"
          aria-label={t('full-screen')}
          onClick={() => {
            // Refused only where the page is framed or the gesture went stale: the button is there to press again.
            if (document.fullscreenElement) void document.exitFullscreen().catch(() => undefined);
            else void ref.current?.requestFullscreen().catch(() => undefined);
          }}
        >
          <FullScreenIcon />
        </button>
      )}
    </li>
  );
}
