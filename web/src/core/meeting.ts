// One meeting, from the lobby to leaving: joins the machines of this folder to what the view sees (`model.ts`).
//
// A join: the lobby fetches a token, opens a socket and makes an offer ahead of time, so that Join sends hello,
// offer and publish in one breath; the view follows when the members and the answer have come.

import { batch, computed, signal, type ReadonlySignal } from '@preact/signals-core';
import { Carrier, type LineEvent } from './carrier';
import { DeviceManager, type Capture, type DeviceEvent } from './devices';
import type { Environment } from './env';
import { EMPTY_ROSTER, handleMessage, isTileActive, people } from './members';
import { readMembership, writeMembership, type Membership } from './memory';
import { Mending } from './mending';
import type { Kind, Link, Meeting, Notice, Person, Phase, Problem, TileId } from './model';
import { meetingOfPath } from './names';
import { Peer, type Offer, type SlotStreams } from './peer';
import type { ClientMessage, ServerMessage, UpState } from './protocol';
import { Slots, VIDEO_SLOTS_MAX, VIDEO_SLOTS_MIN, tileKey, type Shown } from './slots';

type Welcome = Extract<ServerMessage, { type: 'welcome' }>;

/** The loudest few; more voices at once are not understood. */
const AUDIO_SLOTS = 4;
/** Layouts change in bursts while windows are dragged; the server limits the rate of messages. */
const VIEW_PERIOD_MS = 150;
/** How tall pictures are asked for before the view has laid itself out. */
const FIRST_HEIGHT_PX = 360;
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
  readonly microphoneOn = signal(true);
  readonly cameraOn = signal(true);
  readonly notices = signal<Notice[]>([]);
  readonly soundBlocked = signal(false);
  readonly audios = signal<readonly MediaStream[]>([]);
  readonly videos = signal<ReadonlyMap<string, MediaStream>>(new Map());
  readonly link: ReadonlySignal<Link>;
  readonly people: ReadonlySignal<Person[]>;
  readonly sharing: ReadonlySignal<boolean>;
  readonly devices: DeviceManager;
  readonly canShare: boolean;

  readonly #socketUp = signal(false);
  readonly #mediaBroken = signal(false);
  readonly #roster = signal(EMPTY_ROSTER);
  readonly #live = signal<Record<Capture, boolean>>({ microphone: false, camera: false });
  readonly #carrier: Carrier | null;
  readonly #mending = new Mending();
  readonly #slots = new Slots();
  readonly #streams: SlotStreams = { audio: [], video: [] };
  #peer: Peer | null = null;
  /** The offer that waits for its answer; `revision` is 0 until it was sent. */
  #offer: (Offer & { revision: number }) | null = null;
  #revision = 0;
  /** Whether what is sent now belongs to a membership that the server has. */
  #isGreeted = false;
  #videoSlotsMax = VIDEO_SLOTS_MAX;
  #videoSlotsAnswered = 0;
  #shown: Shown[] | null = null;
  #sentView = '';
  #sentPublish = '';
  #ownName = '';
  #resume: { token: string; ms: number } | null = null;
  #noticeId = 0;
  #wasDown = false;
  #mendTimer: number | null = null;
  #viewTimer: number | null = null;
  #resyncTimer: number | null = null;
  #unreachableTimer: number | null = null;

  constructor(private readonly env: Environment) {
    this.name.value = meetingOfPath(env.location.pathname);
    this.devices = new DeviceManager(env, (event) => this.#handleDevice(event));
    this.canShare = typeof env.mediaDevices?.getDisplayMedia === 'function';
    this.sharing = computed(() => this.devices.shared.value !== null);
    this.link = computed(() =>
      this.phase.value !== 'meeting' || (this.#socketUp.value && !this.#mediaBroken.value)
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
    this.#shown = tiles;
    this.#layOut();
  }

  dismiss(notice: number): void {
    this.notices.value = this.notices.value.filter((known) => known.id !== notice);
  }

  // --- the lobby ---

  async #prepare(): Promise<void> {
    this.#carrier?.handle({ type: 'prepare' });
    this.#makePeer(VIDEO_SLOTS_MIN);
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
    this.#makePeer(VIDEO_SLOTS_MIN);
    this.#enter(membership.resume);
    void this.#startDevices();
  }

  #enter(resume: string | null): void {
    this.phase.value = 'joining';
    if (this.problem.value !== 'insecure-context') this.problem.value = null;
    if (!this.#peer) this.#makePeer(VIDEO_SLOTS_MIN);
    this.#carrier?.handle({ type: 'join', name: this.#ownName, resume });
  }

  #handleOnline(): void {
    // The offer that was made ahead names addresses of a network that may be gone.
    if (this.phase.value === 'lobby' && this.#peer) this.#makePeer(VIDEO_SLOTS_MIN);
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
    this.#revision = 0;
    this.#mending.reset();
    this.#mediaBroken.value = false;
    this.#videoSlotsMax = VIDEO_SLOTS_MAX;
    this.#roster.value = EMPTY_ROSTER;
    this.#slots.setMids([]);
    this.#slots.forget();
    this.#videoSlotsAnswered = 0;
    this.#isGreeted = true;
    if (!this.#peer || this.#peer.wasAnswered) this.#makePeer(VIDEO_SLOTS_MIN);
    if (this.#offer) this.#offer.revision = 0;
    this.#sayEverything();
  }

  #handleWelcome(welcome: Welcome): void {
    const isTakenUp = this.#isGreeted === false;
    if (isTakenUp && !welcome.resumed) this.#startMembership();
    this.#isGreeted = true;
    this.#resume = { token: welcome.resume, ms: welcome.resume_ms_max };
    this.#revision = Math.max(this.#revision, welcome.revision);
    this.#roster.value = handleMessage(this.#roster.value, welcome);
    this.#slots.handleSlots(welcome.slots);
    this.#socketUp.value = true;
    this.phase.value = 'meeting';
    this.#clearTimer('#unreachableTimer');
    if (this.problem.value !== 'insecure-context') this.problem.value = null;
    if (this.#wasDown) this.#notify('reconnected');
    this.#wasDown = false;
    this.#save();
    if (welcome.resumed) {
      // What was said while the line was lost may not have arrived.
      if (this.#offer) this.#offer.revision = 0;
      this.#sayEverything();
    } else {
      this.#layOut();
    }
    this.#showStreams();
    this.#mend();
  }

  #handleMessage(message: ServerMessage): void {
    const before = this.#roster.value;
    this.#roster.value = handleMessage(before, message);
    switch (message.type) {
      case 'answer':
        void this.#handleAnswer(message.revision, message.sdp);
        break;
      case 'joined':
        this.#notify('someone-joined', message.member.name);
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
        this.#slots.handleSlots(message.slots);
        this.#showStreams();
        break;
      case 'media':
        if (message.state === 'lost') {
          this.#slots.forget();
          this.#showStreams();
        }
        this.#mending.handleServerState(message.state, this.env.now());
        this.#mend();
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
          if (this.#offer) this.#offer.revision = 0;
          this.#sayEverything();
        }, RESYNC_MS);
        break;
      case 'unknown_reference':
        break; // someone left while the view was under way; their leaving brings a new one
      case 'offer_refused':
        this.#handleOfferRefused();
        break;
      default:
        this.#notify('server-refused');
    }
  }

  /** Goes back to as many slots as were answered before; with none, there is no media in this meeting. */
  #handleOfferRefused(): void {
    this.#notify('server-refused');
    if (this.#videoSlotsAnswered === 0) {
      this.#mending.giveUp();
      this.#mend();
      return;
    }
    this.#videoSlotsMax = Math.min(this.#videoSlotsMax, this.#videoSlotsAnswered);
    this.#makePeer(this.#videoSlotsMax);
  }

  #handleDown(reason: 'lost' | 'stopping'): void {
    this.#socketUp.value = false;
    this.#isGreeted = false;
    this.#wasDown = true;
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
    this.#wasDown = false;
    this.#socketUp.value = false;
    this.#mediaBroken.value = false;
    this.#peer?.close();
    this.#peer = null;
    this.#offer = null;
    this.#videoSlotsAnswered = 0;
    this.#shown = null;
    this.#sentView = '';
    this.#sentPublish = '';
    this.#slots.setMids([]);
    this.#slots.forget();
    this.#mending.reset();
    for (const timer of ['#mendTimer', '#viewTimer', '#resyncTimer', '#unreachableTimer'] as const) {
      this.#clearTimer(timer);
    }
    this.#roster.value = EMPTY_ROSTER;
    this.videos.value = new Map();
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
    this.#sentView = '';
    this.#sendOffer();
    this.#publish();
    this.#layOut();
  }

  // --- media ---

  #makePeer(videoSlots: number): void {
    const { newPeerConnection } = this.env;
    if (!newPeerConnection) return;
    this.#peer?.close();
    this.#offer = null;
    this.#mending.handleNewPeer();
    const peer: Peer = new Peer(
      newPeerConnection,
      this.env.newStream,
      this.#streams,
      videoSlots,
      AUDIO_SLOTS,
      {
        onOffer: (offer) => {
          if (peer !== this.#peer) return;
          this.#offer = { ...offer, revision: 0 };
          this.#sendOffer();
        },
        onConnection: (state) => {
          if (peer !== this.#peer) return;
          this.#mending.handleConnection(state, this.env.now());
          this.#mend();
        },
        onFailed: () => {
          if (peer !== this.#peer) return;
          this.#mending.handleConnection('failed', this.env.now());
          this.#mend();
        },
      },
    );
    this.#peer = peer;
    for (const kind of ['microphone', 'camera', 'screen'] as const) {
      peer.setTrack(kind, this.devices.track(kind));
    }
    peer.negotiate();
    if (this.audios.value.length === 0) this.audios.value = [...this.#streams.audio];
  }

  #sendOffer(): void {
    const offer = this.#offer;
    if (!offer || offer.revision !== 0) return;
    const revision = this.#revision + 1;
    if (!this.#send({ type: 'offer', revision, sdp: offer.sdp, ups: offer.ups })) return;
    this.#revision = revision;
    offer.revision = revision;
    this.#mending.handleSignaled(this.env.now());
    this.#mend();
  }

  async #handleAnswer(revision: number, sdp: string): Promise<void> {
    // An answer to an offer that was said again, or of a peer connection that is gone, comes too late.
    const peer = this.#peer;
    if (!peer || revision !== this.#offer?.revision) return;
    this.#offer = null;
    const slots = peer.videoMids();
    if (!(await peer.handleAnswer(sdp)) || peer !== this.#peer) return;
    this.#videoSlotsAnswered = slots.length;
    this.#slots.setMids(slots);
    this.#mending.handleSignaled(this.env.now());
    this.#sentView = '';
    this.#layOut();
    this.#mend();
  }

  /** Does what is due about a lost transport, and sees to being called again. */
  #mend(): void {
    this.#clearTimer('#mendTimer');
    this.#mediaBroken.value = this.#mending.isBroken;
    if (this.#mending.isHopeless) this.problem.value = 'media-failed';
    else if (this.problem.value === 'media-failed') this.problem.value = null;
    if (!this.#socketUp.value || !this.#peer) return;
    switch (this.#mending.handleWake(this.env.now())) {
      case 'restart-ice':
        this.#peer.restartIce();
        break;
      case 'replace':
        this.#makePeer(Math.max(VIDEO_SLOTS_MIN, this.#peer.videoSlots));
        break;
      case null:
        break;
    }
    const { wakeAt } = this.#mending;
    if (wakeAt === null) return;
    this.#mendTimer = this.env.setTimer(() => this.#mend(), Math.max(0, wakeAt - this.env.now()));
  }

  /** Lays the shown tiles out over the slots, and says so when something changed. */
  #layOut(): void {
    const roster = this.#roster.value;
    const slots = this.#slots.show(
      (this.#shown ?? this.#firstTiles()).filter(
        ({ tile }) => tile.person !== roster.self && roster.members.has(tile.person),
      ),
      (tile) => isTileActive(roster, tile),
    );
    const wanted = Math.min(slots, this.#videoSlotsMax);
    if (this.#isGreeted && this.#peer && wanted > this.#peer.videoSlots) this.#peer.growTo(wanted);
    this.#showStreams();
    if (this.#viewTimer === null) this.#view();
  }

  #view(): void {
    const slots = this.#slots.wishes();
    const view = JSON.stringify(slots);
    if (slots.length === 0 || view === this.#sentView) return;
    if (!this.#send({ type: 'view', slots })) return;
    this.#sentView = view;
    this.#viewTimer = this.env.setTimer(() => {
      this.#viewTimer = null;
      this.#view();
    }, VIEW_PERIOD_MS);
  }

  /** Until the view has laid itself out, those who can be seen are asked for. */
  #firstTiles(): Shown[] {
    const roster = this.#roster.value;
    return [...roster.members.keys()]
      .flatMap((person): TileId[] => [
        { person, kind: 'screen' },
        { person, kind: 'camera' },
      ])
      .filter((tile) => isTileActive(roster, tile))
      .map((tile) => ({ tile, heightPx: FIRST_HEIGHT_PX }));
  }

  #showStreams(): void {
    const roster = this.#roster.value;
    const videos = new Map<string, MediaStream>();
    for (const [key, index] of this.#slots.carried()) {
      const stream = this.#streams.video[index];
      const [person, kind] = key.split(':') as [string, TileId['kind']];
      if (stream && isTileActive(roster, { person: Number(person), kind })) videos.set(key, stream);
    }
    const { preview, shared } = this.devices;
    const { self } = roster;
    if (self !== 0 && preview.value) videos.set(tileKey({ person: self, kind: 'camera' }), preview.value);
    if (self !== 0 && shared.value) videos.set(tileKey({ person: self, kind: 'screen' }), shared.value);
    if (!isSame(videos, this.videos.value)) this.videos.value = videos;
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
          this.#peer?.setTrack(event.kind, event.track);
          this.#publish();
          this.#showStreams();
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
    const height = this.devices.track(kind)?.getSettings().height ?? 0;
    return Math.min(HEIGHT_PX_MAX, Math.max(0, Math.round(height)));
  }

  // --- small things ---

  #notify(code: Notice['code'], name?: string): void {
    if (this.phase.value !== 'meeting') return;
    this.#noticeId += 1;
    const notice: Notice = { id: this.#noticeId, code, ...(name === undefined ? {} : { name }) };
    this.notices.value = [...this.notices.value, notice].slice(-NOTICES_MAX);
  }

  #clearTimer(timer: '#mendTimer' | '#viewTimer' | '#resyncTimer' | '#unreachableTimer'): void {
    const clear = (running: number | null) => {
      if (running !== null) this.env.clearTimer(running);
      return null;
    };
    switch (timer) {
      case '#mendTimer':
        this.#mendTimer = clear(this.#mendTimer);
        break;
      case '#viewTimer':
        this.#viewTimer = clear(this.#viewTimer);
        break;
      case '#resyncTimer':
        this.#resyncTimer = clear(this.#resyncTimer);
        break;
      case '#unreachableTimer':
        this.#unreachableTimer = clear(this.#unreachableTimer);
        break;
    }
  }
}

function isSame<K, V>(a: ReadonlyMap<K, V>, b: ReadonlyMap<K, V>): boolean {
  return a.size === b.size && [...a].every(([key, value]) => b.get(key) === value);
}
