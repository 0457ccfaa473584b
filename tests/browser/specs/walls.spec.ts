// Behind walls that let no UDP out, the meeting is reached over TCP on the same port.

import { expectEveryoneMeets } from '../harness/person.ts';
import { transports } from '../harness/relay.ts';
import { expect, test } from '../harness/test.ts';

/** Takes the UDP candidates out of every answer, so that only TCP is left. */
function blockUdp(): void {
  const connections: RTCPeerConnection[] = [];
  Object.assign(globalThis, { __connections: connections });
  globalThis.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(configuration?: RTCConfiguration) {
      super(configuration);
      connections.push(this);
    }

    override async setRemoteDescription(description?: RTCSessionDescriptionInit): Promise<void> {
      const sdp = description?.sdp?.replace(/^a=candidate:\S+ \d+ udp .*\r\n/gim, '') ?? '';
      await super.setRemoteDescription({ type: description?.type ?? 'answer', sdp });
    }
  } as typeof RTCPeerConnection;
}

test('people who have only TCP meet people who have UDP', async ({ seat, link }) => {
  const [ana, berta, carlos] = [await seat(), await seat(), await seat()];
  for (const behind of [ana, berta]) await behind.page.addInitScript(blockUdp);
  for (const person of [ana, berta, carlos]) await person.join(link);
  await expectEveryoneMeets([ana, berta, carlos]);
  for (const behind of [ana, berta]) expect(await transports(behind)).toEqual(['tcp']);
});
