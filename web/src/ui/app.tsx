// Which screen is shown. The meeting's phase decides; without a meeting it is the start page.

import { useSignalEffect } from '@preact/signals';
import type { JSX } from 'preact';
import type { Meeting } from '../core/model';
import { JoiningScreen, LeftScreen, RefusedScreen } from './ended';
import { t } from './l10n';
import { LobbyScreen } from './lobby';
import { MeetingScreen } from './meeting';
import { StartPage } from './start';

export function App({ meeting }: { meeting: Meeting | null }): JSX.Element {
  useSignalEffect(() => {
    const name = meeting?.name.value ?? '';
    document.title = name === '' ? t('product-name') : t('page-title', { meeting: name });
  });
  if (!meeting) return <StartPage />;
  switch (meeting.phase.value) {
    case 'lobby':
      return <LobbyScreen meeting={meeting} />;
    case 'joining':
      return <JoiningScreen meeting={meeting} />;
    case 'meeting':
      return <MeetingScreen meeting={meeting} />;
    case 'left':
      return <LeftScreen meeting={meeting} />;
    case 'refused':
      return <RefusedScreen meeting={meeting} />;
  }
}
