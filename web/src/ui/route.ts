// Addresses. A page load is one meeting: going elsewhere is a real navigation, so that leaving by the Back button ends
// cameras, microphones and connections as surely as the Leave button does.

import { isMeetingName, meetingOfPath } from '../core/names';

/** A link without its scheme: `localhost:8443/tea`, `meet.example.org/tea`. */
const HOST_FIRST = /^(localhost|\[[0-9a-f:]+\]|[a-z0-9-]+(\.[a-z0-9-]+)+)(:\d+)?\//i;

/** The path of a meeting. */
export function pathOfMeeting(name: string): string {
  return `/${encodeURIComponent(name)}`;
}

function pathOf(name: string): string | null {
  return isMeetingName(name) ? pathOfMeeting(name) : null;
}

/**
 * Where what was typed into "Meeting name or link" leads; null if it names no meeting.
 *
 * A name, a path or a link to this server leads to a path of it; a link to another address is followed as it is: one
 * bridge has several (localhost, the local network), and there are other bridges.
 */
export function destinationOf(typed: string, location: { protocol: string; host: string }): string | null {
  const text = typed.trim();
  const hasScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(text);
  if (!hasScheme && !HOST_FIRST.test(text)) {
    const name = text.replace(/^\/+|\/+$/g, '');
    return name.includes('/') ? null : pathOf(meetingOfPath(`/${name}`));
  }
  let url: URL;
  try {
    url = new URL(hasScheme ? text : `${location.protocol}//${text}`);
  } catch {
    return null;
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return null;
  const path = pathOf(meetingOfPath(url.pathname));
  // Host and not origin: the same bridge answers http and https on the same port.
  return path === null || url.host === location.host ? path : url.origin + path;
}
