// The microphone and camera buttons: the same before joining and in the meeting.

import type { JSX } from 'preact';
import type { Meeting } from '../core/model';
import { CameraIcon, CameraOffIcon, MicrophoneIcon, MicrophoneOffIcon } from './icons';
import { t } from './l10n';

interface ToolProps {
  label: string;
  icon: JSX.Element;
  /** How it looks: `off` for something of one's own that is switched off. */
  look?: 'off' | 'active' | 'leave';
  shortcut?: string;
  onClick: () => void;
}

/** A button of the toolbar: an icon with its name below, or only the icon where room is short. */
export function Tool({ label, icon, look, shortcut, onClick }: ToolProps): JSX.Element {
  return (
    <button type="button" class="tool" data-look={look} aria-keyshortcuts={shortcut} onClick={onClick}>
      {icon}
      <span class="tool-label">{label}</span>
    </button>
  );
}

export function MicrophoneButton({ meeting }: { meeting: Meeting }): JSX.Element {
  const on = meeting.microphoneOn.value;
  return (
    <Tool
      label={on ? t('mute-microphone') : t('unmute-microphone')}
      icon={on ? <MicrophoneIcon /> : <MicrophoneOffIcon />}
      look={on ? undefined : 'off'}
      shortcut="m"
      onClick={() => meeting.setMicrophone(!on)}
    />
  );
}

export function CameraButton({ meeting }: { meeting: Meeting }): JSX.Element {
  const on = meeting.cameraOn.value;
  return (
    <Tool
      label={on ? t('turn-off-camera') : t('turn-on-camera')}
      icon={on ? <CameraIcon /> : <CameraOffIcon />}
      look={on ? undefined : 'off'}
      shortcut="v"
      onClick={() => meeting.setCamera(!on)}
    />
  );
}
