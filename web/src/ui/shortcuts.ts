// One-key shortcuts: M for the microphone, V for the camera. They can be switched off, since people who speak to
// their computer would press them by accident (WCAG 2.1.4).

import { signal } from '@preact/signals';
import type { Meeting } from '../core/model';
import { remember, remembered } from './prefs';

const on = signal(remembered('shortcuts') !== 'off');

export const shortcutsOn = on;

export function switchShortcuts(wanted: boolean): void {
  on.value = wanted;
  remember('shortcuts', wanted ? 'on' : 'off');
}

/** Where letters are meant as letters, or where a dialog has the floor. */
function isTaken(target: EventTarget | null): boolean {
  return (
    target instanceof Element &&
    target.closest('input:not([type="checkbox"]), textarea, select, dialog, [contenteditable]') !== null
  );
}

/** Listens until the returned function is called. */
export function listenForShortcuts(meeting: Meeting): () => void {
  const handle = (event: KeyboardEvent): void => {
    if (!on.value || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    if (isTaken(event.target)) return;
    if (event.key === 'm' || event.key === 'M') meeting.setMicrophone(!meeting.microphoneOn.value);
    else if (event.key === 'v' || event.key === 'V') meeting.setCamera(!meeting.cameraOn.value);
    else return;
    event.preventDefault();
  };
  document.addEventListener('keydown', handle);
  return () => document.removeEventListener('keydown', handle);
}
