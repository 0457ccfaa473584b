// A browser that reaches nobody but through the relay, and what its connections run over.

import type { Person } from './person.ts';

/** What is left of the ways out: relayed candidates only, and of the relay's addresses only these. */
export interface Walls {
  /** A scheme and transport, such as `turn udp` or `turns tcp`. */
  way: string;
  /** Where on this machine the relay is reached instead: the port of a line to it. */
  port?: number;
}

/** Runs in the page, before anything of the page's own. */
export function relayOnly({ way, port }: Walls): void {
  const connections: RTCPeerConnection[] = [];
  Object.assign(globalThis, { __connections: connections });
  const [scheme, transport] = way.split(' ');
  globalThis.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(configuration?: RTCConfiguration) {
      const iceServers = (configuration?.iceServers ?? []).map((server) => ({
        ...server,
        urls: [server.urls]
          .flat()
          .filter((url) => url.startsWith(`${scheme}:`) && url.endsWith(`transport=${transport}`))
          .map((url) => (port === undefined ? url : `${scheme}:127.0.0.1:${port}?transport=${transport}`)),
      }));
      super({ ...configuration, iceServers, iceTransportPolicy: 'relay' });
      connections.push(this);
    }
  } as typeof RTCPeerConnection;
}

/**
 * Runs in the page: a network in which no direct way works, though candidates are found, and the relay is reached in one
 * way. The page has to find that out by itself.
 */
export function noDirectWay({ way }: Walls): void {
  const connections: RTCPeerConnection[] = [];
  const direct = new WeakSet<RTCPeerConnection>();
  Object.assign(globalThis, { __connections: connections });
  const [scheme, transport] = way.split(' ');
  globalThis.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(configuration?: RTCConfiguration) {
      const iceServers = configuration?.iceServers ?? [];
      const isDirect = iceServers.length === 0;
      const walled = iceServers.map((server) => ({
        ...server,
        urls: [server.urls]
          .flat()
          .filter((url) => url.startsWith(`${scheme}:`) && url.endsWith(`transport=${transport}`)),
      }));
      // With the relay, what is direct comes to nothing in any case.
      super({ ...configuration, iceServers: walled, iceTransportPolicy: isDirect ? 'all' : 'relay' });
      if (isDirect) direct.add(this);
      connections.push(this);
    }

    override async setRemoteDescription(description?: RTCSessionDescriptionInit): Promise<void> {
      const sdp = description?.sdp ?? '';
      const type = description?.type ?? 'answer';
      // An address that nobody has (RFC 5737) in place of the bridge's.
      const walled = sdp.replace(/^(a=candidate:\S+ \d+ \S+ \d+) \S+ /gm, '$1 192.0.2.1 ');
      await super.setRemoteDescription({ type, sdp: direct.has(this) ? walled : sdp });
    }
  } as typeof RTCPeerConnection;
}

/** Runs in the page: changes nothing, but lets `ways` be asked. */
export function watchWays(): void {
  const connections: RTCPeerConnection[] = [];
  Object.assign(globalThis, { __connections: connections });
  globalThis.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(configuration?: RTCConfiguration) {
      super(configuration);
      connections.push(this);
    }
  } as typeof RTCPeerConnection;
}

/** What the connections in use run over: the kind of their own end, and what that reaches its relay or the bridge by. */
export async function ways(person: Person): Promise<string[]> {
  return person.page.evaluate(async () => {
    const used = new Set<string>();
    const connections = (globalThis as unknown as { __connections: RTCPeerConnection[] }).__connections;
    for (const connection of connections.filter((one) => one.connectionState === 'connected')) {
      const stats = [...(await connection.getStats()).values()] as Record<string, unknown>[];
      for (const pair of stats.filter(
        (one) => one.type === 'candidate-pair' && one.nominated && one.state === 'succeeded',
      )) {
        const local = stats.find((one) => one.id === pair.localCandidateId);
        const remote = stats.find((one) => one.id === pair.remoteCandidateId);
        used.add(`${String(local?.candidateType)} ${String(local?.relayProtocol ?? remote?.protocol)}`);
      }
    }
    return [...used];
  });
}

/** What they run over alone. */
export async function transports(person: Person): Promise<string[]> {
  return [...new Set((await ways(person)).map((way) => way.split(' ')[1]!))];
}
