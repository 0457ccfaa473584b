// What the call logic remembers: chosen devices beyond the tab, the membership beyond a reload.
// Works without storage as well; then it forgets.

import type { StorageLike } from './env';

const DEVICES = 'asamblea-devices';
const RELAY = 'asamblea-relay';
const MEMBERSHIP = 'asamblea-membership';

/** Device ids; '' is the browser's default. */
export interface ChosenDevices {
  microphone: string;
  camera: string;
  speaker: string;
}

/** What a reloaded page needs to go on without asking. Gone when the tab is closed or the meeting left. */
export interface Membership {
  meeting: string;
  resume: string;
  name: string;
  microphoneOn: boolean;
  cameraOn: boolean;
  /** When the server was last heard, in milliseconds since the epoch. */
  heardAt: number;
  /** For how long after that the server keeps the place. */
  resumeMs: number;
}

export function readDevices(storage: StorageLike | null): ChosenDevices {
  const stored = read(storage, DEVICES);
  const id = (key: keyof ChosenDevices) => (typeof stored[key] === 'string' ? stored[key] : '');
  return { microphone: id('microphone'), camera: id('camera'), speaker: id('speaker') };
}

export function writeDevices(storage: StorageLike | null, devices: ChosenDevices): void {
  write(storage, DEVICES, devices);
}

/** Whether the last connection from this browser to this server went through the relay. */
export function readRelay(storage: StorageLike | null): boolean {
  return read(storage, RELAY)['isNeeded'] === true;
}

export function writeRelay(storage: StorageLike | null, isNeeded: boolean): void {
  if (isNeeded) write(storage, RELAY, { isNeeded });
  else attempt(() => storage?.removeItem(RELAY));
}

/** The membership to take up again, if it is of this meeting and the server may still keep it. */
export function readMembership(storage: StorageLike | null, meeting: string, now: number): Membership | null {
  const { resume, name, microphoneOn, cameraOn, heardAt, resumeMs, ...rest } = read(storage, MEMBERSHIP);
  if (
    rest['meeting'] !== meeting ||
    typeof resume !== 'string' ||
    typeof name !== 'string' ||
    typeof heardAt !== 'number' ||
    typeof resumeMs !== 'number' ||
    now - heardAt > resumeMs
  ) {
    return null;
  }
  return {
    meeting,
    resume,
    name,
    microphoneOn: microphoneOn === true,
    cameraOn: cameraOn === true,
    heardAt,
    resumeMs,
  };
}

export function writeMembership(storage: StorageLike | null, membership: Membership | null): void {
  if (membership) write(storage, MEMBERSHIP, membership);
  else attempt(() => storage?.removeItem(MEMBERSHIP));
}

function read(storage: StorageLike | null, key: string): Record<string, unknown> {
  const value = attempt((): unknown => JSON.parse(storage?.getItem(key) ?? '{}'));
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function write(storage: StorageLike | null, key: string, value: object): void {
  attempt(() => storage?.setItem(key, JSON.stringify(value)));
}

/** Storage may be full, forbidden or hold what someone else wrote; none of that may end a meeting. */
function attempt<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch {
    return undefined;
  }
}
