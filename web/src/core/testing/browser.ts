// A scripted browser for the tests of the call logic: the edges of `Environment`, driven by hand on a virtual
// clock. Nothing here is part of the client.

import type { Environment, ResponseLike, SocketLike, StorageLike } from '../env';
import type { ClientMessage, RelayCredentials, ServerMessage } from '../protocol';

export class ScriptedSocket {
  onopen: SocketLike['onopen'] = null;
  onmessage: SocketLike['onmessage'] = null;
  onclose: SocketLike['onclose'] = null;
  readonly sent: ClientMessage[] = [];
  isClosed = false;

  constructor(readonly url: string) {}

  send(text: string): void {
    this.sent.push(JSON.parse(text) as ClientMessage);
  }

  close(): void {
    this.isClosed = true;
  }

  open(): void {
    this.onopen?.call(this as unknown as WebSocket, {} as Event);
  }

  say(message: ServerMessage): void {
    this.onmessage?.call(this as unknown as WebSocket, { data: JSON.stringify(message) } as MessageEvent);
  }

  drop(): void {
    this.onclose?.call(this as unknown as WebSocket, {} as CloseEvent);
  }

  of<T extends ClientMessage['type']>(type: T): Extract<ClientMessage, { type: T }>[] {
    return this.sent.filter((message) => message.type === type) as Extract<ClientMessage, { type: T }>[];
  }
}

export class ScriptedTrack {
  enabled = true;
  contentHint = '';
  readyState: 'live' | 'ended' = 'live';
  onended: (() => void) | null = null;
  onunmute: (() => void) | null = null;
  /** A slot's track: nothing has arrived yet. */
  muted = false;

  constructor(
    readonly kind: 'audio' | 'video',
    readonly label: string,
    private readonly size = { width: 1280, height: 720 },
  ) {}

  stop(): void {
    this.readyState = 'ended';
  }

  /** The device is pulled out. */
  end(): void {
    this.readyState = 'ended';
    this.onended?.();
  }

  getSettings(): MediaTrackSettings {
    return this.kind === 'video' ? { ...this.size } : {};
  }
}

export class ScriptedStream extends EventTarget {
  readonly tracks: ScriptedTrack[] = [];

  getTracks(): ScriptedTrack[] {
    return [...this.tracks];
  }

  getVideoTracks(): ScriptedTrack[] {
    return this.tracks.filter((track) => track.kind === 'video');
  }

  addTrack(track: ScriptedTrack): void {
    this.tracks.push(track);
  }

  removeTrack(track: ScriptedTrack): void {
    this.tracks.splice(this.tracks.indexOf(track), 1);
  }
}

class ScriptedSender {
  track: ScriptedTrack | null = null;
  readonly #encodings: RTCRtpEncodingParameters[];

  constructor(
    private readonly peer: ScriptedPeer,
    init: RTCRtpTransceiverInit,
  ) {
    this.#encodings = (init.sendEncodings ?? []).map((encoding) => ({ active: true, ...encoding }));
  }

  async replaceTrack(track: ScriptedTrack | null): Promise<void> {
    await Promise.resolve();
    this.track = track;
  }

  getParameters(): { encodings: RTCRtpEncodingParameters[] } {
    return { encodings: this.#encodings.map((encoding) => ({ ...encoding })) };
  }

  async setParameters(parameters: { encodings: RTCRtpEncodingParameters[] }): Promise<void> {
    await Promise.resolve();
    this.#encodings.splice(0, this.#encodings.length, ...parameters.encodings);
  }

  /** Which layers are on. */
  active(): boolean[] {
    return this.#encodings.map((encoding) => encoding.active ?? true);
  }

  /** How tall each layer is of a picture that is this tall. */
  heights(heightPx: number): number[] {
    return this.#encodings.map((encoding) => heightPx / (encoding.scaleResolutionDownBy ?? 1));
  }

  /** The most that each layer may take, in bit/s. */
  rates(): (number | undefined)[] {
    return this.#encodings.map((encoding) => encoding.maxBitrate);
  }

  async getStats(): Promise<Map<string, object>> {
    const entries = [
      { id: 'T', type: 'transport', selectedCandidatePairId: 'P' },
      { id: 'P', type: 'candidate-pair', localCandidateId: 'L', bytesReceived: this.peer.received() },
      { id: 'Q', type: 'candidate-pair', localCandidateId: 'M', bytesReceived: 0 },
      { id: 'L', type: 'local-candidate', candidateType: this.peer.candidateType },
    ];
    return new Map(entries.map((entry) => [entry.id, entry]));
  }
}

interface ScriptedTransceiver {
  mid: string | null;
  kind: 'audio' | 'video';
  init: RTCRtpTransceiverInit;
  sender: ScriptedSender;
  receiver: { track: ScriptedTrack };
}

export class ScriptedPeer {
  connectionState: RTCPeerConnectionState = 'new';
  onconnectionstatechange: (() => void) | null = null;
  localDescription: { sdp: string } | null = null;
  readonly transceivers: ScriptedTransceiver[] = [];
  readonly answers: string[] = [];
  signalingState: 'stable' | 'have-local-offer' = 'stable';
  iceRestarts = 0;
  #offers = 0;

  iceGatheringState: RTCIceGatheringState = 'new';
  onicegatheringstatechange: (() => void) | null = null;
  candidateType: 'host' | 'relay' = 'host';
  /** What has arrived so far, in bytes. */
  received: () => number = () => 0;

  constructor(
    readonly number: number,
    readonly configuration: RTCConfiguration,
  ) {}

  /** Something arrives on the slot of this line. */
  flow(line: number): void {
    const track = this.transceivers[line]?.receiver.track;
    if (!track) throw new Error('no such line');
    track.muted = false;
    track.onunmute?.();
  }

  /** The browser has found addresses of its own, or none. */
  gathered(candidates: string[]): void {
    const lines = candidates.map((candidate) => `\na=candidate:${candidate}`).join('');
    this.localDescription = { sdp: (this.localDescription?.sdp ?? '') + lines };
    this.iceGatheringState = 'complete';
    this.onicegatheringstatechange?.();
  }

  addTransceiver(kind: 'audio' | 'video', init: RTCRtpTransceiverInit): ScriptedTransceiver {
    const sender = new ScriptedSender(this, init);
    const slot = new ScriptedTrack(kind, `slot ${this.transceivers.length}`);
    slot.muted = true;
    const transceiver = {
      mid: null,
      kind,
      init,
      sender,
      receiver: { track: slot },
    };
    this.transceivers.push(transceiver);
    return transceiver;
  }

  async createOffer(): Promise<{ type: 'offer'; sdp: string }> {
    this.#offers += 1;
    return { type: 'offer', sdp: `peer ${this.number} offer ${this.#offers}` };
  }

  async setLocalDescription(description: { sdp: string }): Promise<void> {
    this.transceivers.forEach((transceiver, index) => (transceiver.mid = String(index)));
    this.localDescription = description;
    this.signalingState = 'have-local-offer';
  }

  async setRemoteDescription(description: { type: string; sdp: string }): Promise<void> {
    if (this.signalingState !== 'have-local-offer' || description.type !== 'answer') {
      throw new Error('InvalidStateError');
    }
    if (description.sdp === 'nonsense') throw new Error('OperationError');
    this.signalingState = 'stable';
    this.answers.push(description.sdp);
  }

  restartIce(): void {
    this.iceRestarts += 1;
  }

  close(): void {
    this.connectionState = 'closed';
  }

  become(state: RTCPeerConnectionState): void {
    this.connectionState = state;
    this.onconnectionstatechange?.();
  }
}

type Request = { audio?: MediaTrackConstraints; video?: MediaTrackConstraints };

export class ScriptedDevices {
  readonly requests: Request[] = [];
  readonly tracks: ScriptedTrack[] = [];
  /** What the next request for a device meets: an error's name, or nothing for success. */
  readonly refusals: { audio?: string; video?: string; screen?: string } = {};
  /** While set, requests wait for it: the browser's prompt is open. */
  prompt: Promise<void> | null = null;
  list: MediaDeviceInfo[] = [];
  /** Of every picture. */
  size = { width: 1280, height: 720 };
  onChange: (() => void) | null = null;

  async getUserMedia(request: Request): Promise<ScriptedStream> {
    this.requests.push(request);
    await this.prompt;
    const kind = request.audio ? 'audio' : 'video';
    const refusal = this.refusals[kind];
    if (refusal) throw Object.assign(new Error(refusal), { name: refusal });
    return this.#stream(kind);
  }

  async getDisplayMedia(): Promise<ScriptedStream> {
    const refusal = this.refusals.screen;
    if (refusal) throw Object.assign(new Error(refusal), { name: refusal });
    return this.#stream('video');
  }

  async enumerateDevices(): Promise<MediaDeviceInfo[]> {
    return this.list;
  }

  addEventListener(_type: 'devicechange', run: () => void): void {
    this.onChange = run;
  }

  device(kind: MediaDeviceKind, deviceId: string, label = deviceId): void {
    this.list = [...this.list, { kind, deviceId, label, groupId: '' } as MediaDeviceInfo];
  }

  #stream(kind: 'audio' | 'video'): ScriptedStream {
    const track = new ScriptedTrack(kind, `${kind} ${this.tracks.length}`, this.size);
    this.tracks.push(track);
    const stream = new ScriptedStream();
    stream.addTrack(track);
    return stream;
  }
}

export class ScriptedStorage implements StorageLike {
  readonly values = new Map<string, string>();

  getItem(key: string): string | null {
    return this.values.get(key) ?? null;
  }

  setItem(key: string, value: string): void {
    this.values.set(key, value);
  }

  removeItem(key: string): void {
    this.values.delete(key);
  }
}

export class ScriptedBrowser {
  timeMs = 1_800_000_000_000;
  readonly sockets: ScriptedSocket[] = [];
  readonly peers: ScriptedPeer[] = [];
  readonly fetched: string[] = [];
  /** What the token endpoint answers: a status, or null for no answer at all. */
  tokenStatus: number | null = 200;
  level = 0;
  readonly media = new ScriptedDevices();
  local: StorageLike | null = new ScriptedStorage();
  session: StorageLike | null = new ScriptedStorage();
  /** What the token endpoint says of the relay. */
  relay: RelayCredentials | undefined;
  #online: (() => void)[] = [];
  #doubt: (() => void)[] = [];
  #timers = new Map<number, { at: number; run: () => void }>();
  #nextTimer = 1;

  environment(changes: Partial<Environment> = {}): Environment {
    return {
      now: () => this.timeMs,
      random: () => 0.5,
      setTimer: (run, delayMs) => {
        const timer = this.#nextTimer++;
        this.#timers.set(timer, { at: this.timeMs + delayMs, run });
        return timer;
      },
      clearTimer: (timer) => void this.#timers.delete(timer),
      fetch: async (path): Promise<ResponseLike> => {
        this.fetched.push(path);
        const status = this.tokenStatus;
        if (status === null) throw new TypeError('NetworkError');
        const token = `token ${this.fetched.length}`;
        return {
          ok: status === 200,
          status,
          json: async () => ({ meeting: 'tea', token, relay: this.relay }),
        };
      },
      openSocket: (url) => {
        const socket = new ScriptedSocket(url);
        this.sockets.push(socket);
        return socket as unknown as SocketLike;
      },
      newPeerConnection: (configuration) => {
        const peer = new ScriptedPeer(this.peers.length + 1, configuration);
        this.peers.push(peer);
        return peer as unknown as RTCPeerConnection;
      },
      newStream: () => new ScriptedStream() as unknown as MediaStream,
      mediaDevices: this.media as unknown as MediaDevices,
      newMeter: () => ({ level: () => this.level, close: () => undefined }),
      isSecureContext: true,
      canChooseSpeaker: true,
      location: { protocol: 'https:', host: 'meet.example:8443', pathname: '/Tea' },
      localStorage: this.local,
      sessionStorage: this.session,
      onOnline: (run) => this.#online.push(run),
      onDoubt: (run) => this.#doubt.push(run),
      ...changes,
    };
  }

  get socket(): ScriptedSocket {
    const socket = this.sockets.at(-1);
    if (!socket) throw new Error('no socket was opened');
    return socket;
  }

  get peer(): ScriptedPeer {
    const peer = this.peers.at(-1);
    if (!peer) throw new Error('no peer connection was made');
    return peer;
  }

  online(): void {
    for (const run of this.#online) run();
  }

  /** The page is looked at again. */
  doubt(): void {
    for (const run of this.#doubt) run();
  }

  /** Lets every promise that can be kept be kept. */
  async settle(): Promise<void> {
    for (let i = 0; i < 50; i += 1) await Promise.resolve();
  }

  /** Lets time pass, timer by timer. */
  async pass(ms: number): Promise<void> {
    const end = this.timeMs + ms;
    await this.settle();
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (!due) break;
      this.#timers.delete(due[0]);
      this.timeMs = Math.max(this.timeMs, due[1].at);
      due[1].run();
      await this.settle();
    }
    this.timeMs = end;
  }
}
