// Who is in the meeting: a reducer over what the server says. Pure.

import type { Kind, Person, TileId } from './model';
import type { Member, ServerMessage } from './protocol';

export interface Roster {
  /** The own member id; 0 before the first welcome. */
  self: number;
  /** In order of arrival. */
  members: ReadonlyMap<number, Member>;
  speakers: ReadonlySet<number>;
}

export const EMPTY_ROSTER: Roster = { self: 0, members: new Map(), speakers: new Set() };

/** The roster after a message; the same object when nothing changed. */
export function handleMessage(roster: Roster, message: ServerMessage): Roster {
  switch (message.type) {
    case 'welcome':
      return {
        self: message.member,
        members: new Map(message.members.map((member) => [member.id, member])),
        speakers: new Set(),
      };
    case 'joined':
    case 'changed':
      return { ...roster, members: new Map(roster.members).set(message.member.id, message.member) };
    case 'left': {
      if (!roster.members.has(message.member)) return roster;
      const members = new Map(roster.members);
      members.delete(message.member);
      return { ...roster, members };
    }
    case 'speakers':
      return { ...roster, speakers: new Set(message.speakers.map((speaker) => speaker.member)) };
    default:
      return roster;
  }
}

export function sends(roster: Roster, person: number, kind: Kind): boolean {
  return roster.members.get(person)?.ups.some((up) => up.kind === kind && up.active) ?? false;
}

export function isTileActive(roster: Roster, tile: TileId): boolean {
  return sends(roster, tile.person, tile.kind);
}

/** Everyone as the view shows them. Of oneself one knows better, and sooner, than the server does. */
export function people(roster: Roster, own: Record<Kind, boolean>): Person[] {
  return [...roster.members.values()].map((member) => {
    const isSelf = member.id === roster.self;
    const has = (kind: Kind) => (isSelf ? own[kind] : sends(roster, member.id, kind));
    return {
      id: member.id,
      name: member.name,
      isSelf,
      present: isSelf || member.present,
      microphone: has('microphone'),
      camera: has('camera'),
      screen: has('screen'),
      speaking: roster.speakers.has(member.id) && has('microphone'),
    };
  });
}
