// Why one cannot be in a meeting, in words, and the next step: one row a problem.

import type { JSX } from 'preact';
import type { Meeting, Problem } from '../core/model';
import { t } from './l10n';

type Step = 'rejoin' | 'reload' | 'secure' | 'none';

const PROBLEMS: Record<Problem, { title: string; text: string; step: Step }> = {
  'meeting-full': { title: 'problem-meeting-full-title', text: 'problem-meeting-full-text', step: 'rejoin' },
  'server-full': { title: 'problem-server-full-title', text: 'problem-server-full-text', step: 'rejoin' },
  'bad-name': { title: 'problem-bad-name-title', text: 'problem-bad-name-text', step: 'none' },
  'server-unreachable': {
    title: 'problem-server-unreachable-title',
    text: 'problem-server-unreachable-text',
    step: 'rejoin',
  },
  'outdated-client': {
    title: 'problem-outdated-client-title',
    text: 'problem-outdated-client-text',
    step: 'reload',
  },
  replaced: { title: 'problem-replaced-title', text: 'problem-replaced-text', step: 'rejoin' },
  'no-webrtc': { title: 'problem-no-webrtc-title', text: 'problem-no-webrtc-text', step: 'none' },
  'insecure-context': {
    title: 'problem-insecure-context-title',
    text: 'problem-insecure-context-text',
    step: 'secure',
  },
  'media-failed': { title: 'problem-media-failed-title', text: 'problem-media-failed-text', step: 'rejoin' },
  'server-stopping': {
    title: 'problem-server-stopping-title',
    text: 'problem-server-stopping-text',
    step: 'rejoin',
  },
  internal: { title: 'problem-internal-title', text: 'problem-internal-text', step: 'rejoin' },
};

export function problemTitle(problem: Problem): string {
  return t(PROBLEMS[problem].title);
}

export function problemText(problem: Problem): string {
  return t(PROBLEMS[problem].text);
}

export function ProblemText({ problem }: { problem: Problem }): JSX.Element {
  return (
    <>
      <p class="callout-title">{problemTitle(problem)}</p>
      <p>{problemText(problem)}</p>
    </>
  );
}

/** The same page over https: the bridge answers both on one port. */
export function SecurePageLink(): JSX.Element {
  return (
    <a class="button small" href={`https://${location.host}${location.pathname}`}>
      {t('open-secure-page')}
    </a>
  );
}

/** The button for what can be done about it, if anything can. */
export function NextStep({ meeting, problem }: { meeting: Meeting; problem: Problem }): JSX.Element | null {
  switch (PROBLEMS[problem].step) {
    case 'rejoin':
      return (
        <button type="button" class="button primary large" onClick={() => meeting.rejoin()}>
          {t('try-again')}
        </button>
      );
    case 'reload':
      return (
        <button type="button" class="button primary large" onClick={() => location.reload()}>
          {t('reload-page')}
        </button>
      );
    case 'secure':
      return <SecurePageLink />;
    case 'none':
      return null;
  }
}
