import { expect, test } from 'vitest';
import { keepPlaying } from './playing';

/** What a media element does of itself here: it ends with its track, and plays on only what it is given anew. */
class Element extends EventTarget {
  ended = false;
  plays = 0;
  #source: MediaStream | null = null;

  get srcObject(): MediaStream | null {
    return this.#source;
  }

  set srcObject(stream: MediaStream | null) {
    this.#source = stream;
    this.ended = false;
  }

  play(): Promise<void> {
    this.plays += 1;
    return Promise.resolve();
  }

  end(): void {
    this.ended = true;
    this.dispatchEvent(new Event('ended'));
  }
}

class Stream extends EventTarget {
  active = true;
}

function playing() {
  const element = new Element();
  const stream = new Stream();
  const stop = keepPlaying(element as unknown as HTMLMediaElement, stream as unknown as MediaStream);
  return { element, stream, stop };
}

test('an element that ended while its stream goes on plays on', () => {
  const { element, stream } = playing();
  element.end();
  expect([element.ended, element.srcObject, element.plays]).toEqual([false, stream, 1]);
});

test('an element that ended with its stream plays on once a track comes', () => {
  const { element, stream } = playing();
  stream.active = false;
  element.end();
  expect([element.ended, element.plays]).toEqual([true, 0]);
  stream.active = true;
  stream.dispatchEvent(new Event('addtrack'));
  expect([element.ended, element.plays]).toEqual([false, 1]);
});

test('an element that plays is left alone, and one that is no longer kept too', () => {
  const { element, stream, stop } = playing();
  stream.dispatchEvent(new Event('addtrack'));
  expect(element.plays).toBe(0);
  stop();
  element.end();
  stream.dispatchEvent(new Event('addtrack'));
  expect([element.ended, element.plays]).toEqual([true, 0]);
});
