// What the call logic asks of the browser, as one interface, so that a test can be the browser.
//
// Nothing in src/core touches a global: `browser.ts` is the only file that knows where these things really live.

/** The part of a WebSocket that is used. */
export type SocketLike = Pick<WebSocket, 'onopen' | 'onmessage' | 'onclose' | 'send' | 'close'>;

/** Measures how loud a track is. */
export interface Meter {
  /** 0 silent to 1 full scale; logarithmic, 0 at -60 dBFS. */
  level(): number;
  close(): void;
}

/** The part of `Storage` that is used. */
export type StorageLike = Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>;

/** The part of `Response` that is used. */
export interface ResponseLike {
  ok: boolean;
  status: number;
  json(): Promise<unknown>;
}

export interface Environment {
  /** Milliseconds since the epoch. */
  now(): number;
  /** 0 to below 1; for jitter, not for secrets. */
  random(): number;
  setTimer(run: () => void, delayMs: number): number;
  clearTimer(timer: number): void;
  fetch(path: string, options: { method: string }): Promise<ResponseLike>;
  openSocket(url: string): SocketLike;
  /** Null where the browser has no WebRTC. */
  newPeerConnection: ((configuration: RTCConfiguration) => RTCPeerConnection) | null;
  newStream(): MediaStream;
  /** Null where there is none: in an insecure context. */
  mediaDevices: MediaDevices | null;
  /** Null when sound cannot be measured. */
  newMeter(track: MediaStreamTrack): Meter | null;
  isSecureContext: boolean;
  /** Whether an element's sound can be sent to a chosen output. */
  canChooseSpeaker: boolean;
  location: { protocol: string; host: string; pathname: string };
  /** Survives the tab; null where the browser refuses it. */
  localStorage: StorageLike | null;
  /** Survives a reload of the tab; null where the browser refuses it. */
  sessionStorage: StorageLike | null;
  /** Calls back when the network has come back. */
  onOnline(run: () => void): void;
  /** Calls back when the line may be dead unnoticed: the page was away and its timers slept, or the network changed. */
  onDoubt(run: () => void): void;
}
