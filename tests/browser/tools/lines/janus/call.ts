// The same call over Janus, Debian's, with its video room: for comparison.
//
// Janus offers no candidate on the loopback interface. So all of it runs in a network namespace of its own, where an
// interface that leads nowhere carries ADDRESS: lines.mjs makes it.

import type { Browser } from '@playwright/test';
import { spawn } from 'node:child_process';
import { createServer, type AddressInfo } from 'node:net';
import { createServer as createHttpServer } from 'node:http';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Link } from '../../../harness/link.ts';
import { Person } from '../../../harness/person.ts';
import { SEEDS, type Call, type Equip } from '../call.ts';
import { installJanusPage, PAGE, type JanusRoom } from './page.ts';

/** As lines.mjs gives it to the interface. */
export const ADDRESS = '10.99.0.1';

const START_MS_MAX = 10_000;
const LOG_LINES_MAX = 2_000;

export async function callJanus(browser: Browser, equip: Equip, hasFec: boolean): Promise<Call> {
  const ends: (() => Promise<unknown>)[] = [];
  const close = async () => {
    for (const end of ends.reverse()) await end().catch(() => undefined);
  };
  try {
    const janus = await startJanus();
    ends.push(janus.stop);
    const pages = await servePages();
    ends.push(pages.stop);
    const sender = await Person.at(browser, 0, { isRestless: true });
    ends.push(() => sender.close());
    const receiver = await Person.at(browser, 1, { cameraRefusal: 'NotFoundError' });
    ends.push(() => receiver.close());
    await equip(receiver);
    const room: JanusRoom = { id: 1, hasFec };
    const connect = async (person: Person, port: number, seed: number) => {
      const line = await Link.open(`${ADDRESS}:${port}`, seed);
      ends.push(() => line.close());
      await person.page.evaluate((near) => window.__janus.connect(near), line.port);
      return line;
    };
    for (const person of [sender, receiver]) {
      await person.page.addInitScript(installJanusPage, ADDRESS);
      await person.open(`http://localhost:${pages.port}/`);
    }
    const published = await sender.page.evaluate(([port, theRoom]) => window.__janus.publish(port, theRoom), [
      janus.wsPort,
      room,
    ] as const);
    const senderLine = await connect(sender, published, SEEDS.sender);
    const subscribed = await receiver.page.evaluate(
      ([port, theRoom, label]) => window.__janus.subscribe(port, theRoom, label),
      [janus.wsPort, room, sender.name] as const,
    );
    const receiverLine = await connect(receiver, subscribed, SEEDS.receiver);
    return { sender, receiver, senderLine, receiverLine, log: () => janus.lines, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function startJanus(): Promise<{ wsPort: number; lines: string[]; stop: () => Promise<void> }> {
  const own = Object.values(networkInterfaces()).flat();
  if (!own.some((it) => it?.address === ADDRESS)) throw new Error(`run "node lines.mjs": no ${ADDRESS} here`);
  const folder = mkdtempSync(join(tmpdir(), 'asamblea-janus-'));
  const wsPort = await freePort();
  // Where Debian has them; only what is named here is loaded.
  const library = '/usr/lib/x86_64-linux-gnu/janus';
  const files = {
    'janus.jcfg': `
      general: {
        configs_folder = "${folder}"
        plugins_folder = "${library}/plugins"
        transports_folder = "${library}/transports"
        events_folder = "${library}/events"
        loggers_folder = "${library}/loggers"
        debug_level = 4
        debug_colors = false
      }
      media: { ipv6 = false }
      nat: { ice_enforce_list = "${ADDRESS}" }
      plugins: { disable = "${['audiobridge', 'duktape', 'echotest', 'lua', 'nosip', 'recordplay', 'sip', 'streaming', 'textroom', 'videocall', 'voicemail'].map((it) => `libjanus_${it}.so`).join(',')}" }
      transports: { disable = "${['http', 'mqtt', 'nanomsg', 'pfunix', 'rabbitmq'].map((it) => `libjanus_${it}.so`).join(',')}" }`,
    'janus.transport.websockets.jcfg': `general: { ws = true, ws_port = ${wsPort}, ws_ip = "127.0.0.1", wss = false }
      admin: { admin_ws = false }`,
    'janus.plugin.videoroom.jcfg': 'general: {}',
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const child = spawn('janus', ['-F', folder, '-C', join(folder, 'janus.jcfg')], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    createInterface(stream).on('line', (line) => {
      lines.push(line);
      if (lines.length > LOG_LINES_MAX) lines.shift();
    });
  }
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', (error) => {
      lines.push(String(error));
      resolve();
    });
  });
  const stop = async () => {
    child.kill('SIGKILL');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  const isLate = Date.now() + START_MS_MAX;
  while (!(await isListening(wsPort))) {
    if (Date.now() > isLate || child.exitCode !== null) {
      await stop();
      throw new Error(`Janus does not start:\n${lines.slice(-20).join('\n')}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { wsPort, lines, stop };
}

async function servePages(): Promise<{ port: number; stop: () => Promise<void> }> {
  const server = createHttpServer((_, response) => {
    response.setHeader('content-type', 'text/html; charset=utf-8').end(PAGE);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return { port: (server.address() as AddressInfo).port, stop };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function isListening(port: number): Promise<boolean> {
  const { connect } = await import('node:net');
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}
