import { describe, expect, test } from 'vitest';
import type { ServerMessage } from './protocol';
import { ScriptedBrowser, ScriptedStorage } from './testing/browser';
import { Call, RESUME_MS, SELF, SILENCE_MS, member, welcome } from './testing/call';

const ANA = member(2, 'Ana', 'microphone', 'camera');
const crowd = (count: number) =>
  Array.from({ length: count }, (_, index) => member(index + 2, `P${index + 2}`, 'camera'));

/** Someone's camera in a slot; the first video slot is line 7, after three to send on and four to hear. */
const carries = (mid: string, peer: number): ServerMessage => ({
  type: 'slots',
  slots: [{ mid, up: { peer, kind: 'camera' }, paused: false }],
});

describe('the lobby', () => {
  test('asks for the devices and gets everything ready without saying a word', async () => {
    const { browser, meeting } = new Call();
    await browser.settle();
    browser.socket.open();
    await browser.settle();
    expect(browser.fetched).toEqual(['/api/meetings/tea/token']);
    expect(browser.socket.url).toBe('wss://meet.example:8443/api/socket');
    expect(browser.socket.sent).toEqual([]);
    expect(browser.peer.localDescription).not.toBeNull();
    expect(meeting.phase.value).toBe('lobby');
    expect(meeting.devices.microphone.value.status).toBe('live');
    expect(meeting.devices.preview.value).not.toBeNull();
  });

  test('on the start page nothing is asked for and nothing is opened', async () => {
    const browser = new ScriptedBrowser();
    const { meeting } = new Call(browser, {
      location: { protocol: 'https:', host: 'meet.example', pathname: '/' },
    });
    await browser.pass(60_000);
    expect(meeting.name.value).toBe('');
    expect(browser.media.requests).toEqual([]);
    expect(browser.fetched).toEqual([]);
  });

  test('a browser without WebRTC is told so', () => {
    const { meeting } = new Call(new ScriptedBrowser(), { newPeerConnection: null });
    expect(meeting.phase.value).toBe('refused');
    expect(meeting.problem.value).toBe('no-webrtc');
  });

  test('an insecure page says why there are no devices, and lets one listen', async () => {
    const browser = new ScriptedBrowser();
    const { meeting } = new Call(browser, { mediaDevices: null, isSecureContext: false });
    expect(meeting.problem.value).toBe('insecure-context');
    expect(meeting.canShare).toBe(false);
    await browser.settle();
    browser.socket.open();
    await meeting.join('Me');
    browser.socket.say(welcome([]));
    expect(meeting.phase.value).toBe('meeting');
    expect(meeting.microphoneOn.value).toBe(false);
  });
});

describe('joining', () => {
  test('says hello, offer and publish in one breath', async () => {
    const { browser, meeting } = new Call();
    await browser.settle();
    browser.socket.open();
    void meeting.join('Me');
    expect(browser.socket.sent.map((message) => message.type)).toEqual(['hello', 'offer', 'publish']);
    expect(meeting.phase.value).toBe('joining');
    expect(browser.socket.of('offer')[0]).toEqual({
      type: 'offer',
      revision: 1,
      sdp: 'peer 1 offer 1',
      ups: [
        { mid: '0', kind: 'microphone' },
        { mid: '1', kind: 'camera' },
        { mid: '2', kind: 'screen' },
      ],
    });
    expect(browser.socket.of('publish')[0]?.ups).toEqual([
      { kind: 'microphone', active: true, height_px: 0 },
      { kind: 'camera', active: true, height_px: 720 },
      { kind: 'screen', active: false, height_px: 0 },
    ]);
  });

  test('works without any device', async () => {
    const browser = new ScriptedBrowser();
    browser.media.refusals.audio = 'NotAllowedError';
    browser.media.refusals.video = 'NotFoundError';
    const { meeting } = await Call.joined([ANA], browser);
    expect(meeting.phase.value).toBe('meeting');
    expect(meeting.devices.microphone.value.status).toBe('denied');
    expect(meeting.people.value[0]).toMatchObject({ isSelf: true, microphone: false, camera: false });
    expect(browser.socket.of('publish')[0]?.ups.some((up) => up.active)).toBe(false);
    expect(meeting.audios.value).toHaveLength(4);
  });

  test('lines are made up front: three to send on without tracks, the camera in three layers', async () => {
    const { browser } = await Call.joined([]);
    const lines = browser.peer.transceivers.map(({ kind, init }) => `${kind} ${init.direction}`);
    expect(lines.slice(0, 3)).toEqual(['audio sendonly', 'video sendonly', 'video sendonly']);
    expect(lines.slice(3)).toEqual([...Array(4).fill('audio recvonly'), ...Array(4).fill('video recvonly')]);
    const layers = browser.peer.transceivers[1]?.init.sendEncodings;
    expect(layers?.map((layer) => [layer.rid, layer.scaleResolutionDownBy])).toEqual([
      ['q', 4],
      ['h', 2],
      ['f', 1],
    ]);
    expect(browser.peer.transceivers[2]?.init.sendEncodings).toHaveLength(1);
  });

  test.each([
    ['meeting_full', 'meeting-full'],
    ['server_full', 'server-full'],
    ['unsupported_version', 'outdated-client'],
  ] as const)('%s is shown as %s, with devices let go of', async (code, problem) => {
    const call = new Call();
    await call.browser.settle();
    call.browser.socket.open();
    void call.meeting.join('Me');
    await call.say({ type: 'error', code, message: '', fatal: true });
    expect(call.meeting.phase.value).toBe('refused');
    expect(call.meeting.problem.value).toBe(problem);
    expect(call.browser.media.tracks.every((track) => track.readyState === 'ended')).toBe(true);
  });

  test('a server that cannot be reached is said to be so, and can be tried again', async () => {
    const browser = new ScriptedBrowser();
    browser.tokenStatus = null;
    const { meeting } = new Call(browser);
    await browser.settle();
    void meeting.join('Me');
    await browser.pass(20_000);
    expect([meeting.phase.value, meeting.problem.value]).toEqual(['refused', 'server-unreachable']);
    browser.tokenStatus = 200;
    meeting.rejoin();
    await browser.settle();
    browser.socket.open();
    await browser.settle();
    browser.socket.say(welcome([]));
    expect([meeting.phase.value, meeting.problem.value]).toEqual(['meeting', null]);
    expect(meeting.devices.camera.value.status).toBe('live');
  });
});

describe('pictures', () => {
  test('are asked for when the answer is there, and shown when the server says so', async () => {
    const call = await Call.joined([ANA]);
    expect(call.wishes()).toEqual({ '7': '2:camera' });
    expect([...call.meeting.videos.value.keys()]).toEqual([`${SELF}:camera`]);
    await call.say(carries('7', 2));
    expect([...call.meeting.videos.value.keys()]).toEqual(['2:camera', `${SELF}:camera`]);
  });

  test('go when the camera does', async () => {
    const call = await Call.joined([ANA]);
    await call.say(carries('7', 2));
    await call.say({ type: 'changed', member: member(2, 'Ana', 'microphone') });
    expect(call.meeting.videos.value.has('2:camera')).toBe(false);
  });

  test('follow what the view shows, and no message is sent for nothing new', async () => {
    const call = await Call.joined(crowd(2));
    await call.browser.pass(1_000);
    const before = call.browser.socket.of('view').length;
    call.meeting.show([call.tile(3, 'camera', 720), call.tile(SELF)]);
    await call.browser.pass(1_000);
    expect(call.browser.socket.of('view').at(-1)?.slots[1]).toEqual({
      mid: '8',
      up: { peer: 3, kind: 'camera' },
      height_px: 720,
    });
    call.meeting.show([call.tile(3, 'camera', 720), call.tile(SELF)]);
    await call.browser.pass(1_000);
    expect(call.browser.socket.of('view')).toHaveLength(before + 1);
  });

  test('a window that is being dragged does not flood the server, and its last size counts', async () => {
    const call = await Call.joined(crowd(1));
    await call.browser.pass(1_000);
    const before = call.browser.socket.of('view').length;
    for (let height = 100; height < 200; height += 1) {
      call.meeting.show([call.tile(2, 'camera', height)]);
      await call.browser.pass(5);
    }
    await call.browser.pass(1_000);
    expect(call.browser.socket.of('view').length - before).toBeLessThan(6);
    expect(call.browser.socket.of('view').at(-1)?.slots[0]?.height_px).toBe(199);
  });

  test('in a room of twelve get more slots by a new offer, and those there keep theirs', async () => {
    const call = await Call.joined(crowd(3));
    const stream = call.browser.peer.transceivers[7];
    expect(call.browser.socket.of('offer')).toHaveLength(1);
    for (const person of crowd(11).slice(3)) await call.say({ type: 'joined', member: person });
    await call.answer();
    await call.answer();
    await call.browser.pass(1_000);
    expect(call.browser.peer.transceivers).toHaveLength(3 + 4 + 12);
    expect(call.browser.peer.transceivers[7]).toBe(stream);
    const offers = call.browser.socket.of('offer').map((offer) => offer.revision);
    expect(offers).toEqual([1, 2, 3]);
    const wishes = call.wishes();
    expect(Object.keys(wishes)).toHaveLength(11);
    expect([wishes['7'], wishes['8'], wishes['9']]).toEqual(['2:camera', '3:camera', '4:camera']);
    expect(call.browser.peers).toHaveLength(1);
  });

  test('slots that are not answered yet are not asked for', async () => {
    const call = await Call.joined(crowd(4));
    await call.say({ type: 'joined', member: member(6, 'Last', 'camera') });
    await call.browser.pass(1_000);
    expect(Object.values(call.wishes())).not.toContain('6:camera');
    await call.answer();
    await call.browser.pass(1_000);
    expect(call.wishes()['11']).toBe('6:camera');
  });
});

describe('offers and answers', () => {
  test('an answer to anything but the offer that stands is not taken', async () => {
    const call = await Call.joined([ANA]);
    expect(call.browser.peer.answers).toEqual(['answer to peer 1 offer 1']);
    for (const person of crowd(5).slice(1)) await call.say({ type: 'joined', member: person });
    await call.say({ type: 'answer', revision: 1, sdp: 'late' });
    await call.say({ type: 'answer', revision: 9, sdp: 'early' });
    expect(call.browser.peer.answers).toHaveLength(1);
    await call.answer();
    expect(call.browser.peer.answers).toHaveLength(2);
    await call.say({ type: 'answer', revision: 2, sdp: 'twice' });
    expect(call.browser.peer.answers).toHaveLength(2);
  });

  test('an answer that the browser cannot take leads to a new peer connection', async () => {
    const call = new Call();
    await call.browser.settle();
    call.browser.socket.open();
    void call.meeting.join('Me');
    await call.say(welcome([]));
    await call.say({ type: 'answer', revision: 1, sdp: 'nonsense' });
    await call.browser.pass(1_000);
    expect(call.browser.peers).toHaveLength(2);
    expect(call.browser.socket.of('offer').at(-1)).toMatchObject({ revision: 2, sdp: 'peer 2 offer 1' });
  });

  test('more slots than the server will have: back to what was answered', async () => {
    const call = await Call.joined(crowd(8));
    expect(call.browser.socket.of('offer')).toHaveLength(2);
    await call.say({ type: 'error', code: 'offer_refused', message: '', fatal: false });
    expect(call.browser.peers).toHaveLength(2);
    await call.answer();
    await call.browser.pass(1_000);
    expect(call.browser.peer.transceivers).toHaveLength(3 + 4 + 4);
    expect(Object.keys(call.wishes())).toHaveLength(4);
  });

  test('a first offer that is refused is said, and not made over and over', async () => {
    const call = new Call();
    await call.browser.settle();
    call.browser.socket.open();
    void call.meeting.join('Me');
    await call.say(welcome([]));
    await call.say({ type: 'error', code: 'offer_refused', message: '', fatal: false });
    expect(call.meeting.problem.value).toBe('media-failed');
    for (let i = 0; i < 10; i += 1) {
      await call.browser.pass(SILENCE_MS / 2 - 1);
      await call.say({ type: 'ping', nonce: i });
    }
    expect(call.browser.socket.of('offer')).toHaveLength(1);
  });

  test('when told to slow down, everything that counts is said again later', async () => {
    const call = await Call.joined([ANA]);
    const before = call.browser.socket.sent.length;
    await call.say({ type: 'error', code: 'too_many_requests', message: '', fatal: false });
    await call.browser.pass(5_000);
    expect(call.browser.socket.sent.slice(before).map((message) => message.type)).toEqual([
      'publish',
      'view',
    ]);
  });
});

describe('a lost line', () => {
  test('of 20 seconds is resumed with the same peer connection and no dialog', async () => {
    const call = await Call.joined([ANA]);
    const { browser, meeting } = call;
    await call.say(carries('7', 2));
    browser.tokenStatus = null;
    browser.socket.drop();
    await browser.settle();
    expect([meeting.phase.value, meeting.link.value]).toEqual(['meeting', 'reconnecting']);
    for (let i = 0; i < 20; i += 1) {
      browser.sockets.at(-1)?.drop();
      await browser.pass(1_000);
    }
    browser.tokenStatus = 200;
    await browser.pass(1_500);
    browser.socket.open();
    await browser.settle();
    expect(browser.socket.of('hello')[0]).toMatchObject({ resume: 'resume me' });
    expect(browser.socket.sent.map((message) => message.type)).toEqual(['hello']);
    await call.say(
      welcome([ANA], {
        resumed: true,
        revision: 1,
        slots: [{ mid: '7', up: { peer: 2, kind: 'camera' }, paused: false }],
      }),
    );
    expect([meeting.phase.value, meeting.link.value]).toEqual(['meeting', 'up']);
    expect(browser.peers).toHaveLength(1);
    expect(browser.socket.of('offer')).toHaveLength(0);
    expect(browser.socket.of('publish')).toHaveLength(1);
    expect(meeting.videos.value.has('2:camera')).toBe(true);
    expect(call.notices()).toEqual(['reconnected']);
  });

  test('that goes silent is noticed', async () => {
    const call = await Call.joined([]);
    await call.browser.pass(SILENCE_MS / 2 + 4_001);
    expect(call.meeting.link.value).toBe('reconnecting');
  });

  test('that takes what is said and answers nothing is noticed by whoever says something', async () => {
    const call = await Call.joined([]);
    await call.browser.pass(6_000);
    expect(call.browser.socket.of('ping')).toHaveLength(0);
    call.meeting.setMicrophone(false);
    await call.browser.settle();
    expect(call.browser.socket.of('ping')).toHaveLength(1);
    await call.browser.pass(4_001);
    expect(call.meeting.link.value).toBe('reconnecting');
  });

  test('an offer that was under way is made again with the next revision', async () => {
    const call = await Call.joined([ANA]);
    for (const person of crowd(5).slice(1)) await call.say({ type: 'joined', member: person });
    expect(call.browser.socket.of('offer').at(-1)?.revision).toBe(2);
    call.browser.socket.drop();
    await call.browser.pass(1_000);
    call.browser.socket.open();
    await call.say(welcome(crowd(5), { resumed: true, revision: 2 }));
    expect(call.browser.socket.of('offer')).toMatchObject([{ revision: 3, sdp: 'peer 1 offer 2' }]);
    await call.say({ type: 'answer', revision: 2, sdp: 'of before the cut' });
    expect(call.browser.peer.answers).toHaveLength(1);
    await call.answer();
    expect(call.browser.peer.answers).toHaveLength(2);
  });

  test('that came back too late is a new membership: new peer connection, revisions from 1', async () => {
    const call = await Call.joined([ANA]);
    call.browser.socket.drop();
    await call.browser.pass(1_000);
    call.browser.socket.open();
    await call.say(welcome([ANA], { resumed: false, resume: 'another', member: 77, members: [ANA] }));
    expect(call.meeting.phase.value).toBe('meeting');
    expect(call.browser.peers).toHaveLength(2);
    expect(call.browser.socket.of('offer')).toMatchObject([{ revision: 1, sdp: 'peer 2 offer 1' }]);
    expect(call.browser.socket.of('view')).toEqual([]);
    await call.answer();
    expect(Object.values(call.wishes())).toEqual(['2:camera']);
    expect(call.browser.peers[0]?.connectionState).not.toBe('closed');
    call.browser.peer.become('connected');
    expect(call.browser.peers[0]?.connectionState).toBe('closed');
  });

  test('to a server that restarts is waited for, with the reason', async () => {
    const call = await Call.joined([]);
    await call.say({ type: 'bye', reason: 'stopping' });
    expect([call.meeting.phase.value, call.meeting.problem.value]).toEqual(['meeting', 'server-stopping']);
    await call.browser.pass(1_000);
    call.browser.socket.open();
    await call.say(welcome([]));
    expect(call.meeting.problem.value).toBeNull();
  });

  test('taken by another tab is final', async () => {
    const call = await Call.joined([]);
    await call.say({ type: 'bye', reason: 'replaced' });
    const sockets = call.browser.sockets.length;
    await call.browser.pass(120_000);
    call.browser.online();
    expect([call.meeting.phase.value, call.meeting.problem.value]).toEqual(['refused', 'replaced']);
    expect(call.browser.sockets).toHaveLength(sockets);
  });
});

describe('a reload', () => {
  /** The same tab loads the page again. */
  function reload(browser: ScriptedBrowser): Call {
    const reloaded = new ScriptedBrowser();
    reloaded.session = browser.session;
    reloaded.timeMs = browser.timeMs;
    return new Call(reloaded);
  }

  test('goes on without the lobby: same membership, same name, new peer connection', async () => {
    const before = await Call.joined([ANA]);
    before.meeting.setCamera(false);
    await before.browser.pass(5_000);
    await before.say({ type: 'ping', nonce: 1 });
    const call = reload(before.browser);
    expect(call.meeting.phase.value).toBe('joining');
    await call.browser.settle();
    call.browser.socket.open();
    await call.browser.settle();
    expect(call.browser.socket.of('hello')[0]).toMatchObject({ name: 'Me', resume: 'resume me' });
    // Whether revision 1 is taken only the server knows.
    expect(call.browser.socket.of('offer')).toEqual([]);
    await call.say(welcome([ANA], { resumed: true, revision: 4 }));
    expect(call.meeting.phase.value).toBe('meeting');
    expect(call.browser.socket.of('offer')).toMatchObject([{ revision: 5, sdp: 'peer 1 offer 1' }]);
    expect(call.meeting.cameraOn.value).toBe(false);
    expect(call.browser.media.requests.map((request) => Object.keys(request))).toEqual([['audio']]);
    await call.answer();
    expect(Object.values(call.wishes())).toEqual(['2:camera']);
  });

  test('after the place is gone joins afresh, still without the lobby', async () => {
    const before = await Call.joined([ANA]);
    const call = reload(before.browser);
    await call.browser.settle();
    call.browser.socket.open();
    await call.say(welcome([ANA]));
    expect(call.meeting.phase.value).toBe('meeting');
    expect(call.browser.socket.of('offer')).toMatchObject([{ revision: 1 }]);
    expect(call.browser.peers).toHaveLength(1);
  });

  test('the next day begins in the lobby', async () => {
    const before = await Call.joined([]);
    before.browser.timeMs += RESUME_MS + 1;
    expect(reload(before.browser).meeting.phase.value).toBe('lobby');
  });

  test('of another meeting begins in the lobby', async () => {
    const before = await Call.joined([]);
    const browser = new ScriptedBrowser();
    browser.session = before.browser.session;
    browser.timeMs = before.browser.timeMs;
    const call = new Call(browser, {
      location: { protocol: 'https:', host: 'meet.example', pathname: '/other' },
    });
    expect(call.meeting.phase.value).toBe('lobby');
  });

  test('after leaving begins in the lobby', async () => {
    const before = await Call.joined([]);
    before.meeting.leave();
    expect((before.browser.session as ScriptedStorage).values.size).toBe(0);
    expect(reload(before.browser).meeting.phase.value).toBe('lobby');
  });

  test('works, in the lobby, where there is no storage', async () => {
    const browser = new ScriptedBrowser();
    browser.session = null;
    browser.local = null;
    const call = await Call.joined([], browser);
    expect(call.meeting.phase.value).toBe('meeting');
    expect(reload(browser).meeting.phase.value).toBe('lobby');
  });
});

describe('lost media', () => {
  test('restarts ICE on the same peer connection', async () => {
    const call = await Call.joined([ANA]);
    call.browser.peer.become('disconnected');
    expect(call.meeting.link.value).toBe('media-reconnecting');
    await call.browser.pass(3_000);
    expect(call.browser.peer.iceRestarts).toBe(1);
    expect(call.browser.socket.of('offer').at(-1)?.revision).toBe(2);
    await call.answer();
    call.browser.peer.become('connected');
    expect(call.meeting.link.value).toBe('up');
    expect(call.browser.peers).toHaveLength(1);
  });

  test('waits with an ICE restart until the server can be told', async () => {
    const call = await Call.joined([ANA]);
    call.browser.socket.drop();
    call.browser.peer.become('failed');
    await call.browser.settle();
    expect(call.browser.peer.iceRestarts).toBe(0);
    await call.browser.pass(1_000);
    call.browser.socket.open();
    await call.say(welcome([ANA], { resumed: true, revision: 1 }));
    expect(call.browser.peer.iceRestarts).toBe(1);
  });

  test('on the server means a new peer connection; what is sent and played goes on in it', async () => {
    const call = await Call.joined([ANA]);
    await call.say(carries('7', 2));
    const played = call.meeting.videos.value.get('2:camera');
    const { audios } = call.meeting;
    const heard = audios.value;
    const old = call.browser.peer;
    await call.say({ type: 'media', state: 'lost' });
    // The last picture stays until there is another.
    expect(call.meeting.videos.value.get('2:camera')).toBe(played);
    expect(old.connectionState).toBe('connected');
    expect(old.transceivers.map(({ sender }) => sender.track).filter(Boolean)).toEqual([]);
    expect(call.browser.peers).toHaveLength(2);
    expect(call.browser.socket.of('offer').at(-1)).toMatchObject({ revision: 2, sdp: 'peer 2 offer 1' });
    await call.answer();
    call.browser.peer.become('connected');
    expect(old.connectionState).toBe('closed');
    expect(played?.getTracks()).toEqual([old.transceivers[7]?.receiver.track]);
    await call.say(carries('7', 2));
    call.browser.peer.flow(7);
    expect(call.meeting.videos.value.get('2:camera')).toBe(played);
    expect(played?.getTracks()).toEqual([call.browser.peer.transceivers[7]?.receiver.track]);
    expect(audios.value).toBe(heard);
    const sent = call.browser.peer.transceivers.slice(0, 3).map(({ sender }) => sender.track?.kind);
    expect(sent).toEqual(['audio', 'video', undefined]);
  });

  test('that cannot be had at all is said, and tried on', async () => {
    const call = await Call.joined([ANA]);
    for (let i = 0; i < 4; i += 1) {
      call.browser.peer.become('failed');
      await call.browser.pass(10_000);
      await call.say({ type: 'ping', nonce: i });
      if (i === 0) expect(call.meeting.problem.value).toBeNull();
    }
    expect(call.meeting.problem.value).toBe('media-failed');
    const peers = call.browser.peers.length;
    await call.browser.pass(SILENCE_MS / 2 - 1);
    expect(call.browser.peers.length).toBeGreaterThan(peers);
    call.browser.peer.become('connected');
    expect(call.meeting.problem.value).toBeNull();
  });
});

describe('turning things on and off', () => {
  test('never changes a line, only its track and what is published', async () => {
    const call = await Call.joined([]);
    const { browser, meeting } = call;
    const published = () =>
      Object.fromEntries(
        browser.socket
          .of('publish')
          .at(-1)
          ?.ups.map((up) => [up.kind, up.active]) ?? [],
      );
    const [microphone, camera, screen] = browser.peer.transceivers;
    meeting.setMicrophone(false);
    meeting.setCamera(false);
    await meeting.setSharing(true);
    await browser.settle();
    expect(published()).toEqual({ microphone: false, camera: false, screen: true });
    expect(microphone?.sender.track).toMatchObject({ enabled: false, readyState: 'live' });
    expect(camera?.sender.track).toBeNull();
    expect(screen?.sender.track).toMatchObject({ contentHint: 'detail' });
    expect(meeting.people.value[0]).toMatchObject({ microphone: false, camera: false, screen: true });
    expect(meeting.videos.value.has(`${SELF}:screen`)).toBe(true);
    meeting.setMicrophone(true);
    meeting.setCamera(true);
    await meeting.setSharing(false);
    await browser.settle();
    expect(published()).toEqual({ microphone: true, camera: true, screen: false });
    expect(camera?.sender.track).toMatchObject({ contentHint: 'motion', readyState: 'live' });
    expect(browser.socket.of('offer')).toHaveLength(1);
  });

  test('a camera that cannot be had says why and stays off; it can be tried again', async () => {
    const call = await Call.joined([]);
    call.meeting.setCamera(false);
    call.browser.media.refusals.video = 'NotReadableError';
    call.meeting.setCamera(true);
    await call.browser.settle();
    expect(call.meeting.cameraOn.value).toBe(false);
    expect(call.notices()).toEqual(['camera-busy']);
    delete call.browser.media.refusals.video;
    await call.meeting.retry('camera');
    expect(call.meeting.cameraOn.value).toBe(true);
    expect(call.meeting.people.value[0]?.camera).toBe(true);
  });
});

describe('leaving', () => {
  test('says so, lets go of everything, and rejoining is a new membership with the same wishes', async () => {
    const call = await Call.joined([ANA]);
    const { browser, meeting } = call;
    meeting.setMicrophone(false);
    meeting.leave();
    expect(browser.socket.sent.at(-1)).toEqual({ type: 'leave' });
    expect(browser.socket.isClosed).toBe(true);
    expect(browser.peer.connectionState).toBe('closed');
    expect(browser.media.tracks.every((track) => track.readyState === 'ended')).toBe(true);
    expect(meeting.phase.value).toBe('left');
    expect(meeting.people.value).toEqual([]);
    meeting.rejoin();
    await browser.settle();
    browser.socket.open();
    await browser.settle();
    expect(browser.socket.of('hello')[0]).toMatchObject({ name: 'Me' });
    expect(browser.socket.of('hello')[0]).not.toHaveProperty('resume');
    browser.socket.say(welcome([ANA]));
    await call.answer();
    expect(meeting.phase.value).toBe('meeting');
    expect(meeting.microphoneOn.value).toBe(false);
    expect(Object.values(call.wishes())).toEqual(['2:camera']);
  });

  test('of others is told by name', async () => {
    const call = await Call.joined([ANA]);
    await call.say({ type: 'joined', member: member(3, 'Bo') });
    await call.say({ type: 'left', member: 2 });
    expect(call.meeting.notices.value.map(({ code, name }) => [code, name])).toEqual([
      ['someone-joined', 'Bo'],
      ['someone-left', 'Ana'],
    ]);
    call.meeting.dismiss(call.meeting.notices.value[0]?.id ?? 0);
    expect(call.notices()).toEqual(['someone-left']);
  });
});

test('a message of a type that this client does not know changes nothing', async () => {
  const call = await Call.joined([ANA]);
  await call.say({ type: 'hologram' } as unknown as ServerMessage);
  expect(call.meeting.phase.value).toBe('meeting');
  expect(call.meeting.people.value).toHaveLength(2);
});
