// Addresses. A page load is one meeting: going elsewhere is a real navigation, so that leaving by the Back button ends
// cameras, microphones and connections as surely as the Leave button does.

import { pathOfInput } from '../core/names';

/** The path of a meeting. */
export function pathOfMeeting(name: string): string {
  return `/${encodeURIComponent(name)}`;
}

/** The same bridge has several addresses (localhost, the local network), and there are other bridges. */
function linkElsewhere(typed: string): string | null {
  const text = typed.trim();
  if (!/^https?:\/\//i.test(text)) return null;
  try {
    const url = new URL(text);
    return url.pathname === '/' ? null : url.href;
  } catch {
    return null;
  }
}

/** Where what was typed into "Meeting name or link" leads; null if it names no meeting. */
export function destinationOf(typed: string, location: { host: string }): string | null {
  return pathOfInput(typed, location) ?? linkElsewhere(typed);
}
