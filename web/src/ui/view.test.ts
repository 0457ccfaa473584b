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
  const location = { protocol: 'https:', host: 'meet.example:8443' };
  const lead = (typed: string): string | null => destinationOf(typed, location);

  it('may be a name, as people write it', () => {
    expect(lead('tea-time')).toBe('/tea-time');
    expect(lead(' Friday  Tea ')).toBe('/friday-tea');
    expect(lead('/tea-time/')).toBe('/tea-time');
    expect(lead('reunión')).toBe('/reuni%C3%B3n');
  });

  it('may be a link to this server, with or without its scheme', () => {
    expect(lead('https://meet.example:8443/tea-time')).toBe('/tea-time');
    expect(lead('http://meet.example:8443/tea-time?x#y')).toBe('/tea-time');
    expect(lead('meet.example:8443/tea-time')).toBe('/tea-time');
  });

  it('may be a link to another address, which is followed', () => {
    expect(lead('http://localhost:8443/tea')).toBe('http://localhost:8443/tea');
    expect(lead('192.168.1.5:8443/tea')).toBe('https://192.168.1.5:8443/tea');
  });

  it('leads nowhere when it names no meeting or is a program', () => {
    for (const typed of ['', '  ', '/', '..', 'a/b', 'a?b', '---', 'https://other.example/', 'x'.repeat(101)])
      expect(lead(typed), typed).toBeNull();
    for (const typed of ['javascript:alert(1)', 'javascript://x/%0aalert(1)', 'data:text/html,x'])
      expect(lead(typed)?.startsWith('/') ?? true, typed).toBe(true);
  });
});

it('keeps a meeting name within its own path segment', () => {
  expect(pathOfMeeting('a/../b?c#d')).toBe('/a%2F..%2Fb%3Fc%23d');
});

it('leaves long sentences longer', () => {
  expect(readingTimeMs('a'.repeat(100))).toBeGreaterThan(readingTimeMs('a'));
});
