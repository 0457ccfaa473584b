// The list of everyone, those out of view included.

import type { JSX } from 'preact';
import type { Meeting, Person } from '../core/model';
import {
  CameraIcon,
  CameraOffIcon,
  CloseIcon,
  LineLostIcon,
  LineWeakIcon,
  MicrophoneIcon,
  MicrophoneOffIcon,
  ShareIcon,
} from './icons';
import { t } from './l10n';
import { hueOf, initialsOf, isAway, labelOf, nameOf } from './people';

export const PARTICIPANTS_ID = 'participants';

function State({
  icon,
  text,
  off = false,
  weak = false,
}: {
  icon: JSX.Element;
  text: string;
  off?: boolean;
  weak?: boolean;
}): JSX.Element {
  return (
    <span class="state" data-off={off || undefined} data-weak={weak || undefined}>
      {icon}
      <span class="hidden-text">{text}</span>
    </span>
  );
}

function Row({ person }: { person: Person }): JSX.Element {
  return (
    <li
      class="participant"
      data-person={person.id}
      data-hue={hueOf(person)}
      data-away={isAway(person) || undefined}
    >
      <span class="face small" aria-hidden="true" data-speaking={person.speaking || undefined}>
        <span class="initials">{initialsOf(nameOf(person))}</span>
      </span>
      <span class="participant-name" dir="auto">
        {labelOf(person)}
      </span>
      {isAway(person) || person.line === 'lost' ? (
        <State icon={<LineLostIcon />} text={t('state-away')} />
      ) : (
        person.line === 'weak' && <State icon={<LineWeakIcon />} text={t('state-line-weak')} weak />
      )}
      {person.screen && <State icon={<ShareIcon />} text={t('state-sharing')} />}
      {person.microphone ? (
        <State icon={<MicrophoneIcon />} text={t('state-unmuted')} />
      ) : (
        <State icon={<MicrophoneOffIcon />} text={t('state-muted')} off />
      )}
      {person.camera ? (
        <State icon={<CameraIcon />} text={t('state-camera-on')} />
      ) : (
        <State icon={<CameraOffIcon />} text={t('state-camera-off')} off />
      )}
    </li>
  );
}

export function Participants({ meeting, onClose }: { meeting: Meeting; onClose: () => void }): JSX.Element {
  const people = meeting.people.value;
  return (
    <aside id={PARTICIPANTS_ID} class="participants" aria-label={t('participants')}>
      <header class="panel-top">
        <h2>{t('participants')}</h2>
        <button type="button" class="icon-button" aria-label={t('close')} onClick={onClose}>
          <CloseIcon />
        </button>
      </header>
      <p class="quiet">{t('participants-count', { count: people.length })}</p>
      <ul class="participant-list" tabIndex={0} aria-label={t('participants')}>
        {people.map((person) => (
          <Row key={person.id} person={person} />
        ))}
      </ul>
    </aside>
  );
}
