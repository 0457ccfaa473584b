// Bad lines and walls, through a whole meeting and a scripted browser.

import { describe, expect, test } from 'vitest';
import { RETURN_MS_MAX } from './members';
import type { ServerMessage } from './protocol';
import { ScriptedBrowser, ScriptedStorage, type ScriptedPeer } from './testing/browser';
import { Call, SELF, member, welcome } from './testing/call';

const ANA = member(2, 'Ana', 'microphone', 'camera');
const RELAY = { username: '1795534876:tea', credential: 'secret', tls: true };

const carries = (mid: string, peer: number, paused = false): ServerMessage => ({
  type: 'slots',
  slots: [{ mid, up: { peer, kind: 'camera' }, paused }],
});

/** The server lets this peer hear something each 500 ms, until the line goes dead. */
function beat(browser: ScriptedBrowser, peer: ScriptedPeer): { stop(): void } {
  let stoppedAt = Infinity;
  peer.received = () => Math.floor(Math.min(browser.timeMs, stoppedAt) / 500);
  return { stop: () => (stoppedAt = browser.timeMs) };
}

describe('silence', () => {
  test('of two seconds restarts ICE and asks the socket, while nothing is said', async () => {
    const call = await Call.joined([ANA]);
    const { browser } = call;
    const line = beat(browser, browser.peer);
    await browser.pass(6_000);
    expect(browser.peer.iceRestarts).toBe(0);
    line.stop();
    await browser.pass(2_800);
    expect(browser.peer.iceRestarts).toBe(1);
    expect(browser.socket.of('ping')).toHaveLength(1);
    expect(browser.socket.of('offer').at(-1)?.revision).toBe(2);
    expect(call.meeting.link.value).toBe('up');
    await call.say({ type: 'pong', nonce: 1 });
    await call.answer();
    beat(browser, browser.peer);
    await browser.pass(10_000);
    expect([browser.peers.length, browser.peer.iceRestarts, browser.sockets.length]).toEqual([1, 1, 1]);
    expect(call.meeting.link.value).toBe('up');
  });

  test('on a socket that is dead as well opens another at once, and the restart goes out there', async () => {
    const call = await Call.joined([ANA]);
    const { browser } = call;
    const line = beat(browser, browser.peer);
    await browser.pass(6_000);
    line.stop();
    await browser.pass(4_000);
    expect(browser.sockets).toHaveLength(2);
    expect(call.meeting.link.value).toBe('reconnecting');
    browser.socket.open();
    await call.say(welcome([ANA], { resumed: true, revision: 1 }));
    expect(browser.socket.of('offer')).toMatchObject([{ revision: 3, sdp: 'peer 1 offer 2' }]);
    expect(browser.peers).toHaveLength(1);
  });

  test('that a restart does not end leads to a new peer connection, and is told', async () => {
    const call = await Call.joined([ANA]);
    const { browser } = call;
    const line = beat(browser, browser.peer);
    await browser.pass(6_000);
    line.stop();
    await browser.pass(2_800);
    await call.say({ type: 'pong', nonce: 1 });
    await call.answer();
    await browser.pass(2_000);
    expect(call.meeting.link.value).toBe('media-reconnecting');
    await browser.pass(4_500);
    expect(browser.peers).toHaveLength(2);
    await call.answer();
    browser.peer.become('connected');
    expect(call.meeting.link.value).toBe('up');
    expect(browser.peers[0]?.connectionState).toBe('closed');
  });

  test('of a server that keeps no beat is nothing', async () => {
    const call = await Call.joined([]);
    await call.browser.pass(14_000);
    expect(call.browser.peer.iceRestarts).toBe(0);
    expect(call.browser.socket.of('ping')).toEqual([]);
  });

  test('is not listened for after leaving', async () => {
    const call = await Call.joined([ANA]);
    let reads = 0;
    call.browser.peer.received = () => (reads += 1);
    await call.browser.pass(2_000);
    expect(reads).toBeGreaterThan(2);
    call.meeting.leave();
    const before = reads;
    await call.browser.pass(5_000);
    expect(reads).toBe(before);
  });
});

test('a page that is looked at again asks its socket', async () => {
  const call = await Call.joined([]);
  call.browser.doubt();
  expect(call.browser.socket.of('ping')).toHaveLength(1);
});

describe('a server that was restarted', () => {
  /** The socket is lost and opened again a moment later. */
  async function restart(call: Call): Promise<void> {
    call.browser.socket.drop();
    await call.browser.pass(1_000);
    call.browser.socket.open();
    await call.browser.settle();
  }

  test('keeps everyone in view: no one leaves, no one joins, nothing flickers', async () => {
    const call = await Call.joined([ANA, member(3, 'Bo')]);
    await call.say(carries('7', 2));
    const people = () =>
      call.meeting.people.value.map(({ name, present }) => `${name}${present ? '' : ' (away)'}`);
    await restart(call);
    await call.say(welcome([{ ...ANA, present: false }], { resumed: true, revision: 1 }));
    await call.say({ type: 'media', state: 'lost' });
    expect(people()).toEqual(['Me', 'Ana', 'Bo']);
    expect(call.meeting.videos.value.has('2:camera')).toBe(true);
    expect(call.browser.peers).toHaveLength(2);
    await call.say({ type: 'changed', member: ANA });
    await call.say({ type: 'joined', member: member(3, 'Bo') });
    await call.answer();
    call.browser.peer.become('connected');
    await call.say(carries('7', 2));
    await call.browser.pass(RETURN_MS_MAX + 1);
    expect(people()).toEqual(['Me', 'Ana', 'Bo']);
    expect(call.meeting.videos.value.has('2:camera')).toBe(true);
    expect(call.notices()).toEqual(['reconnected']);
    expect(call.browser.media.requests).toHaveLength(2);
  });

  test('waits for those who do not come back, then says that they left', async () => {
    const call = await Call.joined([ANA, member(3, 'Bo')]);
    await restart(call);
    await call.say(welcome([ANA], { resumed: true, revision: 1 }));
    expect(call.meeting.people.value).toHaveLength(3);
    await call.browser.pass(RETURN_MS_MAX - 1);
    expect(call.meeting.people.value).toHaveLength(3);
    await call.browser.pass(1);
    expect(call.meeting.people.value).toHaveLength(2);
    expect(call.notices()).toEqual(['reconnected', 'someone-left']);
  });

  test('never asks the server for a picture of someone whom it does not have yet', async () => {
    const call = await Call.joined([ANA]);
    await restart(call);
    await call.say(welcome([], { resumed: true, revision: 1 }));
    await call.browser.pass(1_000);
    expect(Object.values(call.wishes())).toEqual([]);
  });

  test('keeps an old picture for a few seconds only when no new one comes', async () => {
    const call = await Call.joined([ANA]);
    await call.say(carries('7', 2));
    await call.say({ type: 'media', state: 'lost' });
    await call.answer();
    call.browser.peer.become('connected');
    expect(call.meeting.videos.value.has('2:camera')).toBe(true);
    await call.browser.pass(3_000);
    expect(call.meeting.videos.value.has('2:camera')).toBe(false);
  });
});

describe('a server that makes place for another', () => {
  async function moving(resumed: boolean): Promise<Call> {
    const call = await Call.joined([ANA]);
    await call.say(carries('7', 2));
    await call.say({ type: 'bye', reason: 'moving' });
    call.browser.socket.open();
    await call.say(welcome([ANA], { resumed, revision: resumed ? 1 : 0 }));
    await call.answer();
    return call;
  }

  test.each([true, false])(
    'goes on playing the old until the new has something to play (%s)',
    async (resumed) => {
      const call = await moving(resumed);
      const { browser, meeting } = call;
      const [old, fresh] = browser.peers;
      if (!old || !fresh) throw new Error('no second peer connection');
      const playing = () => (meeting.audios.value[0]?.getTracks() ?? []) as unknown[];
      expect(old.transceivers[0]?.sender.track).not.toBeNull();
      expect(meeting.videos.value.has('2:camera')).toBe(true);
      fresh.become('connected');
      expect(playing()).toEqual([old.transceivers[3]?.receiver.track]);
      fresh.flow(3);
      expect(playing()).toEqual([fresh.transceivers[3]?.receiver.track]);
      expect(meeting.link.value).toBe('up');
      // Others may not have moved yet: they still hear us on the old one.
      expect(old.connectionState).not.toBe('closed');
      expect(old.transceivers[0]?.sender.track).not.toBeNull();
      await browser.pass(2_000);
      expect(old.connectionState).toBe('closed');
      expect(call.notices()).toEqual([]);
    },
  );

  test.each([true, false])(
    'is heard on the old one though the new one is lost again (%s)',
    async (resumed) => {
      const call = await moving(true);
      const { browser } = call;
      const [old] = browser.peers;
      browser.socket.drop();
      await browser.pass(1_000);
      browser.socket.open();
      await call.say(welcome([ANA], { resumed, revision: resumed ? 2 : 0 }));
      await call.say({ type: 'media', state: 'lost' });
      await call.answer();
      expect(browser.peers.length).toBeGreaterThan(2);
      expect(old?.transceivers[0]?.sender.track).not.toBeNull();
      browser.peer.become('connected');
      const playing = () => call.meeting.audios.value[0]?.getTracks() as unknown[];
      expect(playing()).toEqual([old?.transceivers[3]?.receiver.track]);
      browser.peer.flow(3);
      expect(playing()).toEqual([browser.peer.transceivers[3]?.receiver.track]);
      expect(old?.connectionState).not.toBe('closed');
    },
  );

  test('goes on playing the old until everyone’s voice has come over', async () => {
    const berta = member(3, 'Berta', 'microphone');
    const muted = member(4, 'Carla', 'camera');
    const call = await Call.joined([ANA, berta, muted]);
    await call.say({ type: 'bye', reason: 'moving' });
    call.browser.socket.open();
    await call.say(welcome([ANA]));
    await call.answer();
    const [old, fresh] = call.browser.peers;
    fresh?.become('connected');
    const playing = () => call.meeting.audios.value[0]?.getTracks() as unknown[];
    fresh?.flow(3);
    fresh?.flow(8);
    expect(playing()).toEqual([old?.transceivers[3]?.receiver.track]);
    await call.say({ type: 'joined', member: berta });
    expect(playing()).toEqual([old?.transceivers[3]?.receiver.track]);
    fresh?.flow(4);
    expect(playing()).toEqual([fresh?.transceivers[3]?.receiver.track]);
  });

  test('plays a picture that came before the change though it is muted by then', async () => {
    const call = await moving(true);
    const [old, fresh] = call.browser.peers;
    const playing = () => call.meeting.videos.value.get('2:camera')?.getTracks() as unknown[];
    fresh?.flow(7);
    const track = fresh?.transceivers[7]?.receiver.track;
    if (!track) throw new Error('no such slot');
    track.muted = true;
    expect(playing()).toEqual([old?.transceivers[7]?.receiver.track]);
    fresh?.become('connected');
    fresh?.flow(3);
    expect(playing()).toEqual([track]);
  });

  test('waits for the rest of the voices no longer than those who went ahead linger', async () => {
    const call = await Call.joined([ANA, member(3, 'Berta', 'microphone')]);
    await call.say({ type: 'bye', reason: 'moving' });
    call.browser.socket.open();
    await call.say(welcome([ANA]));
    await call.answer();
    const [old, fresh] = call.browser.peers;
    // The browser may tell of sound before it tells that the transport is there.
    fresh?.flow(3);
    fresh?.become('connected');
    const playing = () => call.meeting.audios.value[0]?.getTracks() as unknown[];
    await call.browser.pass(1_400);
    expect(playing()).toEqual([old?.transceivers[3]?.receiver.track]);
    await call.browser.pass(100);
    expect(playing()).toEqual([fresh?.transceivers[3]?.receiver.track]);
  });

  test('does not wait for ever where nobody speaks', async () => {
    const call = await moving(true);
    const [old, fresh] = call.browser.peers;
    fresh?.become('connected');
    const playing = () => call.meeting.audios.value[0]?.getTracks() as unknown[];
    await call.browser.pass(4_900);
    expect(playing()).toEqual([old?.transceivers[3]?.receiver.track]);
    await call.browser.pass(100);
    expect(playing()).toEqual([fresh?.transceivers[3]?.receiver.track]);
    await call.browser.pass(2_000);
    expect(old?.connectionState).toBe('closed');
  });

  test('waits no longer once the old one has ended', async () => {
    const call = await moving(true);
    const [old, fresh] = call.browser.peers;
    old?.become('disconnected');
    expect(call.meeting.audios.value[0]?.getTracks()).toEqual([old?.transceivers[3]?.receiver.track]);
    fresh?.become('connected');
    old?.become('failed');
    expect(call.meeting.audios.value[0]?.getTracks()).toEqual([fresh?.transceivers[3]?.receiver.track]);
  });

  test('and then is left closes both', async () => {
    const call = await moving(true);
    call.meeting.leave();
    expect(call.browser.peers.map((peer) => peer.connectionState)).toEqual(['closed', 'closed']);
  });
});

describe('layers', () => {
  const active = (call: Call, line: number) => call.browser.peer.transceivers[line]?.sender.active();

  test('are all on until the server says what is wanted, and then follow it', async () => {
    const call = await Call.joined([ANA]);
    expect(active(call, 1)).toEqual([true, true, true]);
    await call.say({ type: 'wanted', ups: [{ kind: 'camera', layers: [true, false, false], bps_max: [] }] });
    expect([active(call, 1), active(call, 2)]).toEqual([[true, false, false], [true]]);
    await call.say({
      type: 'wanted',
      ups: [
        { kind: 'camera', layers: [false, true, true], bps_max: [] },
        { kind: 'screen', layers: [false], bps_max: [] },
      ],
    });
    expect([active(call, 1), active(call, 2)]).toEqual([[false, true, true], [false]]);
  });

  test('are as the welcome has them after a lost socket', async () => {
    const call = await Call.joined([ANA]);
    call.browser.socket.drop();
    await call.browser.pass(1_000);
    call.browser.socket.open();
    const wanted = [{ kind: 'camera' as const, layers: [true, true, false], bps_max: [] }];
    await call.say(welcome([ANA], { resumed: true, revision: 1, wanted }));
    expect(active(call, 1)).toEqual([true, true, false]);
  });

  test('are sent with no more than is wanted of them, and whole in a new peer connection', async () => {
    const call = await Call.joined([ANA]);
    const rates = (line: number) => call.browser.peer.transceivers[line]?.sender.rates();
    const made = rates(1);
    await call.say({
      type: 'wanted',
      ups: [
        { kind: 'camera', layers: [true, true, true], bps_max: [0, 0, 600_000] },
        { kind: 'screen', layers: [true], bps_max: [700_000] },
      ],
    });
    expect([rates(1), rates(2)]).toEqual([[120_000, 350_000, 600_000], [700_000]]);
    await call.say({ type: 'media', state: 'lost' });
    expect([call.browser.peers.length, rates(1)]).toEqual([2, made]);
  });

  test('of a small camera are fewer, and stay so whatever is wanted and in a new peer connection', async () => {
    const browser = new ScriptedBrowser();
    browser.media.size = { width: 640, height: 360 };
    const call = await Call.joined([ANA], browser);
    await call.say({
      type: 'wanted',
      ups: [{ kind: 'camera', layers: [true, true, true], bps_max: [0, 0, 0] }],
    });
    const layers = () => {
      const sender = call.browser.peer.transceivers[1]?.sender;
      return [sender?.active(), sender?.heights(360).slice(0, 2), sender?.rates()[1]];
    };
    expect(layers()).toEqual([[true, true, false], [180, 360], 800_000]);
    await call.say({
      type: 'wanted',
      ups: [{ kind: 'camera', layers: [true, true, true], bps_max: [0, 500_000] }],
    });
    expect(layers()).toEqual([[true, true, false], [180, 360], 500_000]);
    await call.say({ type: 'media', state: 'lost' });
    expect(call.browser.peers).toHaveLength(2);
    expect(layers()).toEqual([[true, true, false], [180, 360], 800_000]);
  });

  test('are all on again in a new peer connection', async () => {
    const call = await Call.joined([ANA]);
    await call.say({ type: 'wanted', ups: [{ kind: 'camera', layers: [false, false, false], bps_max: [] }] });
    await call.say({ type: 'media', state: 'lost' });
    expect(call.browser.peers).toHaveLength(2);
    expect(active(call, 1)).toEqual([true, true, true]);
  });
});

describe('walls', () => {
  const servers = (peer: ScriptedPeer) => peer.configuration.iceServers;
  const behindWalls = () => Object.assign(new ScriptedBrowser(), { relay: RELAY });

  /** In the meeting, answered, and no connection. */
  async function unconnected(browser: ScriptedBrowser): Promise<Call> {
    const call = new Call(browser);
    await browser.settle();
    void call.meeting.join('Me');
    await browser.settle();
    browser.socket.open();
    await browser.settle();
    browser.socket.say(welcome([ANA]));
    await call.answer();
    return call;
  }

  test('the first try goes without the relay, and where it works so does the next join', async () => {
    const browser = behindWalls();
    const call = await Call.joined([ANA], browser);
    await browser.pass(10_000);
    expect(browser.peers.map(servers)).toEqual([[]]);
    expect((browser.local as ScriptedStorage).values.has('asamblea-relay')).toBe(false);
    expect(call.meeting.problem.value).toBeNull();
  });

  test('no connection in 2.5 s: another peer connection with the relay, which is remembered', async () => {
    const browser = behindWalls();
    const call = await unconnected(browser);
    await browser.pass(2_499);
    expect(browser.peers).toHaveLength(1);
    await browser.pass(1);
    expect(browser.peers).toHaveLength(2);
    expect(servers(browser.peer)).toEqual([
      {
        urls: [
          'turn:meet.example:8443?transport=udp',
          'turn:meet.example:8443?transport=tcp',
          'turns:meet.example:8443?transport=tcp',
        ],
        username: RELAY.username,
        credential: RELAY.credential,
      },
    ]);
    await call.answer();
    browser.peer.candidateType = 'relay';
    browser.peer.become('connected');
    await browser.settle();
    const next = behindWalls();
    next.local = browser.local;
    await unconnected(next);
    expect(next.peers.map((peer) => servers(peer)?.length)).toEqual([1]);
  });

  test('a direct way that was found after all is remembered as well', async () => {
    const browser = behindWalls();
    browser.local?.setItem('asamblea-relay', '{"isNeeded":true}');
    await Call.joined([ANA], browser);
    expect(servers(browser.peer)).toHaveLength(1);
    expect((browser.local as ScriptedStorage).values.has('asamblea-relay')).toBe(false);
  });

  test('a browser that offers no address gets the relay before anyone presses Join', async () => {
    const browser = behindWalls();
    new Call(browser);
    await browser.settle();
    browser.peer.gathered([]);
    await browser.settle();
    expect(browser.peers).toHaveLength(2);
    expect(servers(browser.peer)).toHaveLength(1);
  });

  test('a browser that offers addresses is left in peace', async () => {
    const browser = behindWalls();
    new Call(browser);
    await browser.settle();
    browser.peer.gathered(['1 1 udp 1 192.0.2.1 5000 typ host']);
    await browser.settle();
    expect(browser.peers).toHaveLength(1);
  });

  test('a relay that is out of reach is asked again soon', async () => {
    const browser = behindWalls();
    browser.local?.setItem('asamblea-relay', '{"isNeeded":true}');
    const call = await Call.joined([ANA], browser);
    browser.peer.become('failed');
    await call.answer();
    browser.peer.gathered([]);
    await browser.pass(900);
    expect(browser.peers).toHaveLength(1);
    await browser.pass(200);
    expect(browser.peers.map((peer) => servers(peer)?.length)).toEqual([1, 1]);
  });

  test('credentials that are old are fetched anew', async () => {
    const browser = behindWalls();
    const call = await Call.joined([ANA], browser);
    await browser.pass(1_000);
    const fetched = browser.fetched.length;
    for (let i = 0; i < 9; i += 1) {
      await browser.pass(10_000);
      await call.say({ type: 'ping', nonce: i });
    }
    browser.peer.become('failed');
    await call.answer();
    browser.peer.become('failed');
    await browser.pass(1_000);
    expect(browser.fetched.length).toBe(fetched + 1);
    expect(servers(browser.peer)).toHaveLength(1);
  });

  test('where the bridge has no relay the first peer connection is given its time', async () => {
    const browser = new ScriptedBrowser();
    await unconnected(browser);
    await browser.pass(7_000);
    expect(browser.peers).toHaveLength(1);
    await browser.pass(1_500);
    expect(browser.peers.map(servers)).toEqual([[], []]);
  });
});

describe('what people see of it', () => {
  test('a picture that is held back is named, and no more when it comes', async () => {
    const call = await Call.joined([ANA]);
    await call.say(carries('7', 2, true));
    expect([...call.meeting.paused.value]).toEqual(['2:camera']);
    expect(call.meeting.videos.value.has('2:camera')).toBe(true);
    await call.say(carries('7', 2));
    expect([...call.meeting.paused.value]).toEqual([]);
  });

  test('the own line is spoken of when it stays weak, and no more when it stays good', async () => {
    const call = await Call.joined([ANA]);
    await call.say({ type: 'lines', lines: [{ member: SELF, line: 'weak' }] });
    expect(call.meeting.people.value[0]?.line).toBe('weak');
    expect(call.meeting.ownLine.value).toBe('good');
    await call.browser.pass(1_500);
    expect(call.meeting.ownLine.value).toBe('weak');
    await call.say({ type: 'lines', lines: [{ member: SELF, line: 'good' }] });
    await call.browser.pass(4_999);
    expect(call.meeting.ownLine.value).toBe('weak');
    await call.browser.pass(1);
    expect(call.meeting.ownLine.value).toBe('good');
  });
});
