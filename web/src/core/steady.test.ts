import { expect, test } from 'vitest';
import type { Line } from './model';
import { Steady } from './steady';

/** What is said at each whole second, when the line is measured as given at each. */
function said(...lines: Line[]): Line[] {
  const steady = new Steady();
  return lines.map((line, second) => {
    const until = (second + 1) * 1_000;
    steady.handleLine(line, second * 1_000);
    while (steady.wakeAt !== null && steady.wakeAt < until) steady.handleWake(steady.wakeAt);
    return steady.shown;
  });
}

test('a line that is weak for a moment is not spoken of', () => {
  expect(said('weak', 'good', 'weak', 'good', 'good')).toEqual(Array(5).fill('good'));
});

test('one that stays weak is', () => {
  expect(said('weak', 'weak')).toEqual(['good', 'weak']);
});

test('the sentence goes when the line has been good for a while', () => {
  const good: Line[] = Array(7).fill('good');
  expect(said('weak', 'weak', ...good).slice(2)).toEqual([...Array(5).fill('weak'), 'good', 'good']);
});

test('and stays when the line only goes to and fro', () => {
  expect(said('weak', 'weak', 'good', 'good', 'weak', 'good', 'good', 'good', 'good').at(-1)).toBe('weak');
});

test('from bad to worse the wait does not begin anew', () => {
  const steady = new Steady();
  steady.handleLine('weak', 0);
  steady.handleLine('lost', 1_000);
  expect(steady.wakeAt).toBe(1_500);
  steady.handleWake(1_500);
  expect(steady.shown).toBe('lost');
});
