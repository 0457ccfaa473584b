import { expect, test } from '@playwright/test';
import { launch } from '../harness/browsers.ts';

interface Task {
  room: string;
  member: number;
  epochMs: number;
  fromMs: number;
  toMs: number;
}

/** What came: of each frame the counter of its last packet, and how late that was. */
type Frame = [counter: number, lateMs: number];

function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set: the load tester's --witness starts this`);
  return value;
}

test('what a browser sees of a load test', async () => {
  const port = Number(setting('LOADTEST_SERVER').split(':').at(-1));
  const task: Task = {
    room: setting('LOADTEST_ROOM'),
    member: Number(setting('LOADTEST_MEMBER')),
    epochMs: Number(setting('LOADTEST_EPOCH_US')) / 1e3,
    fromMs: Number(setting('LOADTEST_FROM_NS')) / 1e6,
    toMs: Number(setting('LOADTEST_TO_NS')) / 1e6,
  };
  const browser = await launch('chromium');
  try {
    const page = await browser.newPage();
    // The page's own code is not wanted, only its origin: the bridge takes sockets from there.
    await page.goto(`http://localhost:${port}/api/health`);
    const { frames, lostByBrowser } = await page.evaluate(watch, task);
    expect(frames.length).toBeGreaterThan(1);
    const counters = frames.map(([counter]) => counter);
    // The counters of frames' last packets are a frame's packets apart, or more of them where one is missing.
    const steps = counters.slice(1).map((counter, at) => counter - counters[at]!);
    const each = Math.min(...steps);
    const span = counters.at(-1)! - counters[0]! + each;
    const late = frames.map(([, lateMs]) => lateMs).toSorted((a, b) => a - b);
    const at = (share: number) => late[Math.min(late.length - 1, Math.floor(late.length * share))]!;
    const testimony = {
      name: `Chromium ${browser.version()}`,
      packets: frames.length * each,
      lost: Math.max(span - frames.length * each, lostByBrowser),
      latency_ms: [at(0.5), at(0.99)],
    };
    console.log(`witness ${JSON.stringify(testimony)}`);
  } finally {
    await browser.close();
  }
});

/** Runs in the page: joins, shows the publisher's picture, and looks at each frame before it is decoded. */
async function watch(task: Task): Promise<{ frames: Frame[]; lostByBrowser: number }> {
  const reply = await fetch(`/api/meetings/${task.room}/token`, { method: 'POST' });
  const { token } = (await reply.json()) as { token: string };
  const socket = new WebSocket(`ws://${location.host}/api/socket`);
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = reject;
  });
  const say = (message: object) => socket.send(JSON.stringify(message));
  const heard = (kind: string) =>
    new Promise<{ sdp: string }>((resolve, reject) => {
      socket.addEventListener('message', ({ data }: MessageEvent<string>) => {
        const message = JSON.parse(data) as { type: string; sdp: string };
        if (message.type === kind) resolve(message);
        if (message.type === 'error' || message.type === 'bye') reject(new Error(data));
      });
    });
  socket.addEventListener('message', ({ data }: MessageEvent<string>) => {
    const message = JSON.parse(data) as { type: string; nonce: number };
    if (message.type === 'ping') say({ type: 'pong', nonce: message.nonce });
  });
  const welcome = heard('welcome');
  say({ type: 'hello', versions: [1], token, name: '' });
  await welcome;

  // Chromium's own way to frames that needs no worker, which the bridge's pages may not load from a blob.
  const connection = new RTCPeerConnection({ encodedInsertableStreams: true } as RTCConfiguration);
  const { receiver } = connection.addTransceiver('video', { direction: 'recvonly' });
  type Streams = { readable: ReadableStream<{ data: ArrayBuffer }> };
  const { readable } = (receiver as unknown as { createEncodedStreams(): Streams }).createEncodedStreams();
  const offer = await connection.createOffer();
  await connection.setLocalDescription(offer);
  const answer = heard('answer');
  say({ type: 'offer', revision: 1, sdp: offer.sdp, ups: [] });
  await connection.setRemoteDescription({ type: 'answer', sdp: (await answer).sdp });
  const mid = connection.getTransceivers()[0]!.mid;
  say({ type: 'view', slots: [{ mid, up: { peer: task.member, kind: 'camera' }, height_px: 720 }] });

  const now = () => performance.timeOrigin + performance.now() - task.epochMs;
  const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
  const frames: Frame[] = [];
  const reader = readable.getReader();
  void (async () => {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lateAt = now();
      // The stamp of the frame's last packet, as `loadtest/src/traffic/stamp.rs` writes it. Nothing goes on to the
      // decoder: what bots send is no picture.
      if (value.data.byteLength < 20) continue;
      const stamp = new DataView(value.data, value.data.byteLength - 20);
      if (stamp.getUint16(0) !== 0x4c54) continue;
      const dueMs = Number(stamp.getBigUint64(12)) / 1e6;
      if (dueMs >= task.fromMs && dueMs < task.toMs) frames.push([stamp.getUint32(8), lateAt - dueMs]);
    }
  })();
  const lost = async () => {
    const reports = [...(await connection.getStats()).values()] as { type: string; packetsLost?: number }[];
    return reports.find(({ type }) => type === 'inbound-rtp')?.packetsLost ?? 0;
  };
  await pause(task.fromMs - now());
  const lostBefore = await lost();
  await pause(task.toMs + 500 - now());
  const lostByBrowser = (await lost()) - lostBefore;
  connection.close();
  socket.close();
  return { frames, lostByBrowser };
}
