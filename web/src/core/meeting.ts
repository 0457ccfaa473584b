// One meeting, from the lobby to leaving: joins the machines of this folder to what the view sees (`model.ts`).
//
// A join: the lobby fetches a token, opens a socket and makes an offer ahead of time, so that Join sends hello,
// offer and publish in one breath; the view follows when the members and the answer have come.

import { batch, computed, effect, signal, type ReadonlySignal } from '@preact/signals-core';
import { Carrier, type LineEvent } from './carrier';
import { DeviceManager, type Capture, type DeviceEvent } from './devices';
import type { Environment } from './env';
import { toldHeightPx } from './layers';
import { Media } from './media';
import {
  EMPTY_ROSTER,
  RETURN_MS_MAX,
  endReturn,
  handleMessage,
  handleReturn,
  people,
  returnedAs,
} from './members';
import { readMembership, writeMembership, type Membership } from './memory';
import type { Kind, Line, Link, Meeting, Notice, Person, Phase, Problem, TileId } from './model';
import { isMeetingName, meetingOfPath } from './names';
import { Pictures } from './pictures';
import type { ClientMessage, ServerMessage, UpState } from './protocol';
import { tileKey } from './slots';
import type { DownReason } from './socket';
import { Steady } from './steady';

type Welcome = Extract<ServerMessage, { type: 'welcome' }>;

/** After being told to slow down, everything that counts is said again. */
const RESYNC_MS = 1_500;
/** A line that is down for longer than this is a problem to be told. */
const UNREACHABLE_MS = 30_000;
/** Notices that nobody dismissed are not kept for ever. */
const NOTICES_MAX = 20;
/** What the protocol's height field holds. */
const HEIGHT_PX_MAX = 65_535;

/** The meeting that the page's address names. On the start page, which names none, no device is asked for. */
export function createMeeting(env: Environment): Meeting {
  return new MeetingLogic(env);
}

class MeetingLogic implements Meeting {
  readonly phase = signal<Phase>('lobby');
  readonly problem = signal<Problem | null>(null);
  readonly name = signal('');
  readonly ownLine = signal<Line>('good');
  readonly microphoneOn = signal(true);
  readonly cameraOn = signal(true);
  readonly notices = signal<Notice[]>([]);
  readonly soundBlocked = signal(false);
  readonly audios: ReadonlySignal<readonly MediaStream[]>;
  readonly videos: ReadonlySignal<ReadonlyMap<string, MediaStream>>;
  readonly paused: ReadonlySignal<ReadonlySet<string>>;
  readonly link: ReadonlySignal<Link>;
  readonly people: ReadonlySignal<Person[]>;
  readonly sharing: ReadonlySignal<boolean>;
  readonly devices: DeviceManager;
  readonly canShare: boolean;

  readonly #socketUp = signal(false);
  readonly #roster = signal(EMPTY_ROSTER);
  readonly #live = signal<Record<Capture, boolean>>({ microphone: false, camera: false });
  readonly #carrier: Carrier | null;
  readonly #media: Media;
  readonly #pictures: Pictures;
  readonly #steady = new Steady();
  /** Whether what is sent now belongs to a membership that the server has. */
  #isGreeted = false;
  #sentPublish = '';
  #ownName = '';
  #resume: { token: string; ms: number } | null = null;
  #noticeId = 0;
  /** Why the line is down; null while it is up. */
  #down: DownReason | null = null;
  #resyncTimer: number | null = null;
  #unreachableTimer: number | null = null;
  #returnTimer: number | null = null;
  #lineTimer: number | null = null;

  constructor(private readonly env: Environment) {
    this.name.value = meetingOfPath(env.location.pathname);
    this.devices = new DeviceManager(env, (event) => this.#handleDevice(event));
    this.canShare = typeof env.mediaDevices?.getDisplayMedia === 'function';
    this.sharing = computed(() => this.devices.shared.value !== null);
    this.#media = new Media(env, {
      send: (message) => this.#send(message),
      track: (kind) => this.devices.track(kind),
      relay: () => this.#carrier?.relay() ?? Promise.resolve(null),
      voices: () => this.people.value.filter((one) => !one.isSelf && one.present && one.microphone).length,
      onAnswered: (mids) => {
        this.#pictures.setMids(mids);
        this.#layOut();
      },
      onTakeOver: () => this.#pictures.release(),
      onSilent: () => this.#carrier?.handle({ type: 'check' }),
    });
    this.#pictures = new Pictures(env, {
      roster: () => this.#roster.value,
      streams: () => this.#media.streams.video,
      own: () => this.#ownPictures(),
      send: (message) => this.#send(message),
    });
    this.audios = this.#media.audios;
    this.videos = this.#pictures.videos;
    this.paused = this.#pictures.paused;
    effect(() => {
      if (this.#media.isHopeless.value) this.problem.value = 'media-failed';
      else if (this.problem.peek() === 'media-failed') this.problem.value = null;
    });
    effect(() => {
      const { members, self } = this.#roster.value;
      this.#steady.handleLine(members.get(self)?.line ?? 'good', env.now());
      this.#showLine();
    });
    this.link = computed(() =>
      this.phase.value !== 'meeting' || (this.#socketUp.value && !this.#media.isBroken.value)
        ? 'up'
        : this.#socketUp.value
          ? 'media-reconnecting'
          : 'reconnecting',
    );
    this.people = computed(() => people(this.#roster.value, this.#own.value));

    if (this.name.value === '') {
      this.#carrier = null;
      return;
    }
    this.#carrier = new Carrier(env, this.name.value, (event) => this.#handleLine(event));
    env.onOnline(() => this.#handleOnline());
    if (!isMeetingName(this.name.value)) {
      this.#refuse('bad-name');
      return;
    }
    if (!env.newPeerConnection) {
      this.#refuse('no-webrtc');
      return;
    }
    if (!env.mediaDevices && !env.isSecureContext) this.problem.value = 'insecure-context';
    const membership = readMembership(env.sessionStorage, this.name.value, env.now());
    if (membership) this.#takeUp(membership);
    else void this.#prepare();
  }

  async join(name: string): Promise<void> {
    const { phase } = this;
    if (!this.#carrier || phase.value === 'joining' || phase.value === 'meeting') return;
    if (!this.env.newPeerConnection) return;
    this.#ownName = name;
    void this.#startDevices();
    this.#enter(null);
  }

  rejoin(): void {
    if (this.phase.value === 'meeting') {
      // In, but something does not work: a new membership with everything new.
      this.#carrier?.handle({ type: 'leave' });
      this.#end();
      this.phase.value = 'left';
    }
    if (this.phase.value === 'left' || this.phase.value === 'refused') void this.join(this.#ownName);
  }

  getReady(): void {
    if (this.phase.value === 'lobby') this.#carrier?.handle({ type: 'prepare' });
  }

  leave(): void {
    this.#carrier?.handle({ type: 'leave' });
    this.#end();
    this.devices.stopAll();
    this.phase.value = 'left';
  }

  setMicrophone(on: boolean): void {
    this.microphoneOn.value = on;
    this.devices.setMuted(!on);
    if (on) void this.devices.start('microphone');
    this.#publish();
  }

  setCamera(on: boolean): void {
    this.cameraOn.value = on;
    if (on) void this.devices.start('camera');
    else this.devices.stop('camera');
    this.#publish();
  }

  async setSharing(on: boolean): Promise<void> {
    if (on) await this.devices.startSharing();
    else this.devices.stopSharing();
  }

  choose(device: 'microphone' | 'camera' | 'speaker', id: string): Promise<void> {
    return this.devices.choose(device, id);
  }

  async retry(device: Capture): Promise<void> {
    if (await this.devices.start(device)) {
      if (device === 'microphone') this.setMicrophone(true);
      else this.setCamera(true);
    }
  }

  rename(name: string): void {
    this.#ownName = name;
    this.#carrier?.handle({ type: 'rename', name });
    this.#save();
  }

  resumeSound(): void {
    this.soundBlocked.value = false;
  }

  soundWasBlocked(): void {
    this.soundBlocked.value = true;
  }

  show(tiles: { tile: TileId; heightPx: number }[]): void {
    this.#pictures.setShown(tiles);
    this.#layOut();
  }

  dismiss(notice: number): void {
    this.notices.value = this.notices.value.filter((known) => known.id !== notice);
  }

  // --- the lobby ---

  async #prepare(): Promise<void> {
    this.#carrier?.handle({ type: 'prepare' });
    this.#media.makePeer();
    await this.#startDevices();
  }

  /** The microphone first, then the camera: browsers ask one thing at a time. */
  async #startDevices(): Promise<void> {
    this.devices.setMuted(!this.microphoneOn.value);
    if (!this.env.mediaDevices) {
      this.microphoneOn.value = false;
      this.cameraOn.value = false;
      return;
    }
    if (this.microphoneOn.value) await this.devices.start('microphone');
    const isStillWanted = this.phase.value !== 'left' && this.phase.value !== 'refused';
    if (this.cameraOn.value && isStillWanted) await this.devices.start('camera');
  }

  /** The page was reloaded in the middle of a meeting: goes on where it was. */
  #takeUp(membership: Membership): void {
    this.#ownName = membership.name;
    this.microphoneOn.value = membership.microphoneOn;
    this.cameraOn.value = membership.cameraOn;
    this.#media.makePeer();
    this.#enter(membership.resume);
    void this.#startDevices();
  }

  #enter(resume: string | null): void {
    this.phase.value = 'joining';
    if (this.problem.value !== 'insecure-context') this.problem.value = null;
    if (!this.#media.hasPeer) this.#media.makePeer();
    this.#carrier?.handle({ type: 'join', name: this.#ownName, resume });
  }

  #handleOnline(): void {
    // The offer that was made ahead names addresses of a network that may be gone.
    if (this.phase.value === 'lobby' && this.#media.hasPeer) this.#media.makePeer();
  }

  // --- the line to the server ---

  #handleLine(event: LineEvent): void {
    batch(() => {
      switch (event.type) {
        case 'greeted':
          // A new membership can be spoken to at once; one that is taken up may turn out to be gone.
          if (!event.resuming) this.#startMembership();
          break;
        case 'welcome':
          this.#handleWelcome(event.welcome);
          break;
        case 'message':
          this.#handleMessage(event.message);
          break;
        case 'down':
          this.#handleDown(event.reason);
          break;
        case 'ended':
          if (event.problem) this.#refuse(event.problem);
          break;
      }
    });
  }

  #startMembership(): void {
    this.#pictures.forget(this.#media.hasPlayed);
    this.#pictures.setMids([]);
    this.#isGreeted = true;
    this.#media.beginMembership();
    this.#sayEverything();
  }

  #handleWelcome(welcome: Welcome): void {
    const isTakenUp = this.#isGreeted === false;
    const down = this.#down;
    const before = this.#roster.value;
    const after = handleMessage(before, welcome);
    // After a loss others are on their way back as we are: nobody vanishes and comes again.
    this.#roster.value = down ? handleReturn(before, after) : after;
    if (down) this.#awaitReturn();
    if (isTakenUp && !welcome.resumed) this.#startMembership();
    this.#isGreeted = true;
    this.#down = null;
    this.#resume = { token: welcome.resume, ms: welcome.resume_ms_max };
    this.#socketUp.value = true;
    this.phase.value = 'meeting';
    this.#clearTimer('#unreachableTimer');
    if (this.problem.value !== 'insecure-context') this.problem.value = null;
    if (down === 'lost' || down === 'stopping') this.#notify('reconnected');
    this.#save();
    if (welcome.resumed) {
      // Another process fills slots of its own, and the old one's go on until then.
      if (down === 'moving') this.#pictures.forget(this.#media.hasPlayed);
      this.#media.handleResumed(welcome.revision);
      if (welcome.wanted.length > 0) this.#media.handleWanted(welcome.wanted);
      this.#pictures.handleSlots(welcome.slots);
      // What was said while the line was lost may not have arrived.
      this.#sayEverything();
    } else {
      this.#pictures.handleSlots(welcome.slots);
      this.#layOut();
    }
    this.#media.setSocketUp(true);
  }

  #showLine(): void {
    this.#clearTimer('#lineTimer');
    this.#steady.handleWake(this.env.now());
    this.ownLine.value = this.#steady.shown;
    const { wakeAt } = this.#steady;
    if (wakeAt === null) return;
    this.#lineTimer = this.env.setTimer(() => this.#showLine(), Math.max(0, wakeAt - this.env.now()));
  }

  #awaitReturn(): void {
    this.#clearTimer('#returnTimer');
    if (this.#roster.value.returning.size === 0) return;
    this.#returnTimer = this.env.setTimer(() => {
      this.#returnTimer = null;
      const { roster, gone } = endReturn(this.#roster.value);
      batch(() => {
        this.#roster.value = roster;
        for (const { name } of gone) this.#notify('someone-left', name);
        this.#layOut();
      });
    }, RETURN_MS_MAX);
  }

  #handleMessage(message: ServerMessage): void {
    const before = this.#roster.value;
    this.#roster.value = handleMessage(before, message);
    switch (message.type) {
      case 'answer':
        void this.#media.handleAnswer(message.revision, message.sdp);
        break;
      case 'joined':
        if (returnedAs(before, message.member) === null) {
          this.#notify('someone-joined', message.member.name);
        }
        this.#layOut();
        break;
      case 'changed':
        this.#layOut();
        break;
      case 'left': {
        const gone = before.members.get(message.member);
        if (gone) this.#notify('someone-left', gone.name);
        this.#layOut();
        break;
      }
      case 'slots':
        this.#pictures.handleSlots(message.slots);
        break;
      case 'wanted':
        this.#media.handleWanted(message.ups);
        break;
      case 'media':
        if (message.state === 'lost') this.#pictures.forget(this.#media.hasPlayed);
        this.#media.handleServerState(message.state);
        break;
      case 'resume':
        if (this.#resume) this.#resume.token = message.token;
        this.#save();
        break;
      case 'ping':
        this.#save();
        break;
      case 'error':
        this.#handleError(message.code);
        break;
      default:
        break;
    }
  }

  #handleError(code: Extract<ServerMessage, { type: 'error' }>['code']): void {
    switch (code) {
      case 'too_many_requests':
        this.#resyncTimer ??= this.env.setTimer(() => {
          this.#resyncTimer = null;
          this.#media.resay();
          this.#sayEverything();
        }, RESYNC_MS);
        break;
      case 'unknown_reference':
        break; // someone left while the view was under way; their leaving brings a new one
      case 'offer_refused':
        this.#notify('server-refused');
        this.#media.handleOfferRefused();
        break;
      default:
        this.#notify('server-refused');
    }
  }

  #handleDown(reason: DownReason): void {
    this.#socketUp.value = false;
    this.#media.setSocketUp(false);
    this.#isGreeted = false;
    this.#down = reason;
    if (reason === 'moving') this.#media.handleMoving();
    if (reason === 'stopping') this.problem.value = 'server-stopping';
    this.#unreachableTimer ??= this.env.setTimer(() => {
      this.#unreachableTimer = null;
      if (this.phase.value === 'meeting') this.problem.value = 'server-unreachable';
    }, UNREACHABLE_MS);
  }

  #refuse(problem: Problem): void {
    this.#end();
    this.devices.stopAll();
    this.problem.value = problem;
    this.phase.value = 'refused';
  }

  /** Lets go of everything that belongs to a membership. */
  #end(): void {
    writeMembership(this.env.sessionStorage, null);
    this.#resume = null;
    this.#isGreeted = false;
    this.#down = null;
    this.#socketUp.value = false;
    this.#sentPublish = '';
    this.#media.end();
    this.#pictures.clear();
    for (const timer of ['#resyncTimer', '#unreachableTimer', '#returnTimer', '#lineTimer'] as const) {
      this.#clearTimer(timer);
    }
    this.#steady.reset();
    this.#roster.value = EMPTY_ROSTER;
    this.notices.value = [];
    this.problem.value = null;
  }

  #save(): void {
    if (!this.#resume) return;
    writeMembership(this.env.sessionStorage, {
      meeting: this.name.value,
      resume: this.#resume.token,
      name: this.#ownName,
      microphoneOn: this.microphoneOn.value,
      cameraOn: this.cameraOn.value,
      heardAt: this.env.now(),
      resumeMs: this.#resume.ms,
    });
  }

  #send(message: ClientMessage): boolean {
    return this.#isGreeted && (this.#carrier?.send(message) ?? false);
  }

  /** Offer, publish and view are wholes: saying them again changes nothing that was already heard. */
  #sayEverything(): void {
    this.#sentPublish = '';
    this.#pictures.resay();
    this.#media.sendOffer();
    this.#publish();
    this.#layOut();
  }

  #layOut(): void {
    const slots = this.#pictures.layOut();
    if (this.#isGreeted) this.#media.growTo(slots);
  }

  #ownPictures(): Map<string, MediaStream> {
    const { preview, shared } = this.devices;
    const { self } = this.#roster.value;
    const own = new Map<string, MediaStream>();
    if (self !== 0 && preview.value) own.set(tileKey({ person: self, kind: 'camera' }), preview.value);
    if (self !== 0 && shared.value) own.set(tileKey({ person: self, kind: 'screen' }), shared.value);
    return own;
  }

  // --- devices ---

  readonly #own = computed<Record<Kind, boolean>>(() => ({
    microphone: this.microphoneOn.value && this.#live.value.microphone,
    camera: this.cameraOn.value && this.#live.value.camera,
    screen: this.sharing.value,
  }));

  #handleDevice(event: DeviceEvent): void {
    batch(() => {
      switch (event.type) {
        case 'track':
          if (event.kind !== 'screen') {
            this.#live.value = { ...this.#live.value, [event.kind]: event.track !== null };
          }
          this.#media.setTrack(event.kind, event.track);
          this.#publish();
          this.#pictures.refresh();
          break;
        case 'failed':
          if (event.device === 'microphone') this.microphoneOn.value = false;
          else this.cameraOn.value = false;
          if (this.phase.value === 'meeting' && event.status !== 'failed') {
            this.#notify(`${event.device}-${event.status}`);
          }
          this.#publish();
          break;
        case 'lost':
          this.#notify(`${event.device}-lost`);
          break;
        case 'gone':
          if (event.device === 'microphone') this.microphoneOn.value = false;
          else this.cameraOn.value = false;
          this.#publish();
          break;
        default:
          this.#notify(event.type);
      }
    });
  }

  #publish(): void {
    const own = this.#own.value;
    const ups = (['microphone', 'camera', 'screen'] as const).map((kind): UpState => ({
      kind,
      active: own[kind],
      height_px: own[kind] ? this.#heightPx(kind) : 0,
    }));
    const publish = JSON.stringify(ups);
    if (publish === this.#sentPublish) return;
    if (this.#send({ type: 'publish', ups })) this.#sentPublish = publish;
    this.#save();
  }

  #heightPx(kind: Kind): number {
    if (kind === 'microphone') return 0;
    const size = this.devices.track(kind)?.getSettings() ?? {};
    const height = kind === 'camera' ? toldHeightPx(size) : Math.round(size.height ?? 0);
    return Math.min(HEIGHT_PX_MAX, Math.max(0, height));
  }

  // --- small things ---

  #notify(code: Notice['code'], name?: string): void {
    if (this.phase.value !== 'meeting') return;
    this.#noticeId += 1;
    const notice: Notice = { id: this.#noticeId, code, ...(name === undefined ? {} : { name }) };
    this.notices.value = [...this.notices.value, notice].slice(-NOTICES_MAX);
  }

  #clearTimer(timer: '#resyncTimer' | '#unreachableTimer' | '#returnTimer' | '#lineTimer'): void {
    const clear = (running: number | null) => {
      if (running !== null) this.env.clearTimer(running);
      return null;
    };
    switch (timer) {
      case '#resyncTimer':
        this.#resyncTimer = clear(this.#resyncTimer);
        break;
      case '#unreachableTimer':
        this.#unreachableTimer = clear(this.#unreachableTimer);
        break;
      case '#returnTimer':
        this.#returnTimer = clear(this.#returnTimer);
        break;
      case '#lineTimer':
        this.#lineTimer = clear(this.#lineTimer);
        break;
    }
  }
}
