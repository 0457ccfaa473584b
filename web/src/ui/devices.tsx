// Choosing devices, and what to do when there is none: used before joining and in the settings.

import { useSignalEffect, type ReadonlySignal } from '@preact/signals';
import type { JSX } from 'preact';
import { useRef } from 'preact/hooks';
import type { DeviceState, Meeting } from '../core/model';
import { WarningIcon } from './icons';
import { t } from './l10n';

type Input = 'microphone' | 'camera';
type Trouble = 'denied' | 'missing' | 'busy' | 'failed';

const TROUBLE: Record<Input, Record<Trouble, string>> = {
  microphone: {
    denied: 'microphone-denied',
    missing: 'microphone-missing',
    busy: 'microphone-busy',
    failed: 'microphone-failed',
  },
  camera: {
    denied: 'camera-denied',
    missing: 'camera-missing',
    busy: 'camera-busy',
    failed: 'camera-failed',
  },
};

function troubleOf(device: Input, state: DeviceState): string | null {
  switch (state.status) {
    case 'denied':
    case 'missing':
    case 'busy':
    case 'failed':
      return TROUBLE[device][state.status];
    default:
      return null;
  }
}

interface ChoiceProps {
  device: Input | 'speaker';
  label: string;
  state: ReadonlySignal<DeviceState>;
  onChoose: (id: string) => void;
}

function DeviceChoice({ device, label, state, onChoose }: ChoiceProps): JSX.Element | null {
  const { choices, chosen } = state.value;
  if (choices.length === 0) return null;
  const known = choices.some((choice) => choice.id === chosen);
  return (
    <div class="field">
      <label for={`choose-${device}`}>{label}</label>
      <select
        id={`choose-${device}`}
        value={chosen}
        onChange={(event) => onChoose(event.currentTarget.value)}
      >
        {!known && <option value={chosen}>{t('device-default')}</option>}
        {choices.map((choice, index) => (
          <option key={choice.id} value={choice.id}>
            {choice.label || t('device-unnamed', { kind: label, number: index + 1 })}
          </option>
        ))}
      </select>
    </div>
  );
}

interface ChoicesProps {
  meeting: Meeting;
  /** Whether the microphone's level is shown with its choice. */
  meter?: boolean;
}

/** A choice for each kind of device that there is one of. */
export function DeviceChoices({ meeting, meter = false }: ChoicesProps): JSX.Element {
  const { devices } = meeting;
  const choose = (device: ChoiceProps['device']) => (id: string) => void meeting.choose(device, id);
  return (
    <>
      <DeviceChoice
        device="microphone"
        label={t('microphone')}
        state={devices.microphone}
        onChoose={choose('microphone')}
      />
      {meter && <LevelMeter level={devices.microphoneLevel} />}
      <DeviceChoice device="camera" label={t('camera')} state={devices.camera} onChoose={choose('camera')} />
      <DeviceChoice
        device="speaker"
        label={t('speaker')}
        state={devices.speaker}
        onChoose={choose('speaker')}
      />
    </>
  );
}

/** Why a microphone or camera is not there and how to get it; nothing when all is well. */
export function DeviceTroubles({ meeting }: { meeting: Meeting }): JSX.Element {
  const { microphone, camera } = meeting.devices;
  const asking = microphone.value.status === 'asking' || camera.value.status === 'asking';
  const troubles = (['microphone', 'camera'] as const).flatMap((device) => {
    const message = troubleOf(device, meeting.devices[device].value);
    return message === null ? [] : [{ device, message }];
  });
  return (
    <div class="troubles" aria-live="polite">
      {asking && <p class="callout">{t('devices-asking')}</p>}
      {troubles.map(({ device, message }) => (
        <div key={device} class="callout warning">
          <WarningIcon />
          <p>{t(message)}</p>
          <button type="button" class="button small" onClick={() => void meeting.retry(device)}>
            {t('try-again')}
            <span class="hidden-text">: {t(device)}</span>
          </button>
        </div>
      ))}
    </div>
  );
}

/** Shows that the microphone hears something. Moves outside of rendering: it changes twenty times a second. */
export function LevelMeter({ level }: { level: ReadonlySignal<number> }): JSX.Element {
  const ref = useRef<HTMLDivElement>(null);
  useSignalEffect(() => {
    const shown = Math.min(1, Math.max(0, level.value));
    const meter = ref.current;
    if (!meter) return;
    meter.style.setProperty('--level', shown.toFixed(3));
    meter.setAttribute('aria-valuenow', String(Math.round(shown * 100)));
  });
  return (
    <div
      ref={ref}
      class="level"
      role="meter"
      aria-label={t('microphone-level')}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={0}
    >
      <div class="level-bar" />
    </div>
  );
}
