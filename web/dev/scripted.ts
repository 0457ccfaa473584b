// A meeting by script, to look at the screens without a server: for development and tests, never part of the build.

import { signal } from '@preact/signals';
import type {
  DeviceState,
  Line,
  Link,
  Meeting,
  Notice,
  Person,
  Phase,
  Problem,
  TileId,
} from '../src/core/model';

export interface Script {
  phase?: Phase;
  link?: Link;
  ownLine?: Line;
  problem?: Problem | null;
  name?: string;
  people?: Person[];
  microphone?: Partial<DeviceState>;
  camera?: Partial<DeviceState>;
  speaker?: Partial<DeviceState>;
  level?: number;
  preview?: MediaStream | null;
  microphoneOn?: boolean;
  cameraOn?: boolean;
  sharing?: boolean;
  soundBlocked?: boolean;
  notices?: Notice[];
  videos?: Map<string, MediaStream>;
  paused?: Set<string>;
}

export interface ScriptedMeeting extends Meeting {
  /** What the view asked to see, newest last. */
  shown: { tile: TileId; heightPx: number }[][];
  /** The actions that were called, in order. */
  calls: string[];
}

const PLAIN: DeviceState = { status: 'live', choices: [], chosen: '' };

export function person(id: number, name: string, more: Partial<Person> = {}): Person {
  return {
    id,
    name,
    isSelf: false,
    present: true,
    microphone: true,
    camera: true,
    screen: false,
    speaking: false,
    line: 'good',
    ...more,
  };
}

export function scriptedMeeting(script: Script = {}): ScriptedMeeting {
  const phase = signal<Phase>(script.phase ?? 'meeting');
  const microphoneOn = signal(script.microphoneOn ?? true);
  const cameraOn = signal(script.cameraOn ?? true);
  const sharing = signal(script.sharing ?? false);
  const notices = signal<Notice[]>(script.notices ?? []);
  const soundBlocked = signal(script.soundBlocked ?? false);
  const shown: ScriptedMeeting['shown'] = [];
  const calls: string[] = [];
  return {
    phase,
    link: signal<Link>(script.link ?? 'up'),
    ownLine: signal<Line>(script.ownLine ?? 'good'),
    problem: signal<Problem | null>(script.problem ?? null),
    name: signal(script.name ?? 'green-river-kind-table-042-917-386'),
    people: signal(script.people ?? [person(1, 'Ana', { isSelf: true })]),
    devices: {
      microphone: signal({ ...PLAIN, ...script.microphone }),
      camera: signal({ ...PLAIN, ...script.camera }),
      speaker: signal({ ...PLAIN, ...script.speaker }),
      microphoneLevel: signal(script.level ?? 0),
      preview: signal(script.preview ?? null),
    },
    microphoneOn,
    cameraOn,
    sharing,
    canShare: true,
    notices,
    videos: signal<ReadonlyMap<string, MediaStream>>(script.videos ?? new Map()),
    paused: signal<ReadonlySet<string>>(script.paused ?? new Set()),
    audios: signal<readonly MediaStream[]>([]),
    soundBlocked,
    shown,
    calls,
    async join(name) {
      calls.push(`join ${name}`);
      phase.value = 'meeting';
    },
    leave() {
      calls.push('leave');
      phase.value = 'left';
    },
    rejoin() {
      calls.push('rejoin');
      phase.value = 'meeting';
    },
    setMicrophone(on) {
      microphoneOn.value = on;
    },
    setCamera(on) {
      cameraOn.value = on;
    },
    async setSharing(on) {
      sharing.value = on;
    },
    async choose(device, id) {
      calls.push(`choose ${device} ${id}`);
    },
    async retry(device) {
      calls.push(`retry ${device}`);
    },
    rename(name) {
      calls.push(`rename ${name}`);
    },
    resumeSound() {
      soundBlocked.value = false;
    },
    soundWasBlocked() {
      soundBlocked.value = true;
    },
    show(tiles) {
      shown.push(tiles);
    },
    dismiss(id) {
      notices.value = notices.value.filter((notice) => notice.id !== id);
    },
  };
}
