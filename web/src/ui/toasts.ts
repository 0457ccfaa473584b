// Sentences said once: they appear, are read out politely, and go by themselves.

import { signal } from '@preact/signals';

export interface Toast {
  id: number;
  text: string;
}

/** How long a sentence stays, in milliseconds: a base to notice it and time to read each character. */
export function readingTimeMs(text: string): number {
  return 3000 + 60 * text.length;
}

const said = signal<readonly Toast[]>([]);
let lastId = 0;

/** What the view itself has to say ("Link copied"); the meeting's own notices are in `Meeting.notices`. */
export const toasts = said;

export function say(text: string): void {
  lastId += 1;
  said.value = [...said.value.filter((toast) => toast.text !== text), { id: lastId, text }];
}

export function unsay(id: number): void {
  said.value = said.value.filter((toast) => toast.id !== id);
}
