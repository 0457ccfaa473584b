// What a test of a whole meeting says on the server's behalf.

import { createMeeting } from '../meeting';
import type { Meeting } from '../model';
import type { Environment } from '../env';
import type { Member, ServerMessage, UpKind } from '../protocol';
import { ScriptedBrowser } from './browser';

type Welcome = Extract<ServerMessage, { type: 'welcome' }>;

export const SELF = 1;
export const SILENCE_MS = 15_000;
export const RESUME_MS = 60_000;

export function member(id: number, name: string, ...active: UpKind[]): Member {
  return {
    id,
    name,
    present: true,
    line: 'good',
    ups: active.map((kind) => ({ kind, active: true, height_px: 0 })),
  };
}

export function welcome(members: Member[], changes: Partial<Welcome> = {}): ServerMessage {
  return {
    type: 'welcome',
    version: 1,
    member: SELF,
    resume: 'resume me',
    resumed: false,
    revision: 0,
    meeting: 'tea',
    members: [member(SELF, 'Me'), ...members],
    slots: [],
    wanted: [],
    silence_ms_max: SILENCE_MS,
    resume_ms_max: RESUME_MS,
    ...changes,
  };
}

export class Call {
  readonly browser: ScriptedBrowser;
  readonly meeting: Meeting;

  constructor(browser = new ScriptedBrowser(), changes: Partial<Environment> = {}) {
    this.browser = browser;
    this.meeting = createMeeting(browser.environment(changes));
  }

  /** From the lobby into the meeting, media connected. */
  static async joined(members: Member[], browser = new ScriptedBrowser()): Promise<Call> {
    const call = new Call(browser);
    await browser.settle();
    void call.meeting.join('Me');
    await browser.settle();
    browser.socket.open();
    await browser.settle();
    browser.socket.say(welcome(members));
    await call.answer();
    browser.peer.become('connected');
    await browser.settle();
    return call;
  }

  /** Answers the newest offer. */
  async answer(): Promise<void> {
    const { browser } = this;
    await browser.settle();
    const offer = browser.socket.of('offer').at(-1);
    if (!offer) throw new Error('no offer was sent');
    browser.socket.say({ type: 'answer', revision: offer.revision, sdp: `answer to ${offer.sdp}` });
    await browser.settle();
  }

  say(message: ServerMessage): Promise<void> {
    this.browser.socket.say(message);
    return this.browser.settle();
  }

  notices(): string[] {
    return this.meeting.notices.value.map((notice) => notice.code);
  }

  tile(person: number, kind: 'camera' | 'screen' = 'camera', heightPx = 180) {
    return { tile: { person, kind }, heightPx };
  }

  /** The slots' wishes as the server last heard them, by m-line. */
  wishes(): Record<string, string> {
    const view = this.browser.socket.of('view').at(-1);
    return Object.fromEntries(
      (view?.slots ?? []).flatMap(({ mid, up }) => (up ? [[mid, `${up.peer}:${up.kind}`]] : [])),
    );
  }
}
