// A page for Janus' video room over its JSON on a WebSocket, with as little as two people need: one publishes a
// microphone and a camera, one subscribes to them. Written from the documentation of the API.
//
// Each connection is made in two steps, so that an emulator can be put between: first the page learns the port that
// Janus has opened for it, then it is told which port to take for that.

/** What a page does. `wsPort` is Janus' own port. */
export interface JanusPage {
  /** Publishes microphone and camera. Gives the port that Janus opened. */
  publish(wsPort: number, room: JanusRoom): Promise<number>;
  /** Subscribes to who publishes. Gives the port that Janus opened. */
  subscribe(wsPort: number, room: JanusRoom, label: string): Promise<number>;
  /** Connects by way of a port on 127.0.0.1. */
  connect(port: number): Promise<void>;
}

export interface JanusRoom {
  id: number;
  /** Whether sound has forward error correction. */
  hasFec: boolean;
}

declare global {
  interface Window {
    __janus: JanusPage;
  }
}

export const PAGE = `<!doctype html><meta charset="utf-8"><title>Janus</title><ul></ul>`;

/** In the page; may use nothing from this file. */
export function installJanusPage(address: string): void {
  interface Answer {
    janus: string;
    transaction?: string;
    error?: { code: number; reason: string };
    data?: { id: number };
    plugindata?: { data: Record<string, unknown> & { error?: string; error_code?: number } };
    jsep?: RTCSessionDescriptionInit;
  }
  /** Longer than a request takes on a busy machine. */
  const PATIENCE_MS = 20_000;
  const KEEP_ALIVE_MS = 20_000;
  /** The same layers as the other server's client sends, the tallest first, as Janus takes them. */
  const LAYERS = [
    { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 1_200_000 },
    { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 350_000 },
    { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 120_000 },
  ];
  const ROOM_EXISTS = 427;

  const attach = async (wsPort: number) => {
    const socket = new WebSocket(`ws://127.0.0.1:${wsPort}`, 'janus-protocol');
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = () => reject(new Error('no WebSocket to Janus'));
    });
    const waiting = new Map<string, (answer: Answer) => void>();
    socket.onmessage = ({ data }) => {
      const answer = JSON.parse(data) as Answer;
      // An event follows.
      if (answer.janus === 'ack' || !answer.transaction) return;
      waiting.get(answer.transaction)?.(answer);
    };
    const ids: Record<string, number> = {};
    let count = 0;
    const ask = (request: Record<string, unknown>): Promise<Answer> =>
      new Promise((resolve, reject) => {
        const transaction = String(++count);
        const what = JSON.stringify(request).slice(0, 100);
        setTimeout(() => reject(new Error(`Janus does not answer ${what}`)), PATIENCE_MS);
        waiting.set(transaction, (answer) => {
          if (answer.error) reject(new Error(`${answer.error.reason}: ${what}`));
          else resolve(answer);
        });
        socket.send(JSON.stringify({ ...request, ...ids, transaction }));
      });
    ids['session_id'] = (await ask({ janus: 'create' })).data!.id;
    ids['handle_id'] = (await ask({ janus: 'attach', plugin: 'janus.plugin.videoroom' })).data!.id;
    setInterval(() => {
      socket.send(JSON.stringify({ janus: 'keepalive', session_id: ids['session_id'], transaction: 'keep' }));
    }, KEEP_ALIVE_MS);
    return async (body: Record<string, unknown>, jsep?: RTCSessionDescriptionInit) => {
      const answer = await ask({ janus: 'message', body, ...(jsep && { jsep }) });
      const { error, error_code: code } = answer.plugindata?.data ?? {};
      if (error && code !== ROOM_EXISTS) throw new Error(`${error}: ${JSON.stringify(body)}`);
      return answer;
    };
  };

  const kept: RTCPeerConnection[] = [];
  Object.assign(window, { keptPeers: kept });
  let detoured: ((port: number) => Promise<void>) | undefined;

  const newPeer = () => {
    const peer = new RTCPeerConnection({ iceServers: [], bundlePolicy: 'max-bundle' });
    kept.push(peer);
    return peer;
  };
  const isCandidate = (line: string) => /^a=(candidate:|end-of-candidates)/.test(line);
  /** Of candidates only one; the others would lead past the emulator. */
  const withCandidate = (sdp: string, words: string) => {
    let isFirst = true;
    return sdp
      .split('\r\n')
      .filter((line) => !isCandidate(line) && !/^a=ice-options:.*trickle/.test(line))
      .flatMap((line) => {
        if (!/^a=mid:/.test(line) || !isFirst) return [line];
        isFirst = false;
        return [line, `a=candidate:1 1 udp 2122260223 ${words} typ host`, 'a=end-of-candidates'];
      })
      .join('\r\n');
  };
  /** A page tells Janus nothing of its own addresses: Janus learns the emulator's from the checks. Port 9 discards. */
  const bare = ({ type, sdp }: RTCSessionDescription) => ({ type, sdp: withCandidate(sdp, `${address} 9`) });
  const byWayOf = ({ type, sdp }: RTCSessionDescriptionInit, port: number) => ({
    type,
    sdp: withCandidate(sdp ?? '', `127.0.0.1 ${port}`),
  });
  const portOf = ({ sdp }: RTCSessionDescriptionInit) => {
    const found = (sdp ?? '').match(/^a=candidate:\S+ 1 udp \d+ \S+ (\d+) typ host/im);
    if (!found) throw new Error(`Janus has no candidate:\n${sdp}`);
    return Number(found[1]);
  };
  const connected = async (peer: RTCPeerConnection) => {
    const isLate = Date.now() + PATIENCE_MS;
    while (peer.connectionState !== 'connected') {
      if (Date.now() > isLate) throw new Error(`the connection is ${peer.connectionState}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };

  const show = (label: string, track: MediaStreamTrack) => {
    const stream = new MediaStream([track]);
    const element = document.createElement(track.kind === 'audio' ? 'audio' : 'video');
    element.autoplay = true;
    element.srcObject = stream;
    const item = document.createElement('li');
    item.append(element);
    if (track.kind === 'video') {
      item.dataset['person'] = label;
      item.setAttribute('aria-label', label);
    }
    document.querySelector('ul')!.append(item);
    void element.play();
  };

  window.__janus = {
    publish: async (wsPort, { id: room, hasFec }) => {
      const ask = await attach(wsPort);
      await ask({
        request: 'create',
        room,
        publishers: 2,
        audiocodec: 'opus',
        videocodec: 'vp8',
        opus_fec: hasFec,
        transport_wide_cc_ext: true,
        audiolevel_ext: true,
        // No limit: what is in the layers is what the other server gets too.
        bitrate: 0,
      });
      await ask({ request: 'join', ptype: 'publisher', room });
      const peer = newPeer();
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
      const [sound, picture] = [stream.getAudioTracks()[0]!, stream.getVideoTracks()[0]!];
      sound.contentHint = 'speech';
      picture.contentHint = 'motion';
      peer.addTransceiver(sound, { direction: 'sendonly' });
      peer.addTransceiver(picture, { direction: 'sendonly', sendEncodings: LAYERS });
      await peer.setLocalDescription();
      const { jsep } = await ask({ request: 'publish' }, bare(peer.localDescription!));
      detoured = async (port) => {
        await peer.setRemoteDescription(byWayOf(jsep!, port));
        await connected(peer);
      };
      return portOf(jsep!);
    },

    subscribe: async (wsPort, { id: room }, label) => {
      const ask = await attach(wsPort);
      // Who publishes is listed once Janus has heard of the connection, which may be after the publisher has.
      const isLate = Date.now() + PATIENCE_MS;
      let feed: number | undefined;
      while (feed === undefined) {
        if (Date.now() > isLate) throw new Error('nobody publishes');
        const listed = await ask({ request: 'listparticipants', room });
        const people = listed.plugindata!.data['participants'] as { id: number; publisher: boolean }[];
        feed = people.find((one) => one.publisher)?.id;
      }
      const { jsep } = await ask({ request: 'join', ptype: 'subscriber', room, streams: [{ feed }] });
      const peer = newPeer();
      peer.ontrack = ({ track }) => show(label, track);
      detoured = async (port) => {
        await peer.setRemoteDescription(byWayOf(jsep!, port));
        await peer.setLocalDescription();
        await ask({ request: 'start' }, bare(peer.localDescription!));
        await connected(peer);
      };
      return portOf(jsep!);
    },

    connect: (port) => detoured!(port),
  };
}
