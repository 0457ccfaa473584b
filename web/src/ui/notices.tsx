// The sentences that come and go, and the region that screen readers read them from.

import type { JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import type { Meeting, Notice } from '../core/model';
import { CloseIcon } from './icons';
import { t } from './l10n';
import { readingTimeMs, toasts, unsay } from './toasts';

const TEXT: Record<Notice['code'], string> = {
  'someone-joined': 'notice-someone-joined',
  'someone-left': 'notice-someone-left',
  'camera-lost': 'notice-camera-lost',
  'microphone-lost': 'notice-microphone-lost',
  'share-ended': 'notice-share-ended',
  'share-failed': 'notice-share-failed',
  'camera-denied': 'camera-denied',
  'camera-missing': 'camera-missing',
  'camera-busy': 'camera-busy',
  'microphone-denied': 'microphone-denied',
  'microphone-missing': 'microphone-missing',
  'microphone-busy': 'microphone-busy',
  'speaking-while-muted': 'notice-speaking-while-muted',
  reconnected: 'notice-reconnected',
  'server-refused': 'notice-server-refused',
};

/** More sentences than this at once would hide the people; the oldest give way. */
const SHOWN_MAX = 3;

function Sentence({ text, onDone }: { text: string; onDone: () => void }): JSX.Element {
  const done = useRef(onDone);
  done.current = onDone;
  useEffect(() => {
    const timer = setTimeout(() => done.current(), readingTimeMs(text));
    return () => clearTimeout(timer);
  }, [text]);
  return (
    <div class="notice">
      <p dir="auto">{text}</p>
      <button type="button" class="icon-button" aria-label={t('close')} onClick={() => done.current()}>
        <CloseIcon />
      </button>
    </div>
  );
}

export function Notices({ meeting }: { meeting: Meeting }): JSX.Element {
  const sentences = [
    ...meeting.notices.value.map((notice) => ({
      key: `meeting-${notice.id}`,
      text: t(TEXT[notice.code], { name: notice.name?.trim() || t('guest') }),
      done: () => meeting.dismiss(notice.id),
    })),
    ...toasts.value.map((toast) => ({
      key: `view-${toast.id}`,
      text: toast.text,
      done: () => unsay(toast.id),
    })),
  ];
  const hidden = sentences.slice(0, -SHOWN_MAX);
  const oldest = hidden[0];
  useEffect(() => oldest?.done(), [oldest?.key]);
  return (
    <div class="notices" role="log" aria-live="polite">
      {sentences.slice(-SHOWN_MAX).map(({ key, text, done }) => (
        <Sentence key={key} text={text} onDone={done} />
      ))}
    </div>
  );
}
