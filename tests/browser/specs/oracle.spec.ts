// The oracle itself, before anything is judged by it: a call of a page with itself, without a bridge.

import { expect, test, type Page } from '@playwright/test';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { launch, type BrowserName } from '../harness/browsers.ts';
import { installOracle } from '../harness/oracle.ts';

declare global {
  interface Window {
    senders: RTCRtpSender[];
  }
}

async function callItself(page: Page): Promise<void> {
  await page.evaluate(async () => {
    const local = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
    const [a, b] = [new RTCPeerConnection(), new RTCPeerConnection()];
    a.onicecandidate = (event) => void b.addIceCandidate(event.candidate ?? undefined);
    b.onicecandidate = (event) => void a.addIceCandidate(event.candidate ?? undefined);
    b.ontrack = ({ track }) => {
      const element = document.createElement(track.kind as 'audio' | 'video');
      element.autoplay = true;
      element.srcObject = new MediaStream([track]);
      document.body.append(element);
    };
    window.senders = local.getTracks().map((track) => a.addTrack(track, local));
    await a.setLocalDescription();
    await b.setRemoteDescription(a.localDescription!);
    await b.setLocalDescription();
    await a.setRemoteDescription(b.localDescription!);
  });
}

for (const name of ['firefox', 'chromium'] satisfies BrowserName[]) {
  test(`the oracle hears and sees, and notices silence and darkness, in ${name}`, async () => {
    const server = createServer((_, response) => {
      response.setHeader('content-type', 'text/html');
      response.setHeader('content-security-policy', "default-src 'self'");
      response.end('<!doctype html><title>Oracle</title><body>');
    }).listen(0, '127.0.0.1');
    const browser = await launch(name);
    try {
      const page = await (await browser.newContext()).newPage();
      await page.addInitScript(installOracle, { toneHz: 640, camera: 'green', screen: 'blue' } as const);
      await page.goto(`http://localhost:${(server.address() as AddressInfo).port}/`);
      await callItself(page);

      const hear = () => page.evaluate(() => window.__oracle.hear([480, 640]));
      const see = () => page.evaluate(() => window.__oracle.see());
      await expect.poll(async () => (await hear()).tones[640]).toBeGreaterThan(-40);
      expect((await hear()).tones[480]).toBeLessThan(-60);
      await expect.poll(async () => (await hear()).otherDb).toBeLessThan(-55);
      await expect.poll(async () => (await see()).map((seen) => seen.colour)).toEqual(['green']);
      const first = (await see())[0]!.stamp;
      await expect.poll(async () => (await see())[0]!.stamp).not.toBe(first);
      await expect.poll(async () => (await see())[0]!.ageMs).toBeGreaterThanOrEqual(0);
      await expect.poll(async () => (await see())[0]!.ageMs).toBeLessThan(1_000);

      await page.evaluate(() => window.senders.forEach((sender) => (sender.track!.enabled = false)));
      await expect.poll(async () => (await hear()).tones[640]).toBeLessThan(-70);
      await expect.poll(async () => (await see())[0]!.colour).toBe('dark');

      await page.evaluate(() => window.senders.forEach((sender) => (sender.track!.enabled = true)));
      await expect.poll(async () => (await hear()).tones[640]).toBeGreaterThan(-40);
      await expect.poll(async () => (await see())[0]!.colour).toBe('green');

      await page.evaluate(() => Promise.all(window.senders.map((sender) => sender.replaceTrack(null))));
      await expect.poll(async () => (await hear()).tones[640]).toBeLessThan(-70);
      await expect
        .poll(async () => (await see())[0]!.ageMs > 2_000 || (await see())[0]!.stamp < 0)
        .toBe(true);
      await page.evaluate(() => document.querySelector('audio')!.pause());
      expect((await hear()).tones[640]).toBe(-200);
    } finally {
      await browser.close();
      server.close();
    }
  });
}
