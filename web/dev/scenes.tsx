// Every screen at an address of its own: `npm run dev`, then `/dev/scenes.html?scene=meeting-5&lang=es`.

import { render } from 'preact';
import '../src/styles/base.css';
import '../src/styles/pages.css';
import '../src/styles/meeting.css';
import type { Person, Problem } from '../src/core/model';
import { App } from '../src/ui/app';
import { keepDocumentLanguage, speak, type Language } from '../src/ui/l10n';
import { person, scriptedMeeting, type Script } from './scripted';

const NAMES = [
  'Ana',
  'María Fernanda Gutiérrez de la Torre',
  'Tomás',
  'Ixchel Pech',
  'Noor',
  'João Pedro',
  '李娜',
  'Yuriko',
  'سارة',
  'Benjamín Huanca',
  '',
  'Okwui',
];

/** A moving picture of someone: a painted head and shoulders. */
function paint(seed: number, width: number, height: number): MediaStream {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d');
  let frame = 0;
  const draw = (): void => {
    if (!context) return;
    frame += 1;
    const hue = (seed * 67) % 360;
    const wall = context.createLinearGradient(0, 0, width, height);
    wall.addColorStop(0, `hsl(${hue} 30% 78%)`);
    wall.addColorStop(1, `hsl(${hue} 28% 52%)`);
    context.fillStyle = wall;
    context.fillRect(0, 0, width, height);
    const sway = Math.sin(frame / 20 + seed) * width * 0.01;
    context.fillStyle = `hsl(${(hue + 180) % 360} 35% 35%)`;
    context.beginPath();
    context.ellipse(width / 2 + sway, height * 1.05, width * 0.24, height * 0.42, 0, 0, 7);
    context.fill();
    context.fillStyle = `hsl(25 42% ${35 + ((seed * 13) % 40)}%)`;
    context.beginPath();
    context.ellipse(width / 2 + sway, height * 0.42, height * 0.16, height * 0.21, 0, 0, 7);
    context.fill();
  };
  draw();
  setInterval(draw, 60);
  return canvas.captureStream(15);
}

function paintScreen(): MediaStream {
  const canvas = document.createElement('canvas');
  canvas.width = 1600;
  canvas.height = 900;
  const context = canvas.getContext('2d');
  const draw = (): void => {
    if (!context) return;
    context.fillStyle = '#fdfcf8';
    context.fillRect(0, 0, 1600, 900);
    context.fillStyle = '#234';
    context.font = '64px sans-serif';
    context.fillText('Harvest plan', 120, 160);
    context.font = '36px sans-serif';
    for (let line = 0; line < 8; line += 1)
      context.fillText(`${line + 1}.  maize, beans and squash, field ${line + 1}`, 120, 260 + line * 70);
  };
  draw();
  setInterval(draw, 200);
  return canvas.captureStream(5);
}

function crowd(count: number): Person[] {
  return Array.from({ length: count }, (_, index) =>
    person(index + 1, NAMES[index % NAMES.length] ?? '', {
      isSelf: index === 0,
      speaking: index === 1 || index === 6,
      microphone: index % 3 !== 2,
      camera: index % 4 !== 3,
      present: index !== 4,
    }),
  );
}

function pictures(people: readonly Person[]): Map<string, MediaStream> {
  const videos = new Map<string, MediaStream>();
  for (const { id, camera, screen, isSelf } of people) {
    if (camera && id !== 5) videos.set(`${id}:camera`, paint(id, 640, id % 5 === 0 ? 640 : 360));
    if (screen && !isSelf) videos.set(`${id}:screen`, paintScreen());
  }
  return videos;
}

const CHOICES = {
  microphone: {
    choices: [
      { id: 'a', label: 'Built-in microphone' },
      { id: 'b', label: 'Headset of the very long and wonderful name, USB Audio 2.0' },
    ],
    chosen: 'a',
  },
  camera: { choices: [{ id: 'c', label: '' }], chosen: 'c' },
  speaker: { choices: [{ id: 'd', label: 'Speakers' }], chosen: '' },
};

function meetingOf(people: Person[], more: Script = {}): Script {
  return { people, videos: pictures(people), ...CHOICES, level: 0.6, ...more };
}

function sceneOf(scene: string): Script | null {
  const [kind, detail = ''] = scene.split(/-(.*)/s);
  switch (kind) {
    case 'lobby':
      switch (detail) {
        case 'denied':
          return {
            phase: 'lobby',
            microphone: { status: 'denied' },
            camera: { status: 'busy' },
            microphoneOn: false,
            cameraOn: false,
          };
        case 'asking':
          return { phase: 'lobby', microphone: { status: 'asking' }, camera: { status: 'asking' } };
        case 'insecure':
          return {
            phase: 'lobby',
            problem: 'insecure-context',
            microphoneOn: false,
            cameraOn: false,
            microphone: { status: 'off' },
            camera: { status: 'off' },
          };
        default:
          return { phase: 'lobby', preview: paint(1, 1280, 720), ...CHOICES, level: 0.55 };
      }
    case 'meeting':
      return meetingOf(crowd(Number(detail)));
    case 'share': {
      const people = crowd(Number(detail)).map((one) => ({ ...one, screen: one.id === 3 }));
      return meetingOf(people);
    }
    case 'sharing':
      return meetingOf(
        crowd(3).map((one) => ({ ...one, screen: one.isSelf })),
        { sharing: true },
      );
    case 'trouble':
      return meetingOf(crowd(3), {
        link: 'reconnecting',
        soundBlocked: true,
        microphoneOn: false,
        cameraOn: false,
        notices: [
          { id: 1, code: 'someone-joined', name: 'Noor' },
          { id: 2, code: 'camera-denied' },
        ],
      });
    case 'lines': {
      // weak, lost, held back, as on a train; the fifth is away.
      const people = crowd(Number(detail)).map((one) => ({
        ...one,
        line: one.id === 2 ? ('weak' as const) : one.id === 3 ? ('lost' as const) : ('good' as const),
        camera: one.id !== 4 || Number(detail) > 6,
      }));
      return meetingOf(people, { paused: new Set(['1:camera', '6:camera', '7:camera']) });
    }
    case 'ownline':
      return meetingOf(
        crowd(4).map((one) => ({ ...one, line: one.isSelf ? (detail as 'weak' | 'lost') : 'good' })),
        { ownLine: detail as 'weak' | 'lost' },
      );
    case 'held': {
      const people = crowd(3).map((one) => ({ ...one, screen: one.id === 3 }));
      return meetingOf(people, { paused: new Set(['2:camera', '3:screen', '3:camera']), ownLine: 'weak' });
    }
    case 'reconnecting':
      return meetingOf(crowd(4), { link: detail === 'media' ? 'media-reconnecting' : 'reconnecting' });
    case 'left':
      return { phase: 'left' };
    case 'joining':
      return { phase: 'joining' };
    case 'refused':
      return { phase: 'refused', problem: detail as Problem };
    default:
      return null;
  }
}

const query = new URLSearchParams(location.search);
const script = sceneOf(query.get('scene') ?? 'start');
const root = document.getElementById('app');
keepDocumentLanguage(document.documentElement);
speak((query.get('lang') ?? 'en') as Language);
localStorage.setItem('asamblea-name', query.get('name') ?? 'Ana');
const meeting = script && scriptedMeeting(script);
Object.assign(window, { meeting });
if (root) render(<App meeting={meeting} />, root);
