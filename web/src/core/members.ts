// Who is in the meeting: a reducer over what the server says. Pure.

import type { Kind, Person, TileId } from './model';
import type { Member, ServerMessage } from './protocol';

export interface Roster {
  /** The own member id; 0 before the first welcome. */
  self: number;
  /** In order of arrival. */
  members: ReadonlyMap<number, Member>;
  speakers: ReadonlySet<number>;
  /**
   * Those who were here before the server went away and have not come back yet. For a few seconds they are shown as
   * if they were, since they are on their way as we were: `handleReturn` begins it, `endReturn` ends it.
   */
  returning: ReadonlyMap<number, Member>;
}

export const EMPTY_ROSTER: Roster = {
  self: 0,
  members: new Map(),
  speakers: new Set(),
  returning: new Map(),
};

/** For how long after a loss people are waited for before it is said that they left: twice what a restart takes. */
export const RETURN_MS_MAX = 10_000;

/** The roster after a message; the same object when nothing changed. */
export function handleMessage(roster: Roster, message: ServerMessage): Roster {
  switch (message.type) {
    case 'welcome':
      return {
        self: message.member,
        members: new Map(message.members.map((member) => [member.id, member])),
        speakers: new Set(),
        returning: new Map(),
      };
    case 'joined':
    case 'changed': {
      const { member } = message;
      const members = new Map(roster.members).set(member.id, member);
      const returned = returnedAs(roster, member);
      return returned === null ? { ...roster, members } : { ...without(roster, returned), members };
    }
    case 'left': {
      if (!roster.members.has(message.member)) return without(roster, message.member);
      const members = new Map(roster.members);
      members.delete(message.member);
      return { ...without(roster, message.member), members };
    }
    case 'lines': {
      const members = new Map(roster.members);
      for (const { member, line } of message.lines) {
        const known = members.get(member);
        if (known) members.set(member, { ...known, line });
      }
      return { ...roster, members };
    }
    case 'speakers':
      return { ...roster, speakers: new Set(message.speakers.map((speaker) => speaker.member)) };
    default:
      return roster;
  }
}

/** The roster of a welcome after the line was lost: who was here before is on the way back. */
export function handleReturn(before: Roster, after: Roster): Roster {
  const names = new Set(
    [...after.members.values()].filter(({ id }) => !before.members.has(id)).map(({ name }) => name),
  );
  const returning = [...before.members.values(), ...before.returning.values()].filter(
    ({ id, name, present }) => {
      if (id === before.self || id === after.self) return false;
      const now = after.members.get(id);
      // Under another number it is the same person when the name is.
      return now ? !now.present && (present || before.returning.has(id)) : !names.has(name);
    },
  );
  return { ...after, returning: new Map(returning.map((member) => [member.id, member])) };
}

/** Who was waited for in vain: nobody is any more. */
export function endReturn(roster: Roster): { roster: Roster; gone: Member[] } {
  const gone = [...roster.returning.values()].filter(({ id }) => !roster.members.has(id));
  return { roster: roster.returning.size === 0 ? roster : { ...roster, returning: new Map() }, gone };
}

/** The number under which someone who arrives was waited for; null for someone who was not. */
export function returnedAs(roster: Roster, member: Member): number | null {
  if (!member.present) return null;
  if (roster.returning.has(member.id)) return member.id;
  if (roster.members.has(member.id)) return null;
  const same = [...roster.returning.values()].find(
    ({ id, name }) => name === member.name && !roster.members.has(id),
  );
  return same?.id ?? null;
}

function without(roster: Roster, id: number): Roster {
  if (!roster.returning.has(id)) return roster;
  const returning = new Map(roster.returning);
  returning.delete(id);
  return { ...roster, returning };
}

export function sends(roster: Roster, person: number, kind: Kind): boolean {
  return roster.members.get(person)?.ups.some((up) => up.kind === kind && up.active) ?? false;
}

export function isTileActive(roster: Roster, tile: TileId): boolean {
  return sends(roster, tile.person, tile.kind);
}

/** Everyone as the view shows them. Of oneself one knows better, and sooner, than the server does. */
export function people(roster: Roster, own: Record<Kind, boolean>): Person[] {
  const absent = [...roster.returning.values()].filter(({ id }) => !roster.members.has(id));
  return [...roster.members.values(), ...absent].map((member) => {
    const isSelf = member.id === roster.self;
    const isReturning = roster.returning.has(member.id);
    const has = (kind: Kind) => (isSelf ? own[kind] : member.ups.some((up) => up.kind === kind && up.active));
    return {
      id: member.id,
      name: member.name,
      isSelf,
      present: isSelf || member.present || isReturning,
      microphone: has('microphone'),
      camera: has('camera'),
      screen: has('screen'),
      speaking: roster.speakers.has(member.id) && has('microphone'),
      line: isReturning ? 'good' : member.line,
    };
  });
}
