// The start page: a new meeting, or the way into one that exists.

import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import { newMeetingName } from '../core/names';
import { ArrowIcon } from './icons';
import { language, t } from './l10n';
import { Logo } from './logo';
import { Page } from './page';
import { destinationOf, pathOfMeeting } from './route';

export function StartPage(): JSX.Element {
  const [typed, setTyped] = useState('');
  const [unusable, setUnusable] = useState(false);

  const open = (event: Event): void => {
    event.preventDefault();
    const destination = destinationOf(typed, location);
    if (destination === null) setUnusable(true);
    else location.assign(destination);
  };

  return (
    <Page screen="start">
      <div class="welcome">
        <Logo large />
        <h1>{t('product-name')}</h1>
        <p class="lead">{t('start-sentence')}</p>
        <button
          type="button"
          class="button primary large"
          onClick={() => location.assign(pathOfMeeting(newMeetingName(language.value)))}
        >
          {t('new-meeting')}
        </button>
        <form class="open-form" onSubmit={open} noValidate>
          <label for="open-meeting">{t('meeting-name-or-link')}</label>
          <div class="field-row">
            <input
              id="open-meeting"
              type="text"
              value={typed}
              autocomplete="off"
              autocapitalize="none"
              spellcheck={false}
              enterkeyhint="go"
              required
              aria-invalid={unusable}
              aria-describedby={unusable ? 'open-meeting-help' : undefined}
              onInput={(event) => {
                setTyped(event.currentTarget.value);
                setUnusable(false);
              }}
            />
            <button type="submit" class="button">
              {t('open')}
              <ArrowIcon />
            </button>
          </div>
          <p id="open-meeting-help" class="hint" role="status">
            {unusable ? t('name-not-usable') : ''}
          </p>
        </form>
        <p class="quiet">{t('start-house')}</p>
      </div>
    </Page>
  );
}
