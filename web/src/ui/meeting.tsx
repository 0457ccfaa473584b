// In the meeting: the people, the toolbar, and what comes and goes around them.

import { useSignal } from '@preact/signals';
import type { JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import type { Meeting } from '../core/model';
import {
  LeaveIcon,
  LineLostIcon,
  LineWeakIcon,
  PeopleIcon,
  SettingsIcon,
  ShareIcon,
  ShareOffIcon,
} from './icons';
import { t } from './l10n';
import { CopyLink } from './link';
import { Notices } from './notices';
import { Heading } from './page';
import { Participants, PARTICIPANTS_ID } from './participants';
import { problemText, problemTitle } from './problems';
import { Settings } from './settings';
import { listenForShortcuts } from './shortcuts';
import { Sound, SoundBlocked } from './sound';
import { Stage } from './stage';
import { CameraButton, MicrophoneButton, Tool } from './toggles';

function StateBanners({ meeting }: { meeting: Meeting }): JSX.Element {
  const link = meeting.link.value;
  const line = meeting.ownLine.value;
  const problem = meeting.problem.value;
  const told = problem !== null && problem !== 'insecure-context';
  // The region stays when it is empty: screen readers announce only what changes inside one they know.
  return (
    <div role="status">
      {meeting.sharing.value && (
        <div class="banner calm">
          <ShareIcon />
          <p>{t('you-are-sharing')}</p>
        </div>
      )}
      {!told && link === 'up' && line !== 'good' && (
        <div class="banner">
          <LineWeakIcon />
          <p>{line === 'weak' ? t('own-line-weak') : t('own-line-lost')}</p>
        </div>
      )}
      {(told || link !== 'up') && (
        <div class="banner">
          <LineLostIcon />
          <p>
            {told
              ? `${problemTitle(problem)}. ${problemText(problem)}`
              : link === 'reconnecting'
                ? t('reconnecting')
                : t('media-reconnecting')}
          </p>
        </div>
      )}
    </div>
  );
}

function ShareButton({ meeting }: { meeting: Meeting }): JSX.Element | null {
  if (!meeting.canShare) return null;
  const sharing = meeting.sharing.value;
  return (
    <Tool
      label={sharing ? t('stop-sharing') : t('share-screen')}
      icon={sharing ? <ShareOffIcon /> : <ShareIcon />}
      look={sharing ? 'active' : undefined}
      onClick={() => void meeting.setSharing(!sharing)}
    />
  );
}

export function MeetingScreen({ meeting }: { meeting: Meeting }): JSX.Element {
  const participantsOpen = useSignal(false);
  const settingsOpen = useSignal(false);
  const participantsButton = useRef<HTMLButtonElement>(null);
  const name = meeting.name.value;
  const count = meeting.people.value.length;

  useEffect(() => listenForShortcuts(meeting), [meeting]);

  const closeParticipants = (): void => {
    participantsOpen.value = false;
    participantsButton.current?.focus();
  };
  useEffect(() => {
    const escape = (event: KeyboardEvent): void => {
      // A dialog, or full screen, closes by itself; the panel below it stays.
      const above = document.querySelector('dialog[open]') !== null || document.fullscreenElement !== null;
      if (event.key !== 'Escape' || above || !participantsOpen.value) return;
      closeParticipants();
    };
    document.addEventListener('keydown', escape);
    return () => document.removeEventListener('keydown', escape);
  }, []);

  return (
    <div class="meeting" data-screen="meeting" data-panel={participantsOpen.value || undefined}>
      <header class="meeting-top">
        <Heading focused>{name}</Heading>
        <CopyLink meeting={name} class="button bare" />
        <button
          ref={participantsButton}
          type="button"
          class="button bare"
          aria-expanded={participantsOpen.value}
          aria-controls={participantsOpen.value ? PARTICIPANTS_ID : undefined}
          onClick={() => (participantsOpen.value = !participantsOpen.value)}
        >
          <PeopleIcon />
          <span class="button-label">{t('participants')}</span>
          <span class="count" aria-hidden="true">
            {count}
          </span>
        </button>
        <button
          type="button"
          class="button bare"
          aria-haspopup="dialog"
          onClick={() => (settingsOpen.value = true)}
        >
          <SettingsIcon />
          <span class="button-label">{t('settings')}</span>
        </button>
      </header>
      <div class="banners">
        <StateBanners meeting={meeting} />
        <SoundBlocked meeting={meeting} />
      </div>
      <main class="meeting-main">
        <Stage meeting={meeting} />
        {count <= 1 && (
          <div class="alone">
            <p>{t('alone')}</p>
            <CopyLink meeting={name} class="button primary" />
          </div>
        )}
      </main>
      {participantsOpen.value && <Participants meeting={meeting} onClose={closeParticipants} />}
      <section class="toolbar" aria-label={t('meeting-controls')}>
        <MicrophoneButton meeting={meeting} />
        <CameraButton meeting={meeting} />
        <ShareButton meeting={meeting} />
        <Tool label={t('leave')} icon={<LeaveIcon />} look="leave" onClick={() => meeting.leave()} />
      </section>
      <Notices meeting={meeting} />
      <Sound meeting={meeting} />
      {settingsOpen.value && <Settings meeting={meeting} onClose={() => (settingsOpen.value = false)} />}
    </div>
  );
}
