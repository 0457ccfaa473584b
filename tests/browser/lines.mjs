#!/usr/bin/env node
// What people hear and see over bad lines, per browser, server and line; and the same over Debian's Janus.
//
//   node lines.mjs [--browsers firefox,chromium] [--systems asamblea,janus] [--profiles clean,loss-10]
//                  [--keep FOLDER] [--again] [--print]
//
// After "tests/run build"; better with a release build: ASAMBLEA_PROFILE=release node lines.mjs
// Prints JSON and tables in Markdown. FOLDER keeps all that was noted, and the tables: what it has already is not
// measured again, unless with --again. With --print nothing is measured, and what FOLDER keeps is printed.
//
// Installs what it needs (Debian's espeak-ng, PulseAudio, a C compiler, Janus; numpy and pesq from PyPI into target/lines-python)
// and says so; without it leaves out speech or Janus and says that.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { inNamespace, prepareJanus, prepareSpeech, startSound } from './tools/lines/prepare.mjs';
import { machine, summary, tables } from './tools/lines/print.mjs';

const { values } = parseArgs({
  options: {
    browsers: { type: 'string', default: 'firefox,chromium' },
    systems: { type: 'string', default: 'asamblea,janus' },
    profiles: { type: 'string', default: '' },
    keep: { type: 'string' },
    again: { type: 'boolean', default: false },
    print: { type: 'boolean', default: false },
  },
});
const folder = values.keep ? resolve(values.keep) : mkdtempSync(join(tmpdir(), 'asamblea-lines-'));
mkdirSync(folder, { recursive: true });
const here = import.meta.dirname ?? new URL('.', import.meta.url).pathname;

/** Rows stand in the order of the profiles. */
const rows = [
  ...readFileSync(join(here, 'tools/lines/profiles.ts'), 'utf8').matchAll(/row\(\s*'([^']+)',\s*'([^']+)'/g),
].map(([, name, says]) => ({ name, says }));
/** Janus can be told to leave sound without repair, which shows that the score can tell. */
const JANUS_ALONE = ['loss-30-bare'];

const list = (words) => words.split(',').filter(Boolean);
const profiles = list(values.profiles);
const unknown = profiles.filter((name) => !rows.some((row) => row.name === name));
if (unknown.length > 0)
  throw new Error(`no such profile: ${unknown}; there are ${rows.map((row) => row.name)}`);

const cells = list(values.browsers).flatMap((browser) =>
  rows
    .filter(({ name }) => profiles.length === 0 || profiles.includes(name))
    .flatMap(({ name }) =>
      list(values.systems)
        .filter((system) => system === 'janus' || !JANUS_ALONE.includes(name))
        .map((system) => ({ browser, system, name: `${browser}-${system}-${name}` })),
    ),
);
const fileOf = (cell, kind) => join(folder, `${cell.name}.${kind}`);
const isMeasured = (cell) => existsSync(fileOf(cell, 'json'));

function measure() {
  if (values.again) {
    for (const cell of cells) {
      for (const kind of ['json', 'speech.json', 'score.json', 'wav', 'log'])
        rmSync(fileOf(cell, kind), { force: true });
    }
  }
  const python = prepareSpeech(folder);
  const hasJanus = cells.some((cell) => cell.system === 'janus' && !isMeasured(cell)) && prepareJanus();
  const wanted = cells.filter((cell) => !isMeasured(cell) && (cell.system !== 'janus' || hasJanus));
  console.log(`${cells.length} cells, ${wanted.length} to measure`);
  if (wanted.length > 0) {
    const projects = [...new Set(wanted.map((cell) => cell.browser))].map((name) => `--project=${name}`);
    // A cell that fails is measured once more, and the others are measured whatever becomes of it.
    const command = [
      'npx',
      'playwright',
      'test',
      '-c',
      'tools.config.ts',
      'lines.tool',
      '--retries=1',
      ...projects,
    ];
    const sound = wanted.some((cell) => cell.browser === 'firefox') ? startSound() : null;
    const [program, ...args] = hasJanus ? inNamespace(command) : command;
    spawnSync(program, args, {
      cwd: here,
      env: {
        ...process.env,
        ASAMBLEA_FIGURES: folder,
        ASAMBLEA_COMMIT: machine().commit,
        ASAMBLEA_CELLS: wanted.map((cell) => cell.name).join(','),
        ...(sound && { ASAMBLEA_PULSE: sound.server }),
      },
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    sound?.stop();
    writeFileSync(join(folder, 'machine.json'), JSON.stringify(machine()));
  }
  if (python) spawnSync(python, [join(here, 'tools/lines/speech.py'), 'score', folder], { stdio: 'inherit' });
}

const read = (file) => (existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : null);

try {
  if (!values.print) measure();
  const results = cells.filter(isMeasured).map((cell) => ({
    ...read(fileOf(cell, 'json')).result,
    speech: read(fileOf(cell, 'score.json')),
  }));
  const missing = cells.filter((cell) => !isMeasured(cell)).map((cell) => cell.name);
  console.log(JSON.stringify({ machine: read(join(folder, 'machine.json')), lines: results, missing }));
  const printed = `${summary(results, read(join(folder, 'machine.json')))}\n\n${tables(results, rows)}`;
  console.log(`\n${printed}`);
  if (values.keep) writeFileSync(join(folder, 'table.md'), printed);
  if (missing.length > 0) {
    console.log(`Not measured: ${missing.join(', ')}`);
    process.exitCode = 1;
  }
} finally {
  if (!values.keep) rmSync(folder, { recursive: true });
}
