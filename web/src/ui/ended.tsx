// Not in the meeting: left it, could not be in it, or on the way in.

import type { JSX } from 'preact';
import { newMeetingName } from '../core/names';
import type { Meeting } from '../core/model';
import { language, t } from './l10n';
import { Logo } from './logo';
import { Heading, Page } from './page';
import { NextStep, ProblemText, problemText, problemTitle } from './problems';
import { pathOfMeeting } from './route';

function NewMeetingButton(): JSX.Element {
  return (
    <button
      type="button"
      class="button large"
      onClick={() => location.assign(pathOfMeeting(newMeetingName(language.value)))}
    >
      {t('new-meeting')}
    </button>
  );
}

export function LeftScreen({ meeting }: { meeting: Meeting }): JSX.Element {
  return (
    <Page screen="left">
      <div class="welcome">
        <Logo large />
        <Heading focused>{t('left-title')}</Heading>
        <p class="lead">{t('left-text')}</p>
        <div class="actions">
          <button type="button" class="button primary large" onClick={() => meeting.rejoin()}>
            {t('rejoin')}
          </button>
          <NewMeetingButton />
        </div>
      </div>
    </Page>
  );
}

export function RefusedScreen({ meeting }: { meeting: Meeting }): JSX.Element {
  const problem = meeting.problem.value ?? 'internal';
  return (
    <Page screen="refused">
      <div class="welcome">
        <Logo large />
        <Heading focused>{problemTitle(problem)}</Heading>
        <p class="lead">{problemText(problem)}</p>
        <div class="actions">
          <NextStep meeting={meeting} problem={problem} />
          <a class="button large" href="/">
            {t('start-page')}
          </a>
        </div>
      </div>
    </Page>
  );
}

export function JoiningScreen({ meeting }: { meeting: Meeting }): JSX.Element {
  const problem = meeting.problem.value;
  return (
    <Page screen="joining">
      <div class="welcome" aria-busy="true">
        <Logo large />
        <Heading focused>{t('joining')}</Heading>
        <p class="lead" dir="auto">
          {meeting.name.value}
        </p>
        {problem !== null && (
          <div class="callout" role="status">
            <ProblemText problem={problem} />
          </div>
        )}
      </div>
    </Page>
  );
}
