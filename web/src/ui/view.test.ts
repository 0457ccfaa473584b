import { describe, expect, it } from 'vitest';
import { hueOf, HUES, initialsOf } from './people';
import { destinationOf, pathOfMeeting } from './route';
import { readingTimeMs } from './toasts';

describe('initials', () => {
  it('are one or two letters, whole ones in any script', () => {
    expect(initialsOf('Ana')).toBe('A');
    expect(initialsOf('  maría fernanda de la torre ')).toBe('MT');
    expect(initialsOf('Ángel')).toBe('Á');
    expect(initialsOf('李娜')).toBe('李');
    expect(initialsOf('👩🏽‍🌾 Rosa')).toBe('👩🏽‍🌾R');
    expect(initialsOf('')).toBe('');
  });
});

it('gives every person a colour that exists', () => {
  for (const id of [0, 1, 7, 8, -3, 2 ** 52]) {
    const hue = hueOf({ id } as Parameters<typeof hueOf>[0]);
    expect(hue).toBeGreaterThanOrEqual(0);
    expect(hue).toBeLessThan(HUES);
  }
});

describe('what is typed into the box', () => {
  const location = { host: 'meet.example:8443' };

  it('may be a name or a link to this server', () => {
    expect(destinationOf('tea-time', location)).toBe('/tea-time');
    expect(destinationOf('https://meet.example:8443/tea-time', location)).toBe('/tea-time');
  });

  it('may be a link to the same server by another address, which is followed as it is', () => {
    expect(destinationOf('https://192.168.1.5:8443/tea', location)).toBe('https://192.168.1.5:8443/tea');
  });

  it('is refused when it names no meeting or would run as a program', () => {
    for (const typed of ['', '   ', 'https://other.example/', 'javascript:alert(1)//', 'data://text/html,x'])
      expect(destinationOf(typed, location)?.startsWith('/') ?? true, typed).toBe(true);
    expect(destinationOf('', location)).toBeNull();
    expect(destinationOf('https://other.example/', location)).toBeNull();
  });
});

it('keeps a meeting name within its own path segment', () => {
  expect(pathOfMeeting('a/../b?c#d')).toBe('/a%2F..%2Fb%3Fc%23d');
});

it('leaves long sentences longer', () => {
  expect(readingTimeMs('a'.repeat(100))).toBeGreaterThan(readingTimeMs('a'));
});
