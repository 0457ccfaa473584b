// The size of an element, as a signal.

import { useSignal, type ReadonlySignal } from '@preact/signals';
import type { RefObject } from 'preact';
import { useLayoutEffect } from 'preact/hooks';
import type { Size } from './layout/grid';

export function useBox(ref: RefObject<HTMLElement>): ReadonlySignal<Size> {
  const box = useSignal<Size>({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const element = ref.current;
    if (!element) return;
    const measure = (): void => {
      const { clientWidth: width, clientHeight: height } = element;
      if (width !== box.value.width || height !== box.value.height) box.value = { width, height };
    };
    measure(); // The observer is silent in a tab that is in the background.
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, [ref, box]);
  return box;
}

/** Longest wait for an animation frame, in milliseconds: in a background tab there is none. */
const FRAME_WAIT_MS_MAX = 60;

/** Runs at the next animation frame, or soon when there is none; returns how to call it off. */
export function soon(run: () => void): () => void {
  const done = (): void => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
  };
  const once = (): void => {
    done();
    run();
  };
  const frame = requestAnimationFrame(once);
  const timer = setTimeout(once, FRAME_WAIT_MS_MAX);
  return done;
}
