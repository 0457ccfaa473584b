// The lines that are measured: the rows of docs/lines.md.

import type { LinkOrder, LinkWay } from '../../harness/link.ts';

/** How long two people are in a meeting over clean lines before anything happens, in ms. */
export const SETTLE_MS = 5_000;

export interface LineProfile {
  name: string;
  /** What it is, for the table. */
  says: string;
  /** How long is measured, in ms. */
  ms: number;
  /** What becomes of the line of the one who sends, and of the one who receives, from the beginning on. */
  sender?: LinkOrder[];
  receiver?: LinkOrder[];
  /** Where something passes, once or more: when it begins and when the line is good again, in ms. */
  events?: LineEvent[];
  /** Sound has no error correction: shows whether the score can tell. Measured with Janus, which can be told so. */
  isUnrepaired?: boolean;
}

export interface LineEvent {
  from: number;
  to: number;
}

/** Four pieces of speech, and what the line holds them up. */
const STEADY_MS = 25_000;
/** Long enough for the picture to find what the line carries. */
const STEPS_MS = 10_000;

const down = (way: LinkWay): Partial<LineProfile> => ({
  ms: STEADY_MS,
  receiver: [{ profile: { down: way } }],
});
const both = (way: LinkWay): Partial<LineProfile> => ({
  ms: STEADY_MS,
  receiver: [{ profile: { up: way, down: way } }],
});

const row = (name: string, says: string, rest: Partial<LineProfile>): LineProfile => ({
  name,
  says,
  ms: STEADY_MS,
  ...rest,
});

export const PROFILES: LineProfile[] = [
  row('clean', 'clean', {}),
  row('loss-5', '5 % loss', down({ loss: 0.05 })),
  row('loss-10', '10 % loss', down({ loss: 0.1 })),
  row('loss-20', '20 % loss', down({ loss: 0.2 })),
  row('loss-30', '30 % loss', down({ loss: 0.3 })),
  row('loss-30-bare', '30 % loss without any repair of sound (a check of the score)', {
    ...down({ loss: 0.3 }),
    isUnrepaired: true,
  }),
  row('burst-10', '10 % loss in bursts of 5', down({ loss: 0.1, burst_packets: 5 })),
  row('loss-up-10', '10 % loss on the way up from the sender', {
    sender: [{ profile: { up: { loss: 0.1 } } }],
  }),
  row('rtt-300', '300 ms round trip', both({ delay_ms: 150 })),
  row('jitter-60', 'up to 60 ms jitter', down({ jitter_ms: 60 })),
  row('rate-1000', '1 Mbit/s', down({ rate_kbps: 1_000 })),
  row('rate-300', '300 kbit/s', down({ rate_kbps: 300 })),
  row('rate-100', '100 kbit/s', down({ rate_kbps: 100 })),
  row('step', '100 kbit/s for 8 s', {
    ms: 25_000,
    receiver: [
      { at_ms: 2_000, profile: { down: { rate_kbps: 100 } } },
      { at_ms: 10_000, profile: 'clean' },
    ],
    events: [{ from: 2_000, to: 10_000 }],
  }),
  row('steps', '1 Mbit/s and 300 kbit/s in turn, 10 s each', {
    ms: 5 * STEPS_MS,
    receiver: [1_000, 300, 1_000, 300, 1_000].map((rate_kbps, place) => ({
      at_ms: place * STEPS_MS,
      profile: { down: { rate_kbps } },
    })),
    events: [1, 3].map((place) => ({ from: place * STEPS_MS, to: (place + 1) * STEPS_MS })),
  }),
  row('move', 'another address after 1 s without a line', {
    receiver: [
      { at_ms: 4_000, profile: 'black-hole' },
      { at_ms: 5_000, profile: 'clean', move: true },
    ],
    events: [{ from: 4_000, to: 5_000 }],
  }),
  row('black-hole', '5 s without a line', {
    ms: 25_000,
    receiver: [
      { at_ms: 3_000, profile: 'black-hole' },
      { at_ms: 8_000, profile: 'clean' },
    ],
    events: [{ from: 3_000, to: 8_000 }],
  }),
];

/** What the line down to the listener carries throughout, in kbit/s; null where there is no limit or it changes. */
export function rateKbps({ receiver, events }: LineProfile): number | null {
  const [order] = receiver ?? [];
  if (events || !order?.profile || typeof order.profile === 'string') return null;
  return order.profile.down?.rate_kbps ?? null;
}
