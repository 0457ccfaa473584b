// The language switch, the same on every page.

import type { JSX } from 'preact';
import { LanguageIcon } from './icons';
import { LANGUAGES, language, speak, t, type Language } from './l10n';

export function LanguageSwitch({ named = false }: { named?: boolean }): JSX.Element {
  return (
    <label class={named ? 'language named' : 'language'}>
      <LanguageIcon />
      <span class={named ? undefined : 'hidden-text'}>{t('language')}</span>
      <select value={language.value} onChange={(event) => speak(event.currentTarget.value as Language)}>
        {LANGUAGES.map(({ code, name }) => (
          <option key={code} value={code} lang={code}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}
