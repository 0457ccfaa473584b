import { describe, expect, test } from 'vitest';
import { DIRECT_MS_MAX, Walls, iceServers } from './walls';

test('the first peer connection goes without the relay', () => {
  expect(new Walls(false).isNeeded).toBe(false);
});

test('no direct way within a moment of the answer: the relay is tried', () => {
  const walls = new Walls(false);
  walls.handleNewPeer(false);
  walls.handleAnswered(1_000);
  expect(walls.wakeAt).toBe(1_000 + DIRECT_MS_MAX);
  expect(walls.handleWake(1_000 + DIRECT_MS_MAX - 1)).toBe(false);
  expect(walls.handleWake(1_000 + DIRECT_MS_MAX)).toBe(true);
  expect(walls.isNeeded).toBe(true);
  expect(walls.handleWake(99_000), 'once').toBe(false);
});

test('a direct way that is found in time leaves the relay alone', () => {
  const walls = new Walls(false);
  walls.handleNewPeer(false);
  walls.handleAnswered(0);
  walls.handleConnected(false);
  expect([walls.wakeAt, walls.isNeeded]).toEqual([null, false]);
});

test('a browser that finds no address of its own needs the relay at once', () => {
  const walls = new Walls(false);
  walls.handleNewPeer(false);
  expect(walls.handleGathered(true)).toBe(false);
  expect(walls.handleGathered(false)).toBe(true);
  expect(walls.isNeeded).toBe(true);
});

test('with the relay in hand nothing more can be tried', () => {
  const walls = new Walls(true);
  expect(walls.isNeeded).toBe(true);
  walls.handleNewPeer(true);
  walls.handleAnswered(0);
  expect(walls.wakeAt).toBeNull();
  expect(walls.handleGathered(false)).toBe(false);
});

test('what the browser chose counts for the next time', () => {
  const walls = new Walls(true);
  walls.handleNewPeer(true);
  walls.handleConnected(true);
  expect(walls.isNeeded).toBe(true);
  walls.handleConnected(false);
  expect(walls.isNeeded).toBe(false);
});

test('a peer connection that came to nothing is followed by one with the relay', () => {
  const walls = new Walls(false);
  walls.handleNewPeer(false);
  walls.handleFailed();
  expect(walls.isNeeded).toBe(true);
});

describe('the relay', () => {
  const relay = { username: 'u', credential: 'c', tls: true };
  const urls = (protocol: string, host: string) => iceServers({ protocol, host }, relay)[0]?.urls;

  test('stands at the page’s own host and port', () => {
    expect(urls('http:', 'localhost:8443')).toEqual([
      'turn:localhost:8443?transport=udp',
      'turn:localhost:8443?transport=tcp',
    ]);
    expect(urls('https:', 'meet.example:8443')).toContain('turns:meet.example:8443?transport=tcp');
    expect(iceServers({ protocol: 'https:', host: 'meet.example:1' }, relay)[0]).toMatchObject({
      username: 'u',
      credential: 'c',
    });
  });

  test('stands at the scheme’s port where the address names none', () => {
    expect(urls('https:', 'meet.example')).toContain('turns:meet.example:443?transport=tcp');
    expect(urls('http:', '[2001:db8::1]')).toContain('turn:[2001:db8::1]:80?transport=udp');
    expect(urls('https:', '[2001:db8::1]:8443')).toContain('turn:[2001:db8::1]:8443?transport=udp');
  });

  test('is not tried over TLS where the certificate is the bridge’s own', () => {
    const own = iceServers({ protocol: 'https:', host: 'meet.example' }, { ...relay, tls: false });
    expect(own[0]?.urls).toEqual([
      'turn:meet.example:443?transport=udp',
      'turn:meet.example:443?transport=tcp',
    ]);
  });

  test('is nowhere where the bridge has none', () => {
    expect(iceServers({ protocol: 'https:', host: 'meet.example' }, null)).toEqual([]);
  });
});
