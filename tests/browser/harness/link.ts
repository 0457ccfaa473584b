// A bad line between one person and the bridge: an emulator of their own, which media goes through. Pages and
// signaling (TCP) go past it.

import { Program } from './bridge.ts';
import type { Person } from './person.ts';

/** One way of a line; what is not named is as on a clean one. See `tests/src/netem/profile.rs`. */
export interface LinkWay {
  loss?: number;
  burst_packets?: number;
  delay_ms?: number;
  jitter_ms?: number;
  rate_kbps?: number;
  black_hole?: boolean;
}

/** A line by name, the same both ways, or by its ways. */
export type LinkProfile = string | { up?: LinkWay; down?: LinkWay };

/** What becomes of a line, and when. See `tests/src/netem/control.rs`. */
export interface LinkOrder {
  at_ms?: number;
  profile?: LinkProfile;
  move?: boolean;
}

/** What has become of the datagrams one way. */
export interface LinkCounters {
  offered: number;
  lost: number;
  overflowed: number;
  swallowed: number;
  delivered: number;
  delivered_bytes: number;
  queued_us: number;
  queued_us_95: number;
  queued_us_max: number;
}

export interface LinkReport {
  up: LinkCounters;
  down: LinkCounters;
  moves: number;
}

export class Link {
  readonly port: number;
  readonly #program: Program;

  private constructor(program: Program, port: number) {
    this.#program = program;
    this.port = port;
  }

  /** A clean line to a bridge's port on this machine, or to one of this machine's addresses with a port. */
  static async open(bridge: number | string, seed = 1): Promise<Link> {
    const emulator = new Program('netem', ['--to', String(bridge), '--seed', String(seed)]);
    const [, port] = await emulator.says(/^\{"port":(\d+)\}$/);
    return new Link(emulator, Number(port));
  }

  /** Everything that the person's page sends and receives from now on goes through here. Before the page is opened. */
  async carry(person: Person): Promise<void> {
    await person.page.addInitScript(detour, this.port);
  }

  order(order: LinkOrder): void {
    this.#program.tell(JSON.stringify(order));
  }

  /** What has become of the datagrams since the last report. */
  async report(): Promise<LinkReport> {
    const told = () => this.#program.lines.filter((line) => line.startsWith('{"report":'));
    const before = told().length;
    this.#program.tell('{"report": true}');
    for (let tries = 0; tries < 500; tries++) {
      const line = told()[before];
      if (line) return (JSON.parse(line) as { report: LinkReport }).report;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`the emulator does not answer:\n${this.#program.lines.slice(-5).join('\n')}`);
  }

  async close(): Promise<void> {
    await this.#program.stop();
  }
}

/**
 * In the page: the only way to the bridge that a peer connection is told of is the emulator, and it asks no server for
 * others. Every connection is kept in `window.keptPeers`.
 */
function detour(port: number): void {
  const kept: RTCPeerConnection[] = [];
  Object.assign(window, { keptPeers: kept });
  const Real = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Real {
    constructor(configuration?: RTCConfiguration) {
      super({ ...configuration, iceServers: [] });
      kept.push(this);
    }

    override setRemoteDescription(description: RTCSessionDescriptionInit): Promise<void> {
      let isFirst = true;
      const lines = (description.sdp ?? '').split('\r\n').flatMap((line) => {
        if (/^m=/.test(line)) isFirst = true;
        if (!/^a=candidate:/.test(line)) return [line];
        const words = line.split(' ');
        if (!isFirst || words[2]?.toLowerCase() !== 'udp') return [];
        isFirst = false;
        [words[4], words[5]] = ['127.0.0.1', String(port)];
        return [words.join(' ')];
      });
      return super.setRemoteDescription({ type: description.type, sdp: lines.join('\r\n') });
    }
  };
}
