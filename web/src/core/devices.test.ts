import { beforeEach, describe, expect, test } from 'vitest';
import { DeviceManager, statusOf, type DeviceEvent } from './devices';
import type { Environment } from './env';
import { ScriptedBrowser } from './testing/browser';

let browser: ScriptedBrowser;
let events: DeviceEvent[];

beforeEach(() => {
  browser = new ScriptedBrowser();
  events = [];
});

function manager(changes: Partial<Environment> = {}): DeviceManager {
  return new DeviceManager(browser.environment(changes), (event) => events.push(event));
}

const named = (type: DeviceEvent['type']) => events.filter((event) => event.type === type);

test.each([
  ['NotAllowedError', 'denied'],
  ['SecurityError', 'denied'],
  ['NotFoundError', 'missing'],
  ['OverconstrainedError', 'missing'],
  ['NotReadableError', 'busy'],
  ['AbortError', 'busy'],
  ['TypeError', 'failed'],
] as const)('%s means %s', async (error, status) => {
  expect(statusOf({ name: error })).toBe(status);
  browser.media.refusals.video = error;
  const devices = manager();
  expect(await devices.start('camera')).toBe(false);
  expect(devices.camera.value.status).toBe(status);
  expect(events).toEqual([{ type: 'failed', device: 'camera', status }]);
});

test('each device is asked for on its own: a missing camera does not cost the microphone', async () => {
  browser.media.refusals.video = 'NotFoundError';
  const devices = manager();
  await Promise.all([devices.start('microphone'), devices.start('camera')]);
  expect(browser.media.requests.map((request) => Object.keys(request))).toEqual([['audio'], ['video']]);
  expect(devices.microphone.value.status).toBe('live');
});

test('asking is asked once, however often it is wanted', async () => {
  const devices = manager();
  const both = [devices.start('camera'), devices.start('camera')];
  expect(devices.camera.value.status).toBe('asking');
  expect(await Promise.all(both)).toEqual([true, true]);
  expect(browser.media.requests).toHaveLength(1);
});

test('a camera that is off is really off', async () => {
  const devices = manager();
  await devices.start('camera');
  expect(devices.preview.value).not.toBeNull();
  devices.stop('camera');
  expect(browser.media.tracks[0]?.readyState).toBe('ended');
  expect(devices.preview.value).toBeNull();
  expect(events.at(-1)).toEqual({ type: 'track', kind: 'camera', track: null });
});

test('a camera that is given after it was turned off again is let go of at once', async () => {
  let give = () => {};
  browser.media.prompt = new Promise((resolve) => (give = resolve));
  const devices = manager();
  const started = devices.start('camera');
  devices.stop('camera');
  give();
  expect(await started).toBe(false);
  expect(browser.media.tracks[0]?.readyState).toBe('ended');
  expect(devices.camera.value.status).toBe('off');
  expect(named('track').filter((event) => event.type === 'track' && event.track !== null)).toEqual([]);
});

test('muting silences the microphone and keeps it', async () => {
  const devices = manager();
  await devices.start('microphone');
  devices.setMuted(true);
  expect(browser.media.tracks[0]).toMatchObject({ enabled: false, readyState: 'live' });
  devices.setMuted(false);
  expect(browser.media.tracks[0]?.enabled).toBe(true);
});

describe('an unplugged device', () => {
  test('is told, and the next one takes its place', async () => {
    const devices = manager();
    await devices.start('microphone');
    browser.media.device('audioinput', 'other');
    browser.media.tracks[0]?.end();
    await browser.settle();
    expect(named('lost')).toEqual([{ type: 'lost', device: 'microphone' }]);
    expect(devices.microphone.value.status).toBe('live');
    expect(browser.media.tracks).toHaveLength(2);
  });

  test('is missing when there is no other', async () => {
    const devices = manager();
    await devices.start('camera');
    browser.media.tracks[0]?.end();
    await browser.settle();
    expect(devices.camera.value.status).toBe('missing');
    expect(named('gone')).toEqual([{ type: 'gone', device: 'camera' }]);
  });
});

describe('choices', () => {
  test('list what there is by kind, and follow what is plugged in', async () => {
    browser.media.device('videoinput', 'front', 'Front camera');
    browser.media.device('videoinput', '');
    const devices = manager();
    await browser.settle();
    expect(devices.camera.value.choices).toEqual([{ id: 'front', label: 'Front camera' }]);
    browser.media.device('videoinput', 'back');
    browser.media.onChange?.();
    await browser.settle();
    expect(devices.camera.value.choices.map((choice) => choice.id)).toEqual(['front', 'back']);
  });

  test('speakers are hidden where the browser cannot choose', async () => {
    browser.media.device('audiooutput', 'headset');
    const can = manager();
    const cannot = manager({ canChooseSpeaker: false });
    await browser.settle();
    expect(can.speaker.value.choices).toHaveLength(1);
    expect(cannot.speaker.value.choices).toEqual([]);
  });

  test('a chosen camera takes over and is remembered', async () => {
    const devices = manager();
    await devices.start('camera');
    await devices.choose('camera', 'back');
    expect(browser.media.tracks.map((track) => track.readyState)).toEqual(['ended', 'live']);
    expect(browser.media.requests.at(-1)?.video?.deviceId).toEqual({ exact: 'back' });
    // The sending line goes from one track to the next without a gap of nothing.
    expect(named('track').every((event) => event.type === 'track' && event.track !== null)).toBe(true);
    expect(manager().camera.value.chosen).toBe('back');
  });

  test('a remembered device that is not there today gives way to the default', async () => {
    const devices = manager();
    await devices.choose('microphone', 'headset');
    const request = browser.media.getUserMedia.bind(browser.media);
    browser.media.getUserMedia = (constraints) =>
      constraints.audio?.deviceId
        ? Promise.reject(Object.assign(new Error(), { name: 'OverconstrainedError' }))
        : request(constraints);
    expect(await devices.start('microphone')).toBe(true);
  });

  test('a choice that fails leaves nothing half on', async () => {
    const devices = manager();
    await devices.start('camera');
    browser.media.refusals.video = 'NotReadableError';
    await devices.choose('camera', 'back');
    expect(devices.camera.value.status).toBe('busy');
    expect(devices.preview.value).toBeNull();
    expect(events.at(-1)).toEqual({ type: 'track', kind: 'camera', track: null });
  });
});

describe('sharing', () => {
  test('goes on until it is stopped, here or in the browser', async () => {
    const devices = manager();
    expect(await devices.startSharing()).toBe(true);
    browser.media.tracks[0]?.end();
    expect(devices.shared.value).toBeNull();
    expect(named('share-ended')).toHaveLength(1);
    await devices.startSharing();
    devices.stopSharing();
    expect(browser.media.tracks[1]?.readyState).toBe('ended');
    expect(named('share-ended')).toHaveLength(1);
  });

  test('"Cancel" is an answer, anything else is said', async () => {
    const devices = manager();
    browser.media.refusals.screen = 'NotAllowedError';
    expect(await devices.startSharing()).toBe(false);
    expect(events).toEqual([]);
    browser.media.refusals.screen = 'NotReadableError';
    expect(await devices.startSharing()).toBe(false);
    expect(events).toEqual([{ type: 'share-failed' }]);
  });
});

describe('the level', () => {
  test('follows the microphone and is silent while muted', async () => {
    const devices = manager();
    await devices.start('microphone');
    browser.level = 0.7;
    await browser.pass(100);
    expect(devices.microphoneLevel.value).toBe(0.7);
    devices.setMuted(true);
    await browser.pass(100);
    expect(devices.microphoneLevel.value).toBe(0);
  });

  test('tells who speaks while muted: after a moment, and not again and again', async () => {
    const devices = manager();
    await devices.start('microphone');
    devices.setMuted(true);
    browser.level = 0.7;
    await browser.pass(300);
    expect(named('speaking-while-muted')).toHaveLength(0);
    await browser.pass(1_000);
    expect(named('speaking-while-muted')).toHaveLength(1);
    await browser.pass(20_000);
    expect(named('speaking-while-muted')).toHaveLength(1);
    await browser.pass(20_000);
    expect(named('speaking-while-muted')).toHaveLength(2);
  });

  test('is quiet about a quiet room', async () => {
    const devices = manager();
    await devices.start('microphone');
    devices.setMuted(true);
    browser.level = 0.3;
    await browser.pass(60_000);
    expect(named('speaking-while-muted')).toHaveLength(0);
  });
});

test('works without storage and without devices', async () => {
  const devices = manager({ localStorage: null, mediaDevices: null });
  await devices.choose('camera', 'back');
  expect(await devices.start('camera')).toBe(false);
  expect(devices.camera.value.status).toBe('failed');
});
