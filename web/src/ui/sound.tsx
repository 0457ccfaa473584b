// What is heard: one hidden <audio> for each audio slot, on the chosen speaker.

import type { JSX } from 'preact';
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import type { Meeting } from '../core/model';
import { SoundIcon } from './icons';
import { t } from './l10n';
import { keepPlaying } from './playing';

interface AudioProps {
  stream: MediaStream;
  speaker: string;
  /** Counts up when the person asks for sound again. */
  attempt: number;
  onBlocked: () => void;
}

function Audio({ stream, speaker, attempt, onBlocked }: AudioProps): JSX.Element {
  const ref = useRef<HTMLAudioElement>(null);
  useLayoutEffect(() => {
    const audio = ref.current;
    if (!audio) return;
    if (audio.srcObject !== stream) audio.srcObject = stream;
    return keepPlaying(audio, stream);
  }, [stream]);
  useEffect(() => {
    ref.current?.play().catch((error: unknown) => {
      // Anything else (AbortError) means that a newer stream took its place.
      if (error instanceof DOMException && error.name === 'NotAllowedError') onBlocked();
    });
  }, [stream, attempt, onBlocked]);
  useEffect(() => {
    // Not every browser can choose; a speaker that is gone leaves the sound where it was.
    const audio = ref.current;
    if (audio && 'setSinkId' in audio) void audio.setSinkId(speaker).catch(() => undefined);
  }, [speaker]);
  return <audio ref={ref} autoplay />;
}

export function Sound({ meeting }: { meeting: Meeting }): JSX.Element {
  const blocked = useRef(() => meeting.soundWasBlocked()).current;
  const attempt = meeting.soundBlocked.value ? 0 : 1;
  return (
    <div hidden>
      {meeting.audios.value.map((stream) => (
        <Audio
          key={stream.id}
          stream={stream}
          speaker={meeting.devices.speaker.value.chosen}
          attempt={attempt}
          onBlocked={blocked}
        />
      ))}
    </div>
  );
}

/** Shown while the browser holds the sound back; the press is the gesture it waits for. */
export function SoundBlocked({ meeting }: { meeting: Meeting }): JSX.Element | null {
  if (!meeting.soundBlocked.value) return null;
  return (
    <div class="banner" role="alert">
      <p>{t('sound-blocked')}</p>
      <button type="button" class="button small" onClick={() => meeting.resumeSound()}>
        <SoundIcon />
        {t('turn-on-sound')}
      </button>
    </div>
  );
}
