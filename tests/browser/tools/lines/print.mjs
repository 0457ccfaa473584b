// Figures as the tables of docs/lines.md.

import { spawnSync } from 'node:child_process';
import { cpus, release, totalmem } from 'node:os';

const NAMES = { asamblea: 'Asamblea', janus: 'Janus' };
const BROWSERS = { firefox: 'Firefox', chromium: 'Chromium' };

const percent = (share) => (share === null ? '?' : `${(share * 100).toFixed(1)} %`);
const seconds = (ms) => (ms === null ? '-' : `${(ms / 1000).toFixed(1)} s`);
const millis = (ms) => (ms === null ? '-' : `${Math.round(ms)} ms`);
const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor((numbers.length - 1) / 2)];

const text = (program, ...args) => spawnSync(program, args, { encoding: 'utf8' }).stdout?.trim() ?? '';

/** What the figures were measured on. */
export function machine() {
  return {
    processor: cpus()[0]?.model ?? '?',
    cores: cpus().length,
    gigabytes: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    commit:
      text('git', 'rev-parse', '--short', 'HEAD') +
      (text('git', 'status', '--porcelain') ? ' with changes' : ''),
    build: process.env.ASAMBLEA_PROFILE ?? 'debug',
    janus: text('dpkg-query', '-W', '-f', '${Version}', 'janus') || null,
  };
}

export function summary(results, on) {
  if (!on || results.length === 0) return 'Nothing was measured.';
  const loads = results.map((one) => one.load);
  const days = results.map((one) => one.at.slice(0, 10)).toSorted();
  const when = days[0] === days.at(-1) ? days[0] : `${days[0]} to ${days.at(-1)}`;
  // A run that was broken off may have gone on elsewhere.
  const several = (key) => [...new Set(results.map((one) => one[key] ?? on[key]))].join(' and ');
  const janus = on.janus && results.some((one) => one.system === 'janus') ? `; Janus ${on.janus}` : '';
  return (
    `Measured on ${when} at commit ${several('commit')} with the **${several('build')}** build${janus}, on ${on.cores} cores ` +
    `(${on.processor}, ${on.gigabytes} GB, Linux ${on.kernel}), load average ${Math.min(...loads).toFixed(1)} to ` +
    `${Math.max(...loads).toFixed(1)}, median ${median(loads).toFixed(1)}. One run a cell.`
  );
}

const score = (one) => {
  const scores = (one.speech ?? []).map((it) => it.score);
  return scores.length === 0 ? '?' : `${median(scores).toFixed(1)} (${Math.min(...scores).toFixed(1)})`;
};
const soundDelay = (one) => {
  const delays = (one.speech ?? []).map((it) => it.delay_ms).filter((ms) => ms !== null);
  return delays.length === 0 ? '-' : millis(median(delays));
};
const back = (one) =>
  one.event ? [one.soundBack, one.pictureBack, one.pictureAsBefore].map(seconds).join(', ') : '';
const used = (one) =>
  one.utilisation === null
    ? ''
    : `${Math.round(one.utilisation * 100)} %, ${one.queueMsMean} (${one.queueMs95}) ms`;

/** Columns of the tables in full: a head, and what of a cell stands below it. */
const COLUMNS = [
  ['Speech (least)', score],
  ['Sound made up (+ silent)', (one) => `${percent(one.concealed)} (+ ${percent(one.silent)})`],
  ['from second 6', (one) => percent(one.concealedLater)],
  ['Longest freeze', (one) => seconds(one.longestFreeze)],
  ['from second 6', (one) => seconds(one.longestFreezeLater)],
  ['Frames/s', (one) => one.framesPerSecond],
  ['Video kbit/s (from second 6)', (one) => `${one.videoKbps} (${one.videoKbpsLater})`],
  ['Line used, queue (95 %)', used],
  ['Picture, lines', (one) => one.heights.slice(0, 8).join(', ')],
  ['Swings', (one) => one.swings],
  ['Age: sound, picture', (one) => `${soundDelay(one)}, ${millis(one.pictureAge)}`],
  ['Said paused', (one) => (one.pausedShare === 0 ? 'no' : `${Math.round(one.pausedShare * 100)} %`)],
  ['Sound, picture, full picture back after', back],
];

/** The columns of the comparison: what of each server stands in it. */
const COMPARED = [
  ['Speech (least)', score],
  ['Sound missing', (one) => percent(one.concealed === null ? null : one.concealed + (one.silent ?? 0))],
  ['Longest freeze from second 6', (one) => seconds(one.longestFreezeLater)],
  ['Video kbit/s from second 6', (one) => one.videoKbpsLater],
  ['Age of the picture', (one) => millis(one.pictureAge)],
  ['Back after', back],
];

const markdown = (head, rows) =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

/** For each browser and server a table, and one that sets the servers side by side. */
export function tables(results, rows) {
  const parts = [];
  for (const browser of [...new Set(results.map((one) => one.browser))]) {
    const own = results.filter((one) => one.browser === browser);
    const title = `${BROWSERS[browser] ?? browser} ${own[0].version}`;
    const systems = Object.keys(NAMES).filter((system) => own.some((one) => one.system === system));
    const of = (system, name) => own.find((one) => one.system === system && one.profile === name);
    for (const system of systems) {
      const table = rows.flatMap(({ name, says }) => {
        const one = of(system, name);
        return one ? [[says, ...COLUMNS.map(([, figure]) => figure(one))]] : [];
      });
      parts.push(
        `### ${NAMES[system]}, ${title}\n\n${markdown(['Line', ...COLUMNS.map(([head]) => head)], table)}`,
      );
    }
    if (systems.length > 1) {
      const table = rows.flatMap(({ name, says }) => {
        const [ours, theirs] = systems.map((system) => of(system, name));
        if (!ours || !theirs) return [];
        return [
          [
            says,
            ...COMPARED.map(([, figure]) =>
              [ours, theirs]
                .map(figure)
                .filter((it) => it !== '')
                .join(' / '),
            ),
          ],
        ];
      });
      const heads = COMPARED.map(([head]) => head);
      parts.push(
        `### Side by side, ${title}: ${systems.map((system) => NAMES[system]).join(' / ')}\n\n${markdown(['Line', ...heads], table)}`,
      );
    }
  }
  return `${parts.join('\n\n')}\n`;
}
