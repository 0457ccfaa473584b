// The real bridge as a process of its own, and other programs of the workspace that tests start.

import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '../../..');

/** A program of the workspace, built in the profile that `tests/run` chose. */
export function program(name: string): string {
  const target = process.env['CARGO_TARGET_DIR'] ?? join(ROOT, 'target');
  const path = join(target, process.env['ASAMBLEA_PROFILE'] ?? 'debug', name);
  if (!existsSync(path)) throw new Error(`${path} is missing: run "tests/run build" first`);
  return path;
}

/** A child process that is ended by its own id, and whose last words are kept for the report of a failure. */
export class Program {
  readonly lines: string[] = [];
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;

  constructor(name: string, args: string[]) {
    // What a test starts writes nothing into the home of whoever runs it, unless a flag names a folder.
    const env = { ...process.env, ASAMBLEA_STATE_DIR: '' };
    this.#child = spawn(program(name), args, { env, stdio: ['pipe', 'pipe', 'pipe'] });
    // A program that has ended reads no more: whoever waits for what it says notices.
    this.#child.stdin!.on('error', () => undefined);
    this.#ended = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      this.#child.once('exit', (code) => resolve(code));
    });
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      createInterface(stream).on('line', (line) => {
        this.lines.push(line);
        if (this.lines.length > 2_000) this.lines.shift();
      });
    }
  }

  /** The first line that matches; fails when the program ends before it says so. */
  async says(pattern: RegExp): Promise<RegExpMatchArray> {
    for (;;) {
      const found = this.lines.map((line) => line.match(pattern)).find((match) => match !== null);
      if (found) return found;
      const ended = await Promise.race([this.#ended, pause(20).then(() => undefined)]);
      if (ended !== undefined) throw new Error(`ended with ${ended}:\n${this.lines.join('\n')}`);
    }
  }

  /** Writes a line to its stdin. */
  tell(line: string): void {
    this.#child.stdin!.write(`${line}\n`);
  }

  /** Waits for the end and gives the exit code. */
  ended(): Promise<number | null> {
    return this.#ended;
  }

  /** Ends it at once, as a crash would. */
  async crash(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  /** Asks it to end and does not wait. */
  terminate(): void {
    this.#child.kill('SIGTERM');
  }

  /** It stands still, as on a machine that is out of breath: nothing is answered and nothing is closed. */
  stall(): void {
    this.#child.kill('SIGSTOP');
  }

  /** And goes on. */
  unstall(): void {
    this.#child.kill('SIGCONT');
  }

  /** Asks it to end and makes it after five seconds. */
  async stop(): Promise<number | null> {
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 5_000);
    const code = await this.#ended;
    clearTimeout(timer);
    return code;
  }
}

export interface Bridge {
  port: number;
  program: Program;
}

export function startBridge(...flags: string[]): Promise<Bridge> {
  return startBridgeAt(0, ...flags);
}

/** On a port of one's choice, such as that of a bridge which ended. */
export async function startBridgeAt(at: number, ...flags: string[]): Promise<Bridge> {
  const bridge = new Program('asamblea', ['--port', String(at), ...flags]);
  const [, port] = await bridge.says(/^listening on port (\d+)$/);
  return { port: Number(port), program: bridge };
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
