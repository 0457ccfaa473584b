// The settings: devices, name, language, keyboard.

import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { Meeting } from '../core/model';
import { DeviceChoices, DeviceTroubles } from './devices';
import { Dialog } from './dialog';
import { LanguageSwitch } from './language';
import { t } from './l10n';
import { NameField } from './name';
import { shortcutsOn, switchShortcuts } from './shortcuts';

export function Settings({ meeting, onClose }: { meeting: Meeting; onClose: () => void }): JSX.Element {
  const self = meeting.people.value.find((person) => person.isSelf);
  const [name, setName] = useState(self?.name ?? '');
  return (
    <Dialog title={t('settings')} onClose={onClose}>
      <section aria-label={t('settings-devices')}>
        <DeviceTroubles meeting={meeting} />
        <DeviceChoices meeting={meeting} meter />
      </section>
      <section>
        <NameField value={name} onInput={setName} onDone={(done) => meeting.rename(done)} />
        <LanguageSwitch named />
      </section>
      <section>
        <h3>{t('settings-keyboard')}</h3>
        <label class="check">
          <input
            type="checkbox"
            checked={shortcutsOn.value}
            onChange={(event) => switchShortcuts(event.currentTarget.checked)}
          />
          <span>{t('shortcuts-switch')}</span>
        </label>
        <p class="hint">{t('shortcuts-help')}</p>
      </section>
    </Dialog>
  );
}
