// "Copy link": what one sends to the others.

import type { JSX } from 'preact';
import { useSignal } from '@preact/signals';
import { CheckIcon, LinkIcon } from './icons';
import { Dialog } from './dialog';
import { t } from './l10n';
import { pathOfMeeting } from './route';
import { say } from './toasts';

/** For how long the button shows that it worked, in milliseconds. */
const DONE_SHOWN_MS = 2500;
const THIS_MACHINE = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

interface CopyLinkProps {
  meeting: string;
  class: string;
}

export function CopyLink({ meeting, class: look }: CopyLinkProps): JSX.Element {
  const copied = useSignal(false);
  const showing = useSignal(false);
  const link = location.origin + pathOfMeeting(meeting);

  const copy = async (): Promise<void> => {
    try {
      // Missing altogether on pages that are not secure.
      await navigator.clipboard.writeText(link);
    } catch {
      showing.value = true;
      return;
    }
    copied.value = true;
    setTimeout(() => (copied.value = false), DONE_SHOWN_MS);
    say(THIS_MACHINE.test(location.hostname) ? `${t('link-copied')}. ${t('link-local')}` : t('link-copied'));
  };

  return (
    <>
      <button type="button" class={look} data-done={copied.value || undefined} onClick={() => void copy()}>
        {copied.value ? <CheckIcon /> : <LinkIcon />}
        <span class="button-label">{t('copy-link')}</span>
      </button>
      {showing.value && (
        <Dialog title={t('copy-link')} onClose={() => (showing.value = false)}>
          <div class="field">
            <label for="link-field">{t('copy-link-yourself')}</label>
            <input
              id="link-field"
              type="text"
              readOnly
              autofocus
              value={link}
              onFocus={(event) => event.currentTarget.select()}
            />
          </div>
        </Dialog>
      )}
    </>
  );
}
