// Keeps a stream playing whose tracks are exchanged under way.
//
// Where the old track ends at the moment of the exchange the element may have ended with it, and then stands still
// whatever comes: seen in Firefox ESR 153, one time in six when three people moved to another server.

/** Plays on where the element has ended though the stream has something to play; until the returned function is called. */
export function keepPlaying(element: HTMLMediaElement, stream: MediaStream): () => void {
  const resume = () => {
    if (!element.ended || !stream.active) return;
    element.srcObject = stream;
    void element.play().catch(() => undefined); // A newer stream took its place, or it is gone.
  };
  element.addEventListener('ended', resume);
  stream.addEventListener('addtrack', resume);
  return () => {
    element.removeEventListener('ended', resume);
    stream.removeEventListener('addtrack', resume);
  };
}
