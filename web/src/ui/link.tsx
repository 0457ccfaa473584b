// "Copy link": what one sends to the others.

import type { JSX } from 'preact';
import { useEffect } from 'preact/hooks';
import { useSignal } from '@preact/signals';
import type { LinksResponse } from '../core/protocol';
import { CheckIcon, LinkIcon } from './icons';
import { Dialog } from './dialog';
import { t } from './l10n';
import { pathOfMeeting } from './route';
import { say } from './toasts';

/** For how long the button shows that it worked, in milliseconds. */
const DONE_SHOWN_MS = 2500;
const THIS_MACHINE = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** What the bridge says about how others reach it; asked once, and only at its own machine. */
let elsewhere: Promise<LinksResponse | null> | undefined;

async function askElsewhere(): Promise<LinksResponse | null> {
  try {
    const response = await fetch('/api/links');
    return response.ok ? ((await response.json()) as LinksResponse) : null;
  } catch {
    return null;
  }
}

interface CopyLinkProps {
  meeting: string;
  class: string;
}

export function CopyLink({ meeting, class: look }: CopyLinkProps): JSX.Element {
  const copied = useSignal(false);
  const showing = useSignal(false);
  const network = useSignal<LinksResponse | null>(null);
  const isLocal = THIS_MACHINE.test(location.hostname);
  // A link to localhost leads nobody else here.
  const link = (network.value?.links[0] ?? location.origin) + pathOfMeeting(meeting);
  // Asked before it is needed: what comes after an answer is no click any more, and may not copy.
  useEffect(() => {
    if (isLocal) void (elsewhere ??= askElsewhere()).then((told) => (network.value = told));
  }, [isLocal, network]);

  const explanation = (): string => {
    if (!isLocal) return t('link-copied');
    if (!network.value?.links.length) return `${t('link-copied')}. ${t('link-local')}`;
    const warning = network.value.own_certificate ? ` ${t('link-certificate')}` : '';
    return `${t('link-copied')}. ${t('link-network')}${warning}`;
  };

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
    say(explanation());
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
