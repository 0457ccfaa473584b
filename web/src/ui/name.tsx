// "Your name": asked before joining, changed in the settings, remembered by this browser.

import type { JSX } from 'preact';
import { t } from './l10n';
import { remember, remembered } from './prefs';

/** The bridge cuts longer names at the same bound. */
const NAME_CHARS_MAX = 64;

export function rememberedName(): string {
  return remembered('name') ?? '';
}

interface NameFieldProps {
  value: string;
  onInput: (name: string) => void;
  /** When the person is done typing. */
  onDone?: (name: string) => void;
}

export function NameField({ value, onInput, onDone }: NameFieldProps): JSX.Element {
  return (
    <div class="field">
      <label for="your-name">{t('your-name')}</label>
      <input
        id="your-name"
        type="text"
        value={value}
        maxLength={NAME_CHARS_MAX}
        autocomplete="name"
        autocapitalize="words"
        spellcheck={false}
        dir="auto"
        aria-describedby="your-name-hint"
        onInput={(event) => {
          onInput(event.currentTarget.value);
          remember('name', event.currentTarget.value.trim());
        }}
        onChange={(event) => onDone?.(event.currentTarget.value.trim())}
      />
      <p id="your-name-hint" class="hint">
        {t('your-name-hint')}
      </p>
    </div>
  );
}
