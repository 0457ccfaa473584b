// Before joining: see oneself, be heard by the meter, choose devices, say one's name.

import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { Meeting } from '../core/model';
import { DeviceChoices, DeviceTroubles, LevelMeter } from './devices';
import { WarningIcon } from './icons';
import { t } from './l10n';
import { initialsOf } from './people';
import { NameField, rememberedName } from './name';
import { Page } from './page';
import { ProblemText, SecurePageLink } from './problems';
import { CameraButton, MicrophoneButton } from './toggles';
import { Video } from './video';

function Preview({ meeting, name }: { meeting: Meeting; name: string }): JSX.Element {
  const stream = meeting.devices.preview.value;
  const on = meeting.cameraOn.value;
  return (
    <section class="preview" aria-label={t('preview-label')}>
      <div class="preview-picture">
        {name !== '' && (
          <div class="face" aria-hidden="true">
            <span class="initials">{initialsOf(name)}</span>
          </div>
        )}
        {on && stream ? (
          <Video stream={stream} mirrored />
        ) : (
          <p class="preview-text">
            {on && meeting.devices.camera.value.status === 'asking'
              ? t('camera-starting')
              : t('camera-is-off')}
          </p>
        )}
        <div class="preview-tools" role="group" aria-label={t('meeting-controls')}>
          <MicrophoneButton meeting={meeting} />
          <CameraButton meeting={meeting} />
        </div>
      </div>
      <LevelMeter level={meeting.devices.microphoneLevel} />
    </section>
  );
}

/** Whether one would join without a microphone, so that a sentence says that this is all right. */
function listensOnly(meeting: Meeting): boolean {
  const { status } = meeting.devices.microphone.value;
  return (
    meeting.problem.value === 'insecure-context' ||
    !(status === 'live' || status === 'asking' || status === 'off')
  );
}

export function LobbyScreen({ meeting }: { meeting: Meeting }): JSX.Element {
  const [name, setName] = useState(rememberedName);
  const problem = meeting.problem.value;
  const impossible = problem === 'no-webrtc';

  const join = (event: Event): void => {
    event.preventDefault();
    if (!impossible) void meeting.join(name.trim());
  };

  const reach = (): void => meeting.getReady?.();

  return (
    <Page screen="lobby">
      <div class="lobby">
        <Preview meeting={meeting} name={name.trim()} />
        <form class="lobby-form" onSubmit={join}>
          <p class="lobby-name" dir="auto">
            {meeting.name.value}
          </p>
          <h1>{t('lobby-title')}</h1>
          {problem !== null && (
            <div class="callout warning" role="alert">
              <WarningIcon />
              <div>
                <ProblemText problem={problem} />
                {problem === 'insecure-context' && <SecurePageLink />}
              </div>
            </div>
          )}
          {problem !== 'insecure-context' && <DeviceTroubles meeting={meeting} />}
          {!impossible && listensOnly(meeting) && <p class="still">{t('can-still-listen')}</p>}
          <NameField
            value={name}
            onInput={(typed) => {
              setName(typed);
              reach(); // Enter joins from here.
            }}
          />
          <button
            type="submit"
            class="button primary large"
            disabled={impossible}
            onPointerEnter={reach}
            onFocus={reach}
          >
            {t('join')}
          </button>
          <div class="choices">
            <DeviceChoices meeting={meeting} />
          </div>
        </form>
      </div>
    </Page>
  );
}
