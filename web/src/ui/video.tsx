// A moving picture. Always without sound: that comes from the audio slots.

import type { JSX } from 'preact';
import { useLayoutEffect, useRef } from 'preact/hooks';
import { keepPlaying } from './playing';

interface VideoProps {
  stream: MediaStream;
  /** The own camera is shown as in a mirror. */
  mirrored?: boolean;
  /** A shared screen is shown whole, a camera fills its tile. */
  whole?: boolean;
}

export function Video({ stream, mirrored = false, whole = false }: VideoProps): JSX.Element {
  const ref = useRef<HTMLVideoElement>(null);
  useLayoutEffect(() => {
    const video = ref.current;
    if (!video) return;
    // As an attribute, `muted` comes too late for the autoplay rules of some browsers.
    video.muted = true;
    if (video.srcObject !== stream) video.srcObject = stream;
    void video.play().catch(() => undefined); // A newer stream took its place, or the tile is gone.
    const letGo = keepPlaying(video, stream);
    return () => {
      letGo();
      video.srcObject = null;
    };
  }, [stream]);
  return (
    <video
      ref={ref}
      class={whole ? 'picture whole' : mirrored ? 'picture mirrored' : 'picture'}
      autoplay
      playsInline
      muted
      aria-hidden="true"
      tabIndex={-1}
    />
  );
}
