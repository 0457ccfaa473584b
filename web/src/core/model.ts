// What the call logic (src/core) shows to the view (src/ui), and what the view may ask of it.
//
// The view reads signals and calls actions; it never touches a socket, a peer connection or a device itself.
// Only plain values and MediaStreams cross this line, so that the call logic outlives the view library.

import type { ReadonlySignal } from '@preact/signals-core';

export type Kind = 'microphone' | 'camera' | 'screen';

/** Where a person is on their way through a meeting. */
export type Phase =
  | 'lobby' // pre-join: preview, names, devices
  | 'joining' // Join was pressed; the socket and the media are being set up
  | 'meeting' // in; see `link` for how the line is
  | 'left' // left on purpose; can rejoin
  | 'refused'; // cannot be in; `problem` says why and what to do

/** How well a person's line carries what is asked of it, as the server measures it. */
export type Line = 'good' | 'weak' | 'lost';

/** How the connection to the bridge is while in a meeting. */
export type Link = 'up' | 'reconnecting' | 'media-reconnecting';

/** A code the view turns into a sentence with a next step; never shown raw. */
export type Problem =
  | 'meeting-full'
  | 'server-full'
  | 'bad-name' // the link holds no name that a meeting can have
  | 'server-unreachable'
  | 'outdated-client' // protocol version: reload the page
  | 'replaced' // the same membership went on in another tab
  | 'no-webrtc' // browser without WebRTC
  | 'insecure-context' // http:// to another machine: no devices
  | 'media-failed' // no media path could be made
  | 'server-stopping'
  | 'internal';

/** One device choice and what became of it. */
export interface DeviceState {
  /** off: not asked for; asking: the browser's prompt is open; live; or why there is none. */
  status: 'off' | 'asking' | 'live' | 'denied' | 'missing' | 'busy' | 'failed';
  /** Devices to choose from; labels are empty until permission was given once. */
  choices: { id: string; label: string }[];
  /** The one in use or preferred; '' is the browser's default. */
  chosen: string;
}

export interface Devices {
  microphone: ReadonlySignal<DeviceState>;
  camera: ReadonlySignal<DeviceState>;
  /** Audio outputs; empty where the browser cannot choose (then hide the choice). */
  speaker: ReadonlySignal<DeviceState>;
  /** 0 silent to 1 full scale, about 20 times a second while the microphone is live. */
  microphoneLevel: ReadonlySignal<number>;
  /** The own camera, for preview and self view; null while off. */
  preview: ReadonlySignal<MediaStream | null>;
}

/** A person in the meeting, the own one included. */
export interface Person {
  id: number;
  /** As they typed it; may be empty: the view shows a word for "Guest" then. */
  name: string;
  isSelf: boolean;
  /** False while their connection is lost and they may come back. */
  present: boolean;
  microphone: boolean;
  camera: boolean;
  screen: boolean;
  /** Speaks now. */
  speaking: boolean;
  /** How their line is. */
  line: Line;
}

/** What can have a tile: a person's camera (or their initials), or a shared screen. */
export interface TileId {
  person: number;
  kind: 'camera' | 'screen';
}

export interface Meeting {
  phase: ReadonlySignal<Phase>;
  link: ReadonlySignal<Link>;
  problem: ReadonlySignal<Problem | null>;
  /** The meeting's name as shown; '' on the start page. */
  name: ReadonlySignal<string>;
  people: ReadonlySignal<Person[]>;
  devices: Devices;
  /** How the own line is, without flickering: for a sentence, where `people` is for signs. */
  ownLine: ReadonlySignal<Line>;
  /** The own wishes; what really flows is in `people`. */
  microphoneOn: ReadonlySignal<boolean>;
  cameraOn: ReadonlySignal<boolean>;
  sharing: ReadonlySignal<boolean>;
  /** Whether this browser can share a screen at all. */
  canShare: boolean;
  /** Transient things to say politely, newest last; the view announces and dismisses them. */
  notices: ReadonlySignal<Notice[]>;
  /** Streams to play: keyed `${person}:${kind}`; a tile without one shows initials (or "waiting" if camera is on). */
  videos: ReadonlySignal<ReadonlyMap<string, MediaStream>>;
  /** Tiles, keyed likewise, whose picture is held back since the own line cannot carry it now. */
  paused: ReadonlySignal<ReadonlySet<string>>;
  /** Audio slots to play, each in its own <audio autoplay>; stable for the whole call. */
  audios: ReadonlySignal<readonly MediaStream[]>;
  /** True when the browser refused to play sound: the view shows a button that calls `resumeSound`. */
  soundBlocked: ReadonlySignal<boolean>;

  /** Someone reaches for Join: opens the line ahead of the click. Never needed, saves a round trip or two. */
  getReady?(): void;
  join(name: string): Promise<void>;
  leave(): void;
  rejoin(): void;
  setMicrophone(on: boolean): void;
  setCamera(on: boolean): void;
  /** Must be called inside a click: the browser asks what to share. */
  setSharing(on: boolean): Promise<void>;
  choose(device: 'microphone' | 'camera' | 'speaker', id: string): Promise<void>;
  /** Asks again for a device after it was denied, missing or busy. */
  retry(device: 'microphone' | 'camera'): Promise<void>;
  rename(name: string): void;
  resumeSound(): void;
  soundWasBlocked(): void;
  /** The view's layout: what is shown and how tall in device pixels; in order of importance. Call on every change. */
  show(tiles: { tile: TileId; heightPx: number }[]): void;
  dismiss(notice: number): void;
}

/** Something to say once. `code` names a Fluent message `notice-<code>`. */
export interface Notice {
  id: number;
  code:
    | 'someone-joined'
    | 'someone-left'
    | 'camera-lost'
    | 'microphone-lost'
    | 'share-ended'
    | 'share-failed'
    | 'camera-denied'
    | 'camera-missing'
    | 'camera-busy'
    | 'microphone-denied'
    | 'microphone-missing'
    | 'microphone-busy'
    | 'speaking-while-muted'
    | 'reconnected'
    | 'server-refused';
  name?: string;
}
