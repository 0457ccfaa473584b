// The mark: an assembly seen from above, people in a circle, one seat of it yours.

import type { JSX } from 'preact';

const SEATS = 9;
const YOURS = 4;

export function Logo({ large = false }: { large?: boolean }): JSX.Element {
  return (
    <svg class={large ? 'logo logo-large' : 'logo'} viewBox="0 0 64 64" aria-hidden="true" focusable="false">
      {Array.from({ length: SEATS }, (_, seat) => {
        const angle = (seat / SEATS) * 2 * Math.PI - Math.PI / 2 + Math.PI / SEATS;
        return (
          <circle
            key={seat}
            class={seat === YOURS ? 'seat seat-yours' : 'seat'}
            cx={(32 + 23 * Math.cos(angle)).toFixed(2)}
            cy={(32 + 23 * Math.sin(angle)).toFixed(2)}
            r={seat === YOURS ? 6.6 : 5.4}
          />
        );
      })}
    </svg>
  );
}
