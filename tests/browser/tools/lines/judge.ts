// From what a page noted to figures.

import type { GaugeReading, Sample } from './gauge.ts';
import { rateKbps, type LineEvent, type LineProfile } from './profiles.ts';
import type { LinkCounters } from '../../harness/link.ts';

/** Once the first seconds after a change are over, in ms. */
const LATER_MS = 5_000;
/** Once the picture has found what the line carries, in ms. */
export const STEADY_FROM_MS = 10_000;
/** The picture before something happens is that of so long before it, in ms. */
const BEFORE_MS = 3_000;
/** Sound is back when so little of so long is made up. */
const BACK_CONCEALED = 0.05;
const BACK_SOUND_MS = 600;
/** The picture is back when no two frames of so long are further apart than this. */
const BACK_PICTURE_MS = 1_000;
const BACK_GAP_MS = 400;

/** Shares are from 0 to 1, times in ms, rates in kbit/s; null for what is not known or did not happen. */
export interface Figures {
  /** Sound that the browser made up, without what it let fall silent; and that. Of the whole time. */
  concealed: number | null;
  silent: number | null;
  /** Both together from the sixth second on. */
  concealedLater: number | null;
  longestFreeze: number;
  longestFreezeLater: number;
  framesPerSecond: number;
  videoKbps: number;
  videoKbpsLater: number;
  /** How many lines the picture has, first and last. */
  heights: number[];
  /** How old the picture is that one sees, at the median. */
  pictureAge: number | null;
  pausedShare: number;
  saidAway: boolean;
  saidReconnecting: boolean;
  /** How often the picture turned from growing to shrinking or back, without those turns that the line's own are. */
  swings: number;
  /** From the end of what passes; of several the longest, and null if one did not come. */
  soundBack: number | null;
  pictureBack: number | null;
  /** Until the picture is as tall as before. */
  pictureAsBefore: number | null;
}

/** What the emulator says of a way once it is steady: null where the line has no limit. */
export interface Usage {
  /** Of what the line carries, from 0 to 1, headers included. */
  utilisation: number | null;
  queueMsMean: number | null;
  queueMs95: number | null;
}

export function judge(reading: GaugeReading, profile: LineProfile, began: number, ended: number): Figures {
  const samples = reading.samples.filter((it) => it.at >= began && it.at <= ended);
  const frames = reading.frames.filter((at) => at >= began && at <= ended);
  const first = samples[0];
  const last = samples.at(-1);
  if (!first || !last || samples.length < 10) throw new Error(`only ${samples.length} samples`);
  const later = samples.filter((it) => it.at >= began + LATER_MS);
  const sound = stream(first, last);
  const whole = concealment(first, last, sound);
  const laterSound = concealment(later[0]!, last, sound);
  const ages = samples.map((it) => it.ageMs).filter((age) => age >= 0);
  // What a statistic says of a picture that stands still is old.
  const moving = samples.filter((it, place) => it.video.decoded > (samples[place - 1] ?? it).video.decoded);
  const heights = moving.map((it) => it.video.height).filter((it) => it > 0);
  const events = (profile.events ?? []).map(({ from, to }) => ({ from: began + from, to: began + to }));
  const ofEach = (figure: (event: LineEvent) => number | null) => longest(events.map(figure));
  return {
    concealed: whole && round(whole.voiced, 4),
    silent: whole && round(whole.silent, 4),
    concealedLater: laterSound && round(laterSound.voiced + laterSound.silent, 4),
    longestFreeze: gap(frames, began, ended),
    longestFreezeLater: gap(
      frames.filter((at) => at >= began + LATER_MS),
      began + LATER_MS,
      ended,
    ),
    framesPerSecond: round((frames.length * 1_000) / (ended - began), 1),
    videoKbps: rate(first, last),
    videoKbpsLater: rate(later[0]!, last),
    heights: heights.filter((height, place) => height !== heights[place - 1]),
    pictureAge: ages.length ? ages.toSorted((a, b) => a - b)[Math.floor(ages.length / 2)]! : null,
    pausedShare: round(samples.filter((it) => it.isPaused).length / samples.length, 2),
    saidAway: samples.some((it) => it.isAway),
    saidReconnecting: samples.some((it) => it.isReconnecting),
    swings: swings(samples, events),
    soundBack: ofEach((event) => soundBack(samples, sound, event.to)),
    pictureBack: ofEach((event) => pictureBack(frames, event.to, ended)),
    pictureAsBefore: ofEach((event) => {
      const before = reading.samples.filter((it) => it.at >= event.from - BEFORE_MS && it.at < event.from);
      const tall = Math.max(...before.map((it) => it.video.height));
      const grown = moving.find((it) => it.at >= event.to && it.video.height >= tall);
      return grown ? grown.at - event.to : null;
    }),
  };
}

export function usage(profile: LineProfile, down: LinkCounters, ms: number): Usage {
  const rate = rateKbps(profile);
  if (rate === null || down.delivered === 0) return { utilisation: null, queueMsMean: null, queueMs95: null };
  return {
    utilisation: round((down.delivered_bytes * 8) / ms / rate, 3),
    queueMsMean: round(down.queued_us / down.delivered / 1_000, 1),
    queueMs95: round(down.queued_us_95 / 1_000, 1),
  };
}

/** A picture that is held has no height. What the line's own changes bring about is no swing: each begins anew. */
function swings(samples: Sample[], events: LineEvent[]): number {
  const changes = events.flatMap(({ from, to }) => [from, to]);
  let turns = 0;
  let direction = 0;
  for (const [place, one] of samples.entries()) {
    const before = samples[place - 1];
    if (!before) continue;
    if (changes.some((at) => at > before.at && at <= one.at)) direction = 0;
    const height = (it: Sample) => (it.isPaused ? 0 : it.video.height);
    const change = Math.sign(height(one) - height(before));
    if (change === 0) continue;
    if (direction === -change) turns++;
    direction = change;
  }
  return turns;
}

const longest = (times: (number | null)[]): number | null =>
  times.length === 0 || times.includes(null) ? null : Math.max(...(times as number[]));

/** The stream on which the sound comes: others are of slots that are empty. */
function stream(first: Sample, last: Sample): string | undefined {
  const packets = (name: string) => last.sound[name]!.packets - (first.sound[name]?.packets ?? 0);
  return Object.keys(last.sound).sort((a, b) => packets(b) - packets(a))[0];
}

function concealment(
  from: Sample,
  to: Sample,
  name: string | undefined,
): { voiced: number; silent: number } | null {
  const [a, b] = [from.sound[name ?? ''], to.sound[name ?? '']];
  if (!a || !b || b.samples <= a.samples) return null;
  const all = b.samples - a.samples;
  const silent = (b.silent ?? 0) - (a.silent ?? 0);
  return { voiced: (b.concealed - a.concealed - silent) / all, silent: silent / all };
}

function soundBack(samples: Sample[], name: string | undefined, after: number): number | null {
  const rest = samples.filter((it) => it.at >= after);
  for (const [place, from] of rest.entries()) {
    const to = rest.slice(place).find((it) => it.at >= from.at + BACK_SOUND_MS);
    if (!to) return null;
    const sound = concealment(from, to, name);
    if (sound && sound.voiced + sound.silent < BACK_CONCEALED) return from.at - after;
  }
  return null;
}

function pictureBack(frames: number[], after: number, ended: number): number | null {
  for (const at of frames.filter((it) => it >= after && it + BACK_PICTURE_MS <= ended)) {
    const next = frames.filter((it) => it >= at && it <= at + BACK_PICTURE_MS);
    if (gap(next, at, at + BACK_PICTURE_MS) <= BACK_GAP_MS) return at - after;
  }
  return null;
}

/** The longest time without a new frame. */
function gap(frames: number[], from: number, to: number): number {
  return [...frames, to].reduce(
    ({ longest, before }, at) => ({ longest: Math.max(longest, at - before), before: at }),
    { longest: 0, before: from },
  ).longest;
}

const rate = (from: Sample, to: Sample) =>
  Math.round(((to.video.bytes - from.video.bytes) * 8) / (to.at - from.at));

const round = (value: number, places: number) => Number(value.toFixed(places));
