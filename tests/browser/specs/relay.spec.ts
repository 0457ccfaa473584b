// Browsers that allow relayed candidates only, and networks that let out little: the bridge's own TURN relay.

import { expectEveryoneMeets, type Person } from '../harness/person.ts';
import { expect, test } from '../harness/test.ts';

/** What is left of the ways out: relayed candidates only, and of the relay's addresses only these. */
interface Walls {
  /** A scheme and transport, such as `turn udp` or `turns tcp`. */
  way: string;
}

function relayOnly({ way }: Walls): void {
  const connections: RTCPeerConnection[] = [];
  Object.assign(globalThis, { __connections: connections });
  const [scheme, transport] = way.split(' ');
  globalThis.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(configuration?: RTCConfiguration) {
      const iceServers = (configuration?.iceServers ?? []).map((server) => ({
        ...server,
        urls: [server.urls]
          .flat()
          .filter((url) => url.startsWith(`${scheme}:`) && url.endsWith(`transport=${transport}`)),
      }));
      super({ ...configuration, iceServers, iceTransportPolicy: 'relay' });
      connections.push(this);
    }
  } as typeof RTCPeerConnection;
}

/** What the connections in use run over: the kind of their own end and how that reaches its relay. */
async function ways(person: Person): Promise<string[]> {
  return person.page.evaluate(async () => {
    const used = new Set<string>();
    const connections = (globalThis as unknown as { __connections: RTCPeerConnection[] }).__connections;
    for (const connection of connections.filter((one) => one.connectionState === 'connected')) {
      const stats = [...(await connection.getStats()).values()] as Record<string, unknown>[];
      for (const pair of stats.filter(
        (one) => one.type === 'candidate-pair' && one.nominated && one.state === 'succeeded',
      )) {
        const local = stats.find((one) => one.id === pair.localCandidateId);
        used.add(`${String(local?.candidateType)} ${String(local?.relayProtocol)}`);
      }
    }
    return [...used];
  });
}

for (const transport of ['udp', 'tcp']) {
  test(`people whose browsers allow relayed candidates only meet over ${transport}`, async ({ seat, link }) => {
    const [ana, berta, carlos] = [await seat(), await seat(), await seat()];
    for (const one of [ana, berta]) await one.page.addInitScript(relayOnly, { way: `turn ${transport}` });
    for (const person of [ana, berta, carlos]) await person.join(link);
    await expectEveryoneMeets([ana, berta, carlos]);
    for (const one of [ana, berta]) expect(await ways(one)).toEqual([`relay ${transport}`]);
    // Channels, permissions and allocations have begun; the call goes on through them.
    await berta.press('Leave');
    await ana.expectHears([carlos], [ana, carlos]);
  });
}
