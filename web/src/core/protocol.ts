// Generated from signaling/src/protocol.rs by `ASAMBLEA_RENEW=1 cargo test -p asamblea protocol`.
// Do not edit: change the Rust file and renew this one.

/** Why the server ends a socket. */
export type ByeReason = "left" | "replaced" | "stopping" | "moving";

/** What a client says. */
export type ClientMessage = { "type": "hello",
  /** Versions the client speaks; the newest that both speak is taken. */
  versions: Array<number>,
  /** The join token from `POST /api/meetings/{name}/token`: says which meeting and in which role. */
  token: string,
  /** The name to show; markup is text, control characters are dropped, what exceeds the bound is cut. */
  name: string,
  /** The resume token of an earlier `welcome`, to take up the same membership again. */
  resume?: string,
} | { "type": "offer",
  /** Counts up from 1 over the life of the membership, resumes included. */
  revision: number,
  /** The offer. */
  sdp: string,
  /** What travels on the lines the client sends on. */
  ups: Array<UpLine>,
} | { "type": "publish",
  /** One entry a kind at most; a kind that is missing is not active. */
  ups: Array<UpState>,
} | { "type": "view",
  /** One entry a video slot; a slot that is missing shows nothing. */
  slots: Array<SlotWish>,
} | { "type": "rename",
  /** The name, bounded as in `hello`. */
  name: string,
} | { "type": "pong",
  /** The ping's number. */
  nonce: number,
} | { "type": "ping",
  /** The number. */
  nonce: number,
} | { "type": "leave",
};

/** Why something was refused. */
export type ErrorCode = "malformed" | "too_large" | "too_many_requests" | "not_joined" | "already_joined" | "unsupported_version" | "invalid_token" | "meeting_full" | "server_full" | "unknown_reference" | "offer_refused" | "not_allowed" | "too_slow";

/** How well a peer's line carries what is asked of it, both ways, as the server measures it. */
export type Line = "good" | "weak" | "lost";

/** Answers `GET /api/links`. */
export type LinksResponse = {
  /**
   * Where others reach this bridge, likeliest first: `https://192.0.2.1:8443`, without a path. Empty for whoever is
   * not at the bridge's own machine.
   */
  links: Array<string>,
  /** Whether the bridge made its certificate itself, of which browsers warn. */
  own_certificate: boolean,
};

/** What became of the client's media transport. */
export type MediaState = "connected" | "disconnected" | "lost";

/** A person in a meeting. */
export type Member = {
  /** Names the membership; random, never another's. */
  id: number,
  /** The shown name; may be empty and need not be unique. */
  name: string,
  /** What they send, as they said last. */
  ups: Array<UpState>,
  /** False while their socket is lost and they may yet come back. */
  present: boolean,
  /** How their line is. */
  line: Line,
};

/** One member's line. */
export type MemberLine = {
  /** Who. */
  member: number,
  /** How it is now. */
  line: Line,
};

/** Credentials for the relay: short-lived, bound to the join token that they came with. */
export type RelayCredentials = {
  /** The TURN user name. */
  username: string,
  /** The TURN password. */
  credential: string,
  /** Whether TLS is worth trying too: browsers refuse a certificate that the bridge made for itself. */
  tls: boolean,
};

/** What the server says. */
export type ServerMessage = { "type": "welcome",
  /** The version spoken from here on. */
  version: number,
  /** The client's own member id. */
  member: number,
  /** Presented in a later `hello` to take up the same membership; a `resume` message replaces it. */
  resume: string,
  /**
   * Whether this continues an earlier membership: its media transport may still be up, its published state
   * and slots are as they were. If false after a resume was asked for, the client starts afresh: new peer
   * connection, revisions from 1. The member id may be the earlier one even then, after the server was
   * started again.
   */
  resumed: boolean,
  /** The newest offer revision the server has seen from this membership. */
  revision: number,
  /** The meeting's name as it is shown. */
  meeting: string,
  /** Everyone in the meeting, the client itself included, in order of arrival. */
  members: Array<Member>,
  /** What all of the client's slots carry now. */
  slots: Array<SlotState>,
  /** What is wanted of the client's video ups; empty before the first `wanted`. */
  wanted: Array<UpWanted>,
  /** Without any message for this long the client takes the socket for dead and makes another. */
  silence_ms_max: number,
  /** For how long a lost socket's membership is kept. */
  resume_ms_max: number,
} | { "type": "resume",
  /** Presented in a later `hello` to take up the same membership. */
  token: string,
} | { "type": "answer",
  /** The offer's number. */
  revision: number,
  /** The answer. */
  sdp: string,
} | { "type": "joined",
  /** Who. */
  member: Member,
} | { "type": "changed",
  /** Who, as they are now. */
  member: Member,
} | { "type": "left",
  /** Who. */
  member: number,
} | { "type": "slots",
  /** The changed ones. */
  slots: Array<SlotState>,
} | { "type": "wanted",
  /** One entry for each video up that was negotiated. */
  ups: Array<UpWanted>,
} | { "type": "lines",
  /** The changed ones. */
  lines: Array<MemberLine>,
} | { "type": "speakers",
  /** Member and level. */
  speakers: Array<SpeakerLevel>,
} | { "type": "media",
  /** What became of it. */
  state: MediaState,
} | { "type": "ping",
  /** The number. */
  nonce: number,
} | { "type": "pong",
  /** The ping's number. */
  nonce: number,
} | { "type": "error",
  /** Stable, for programs. */
  code: ErrorCode,
  /** For developers, in English; people see a text of the client's own for the code. */
  message: string,
  /** Whether the server closes the socket after this. */
  fatal: boolean,
} | { "type": "bye",
  /** Why. */
  reason: ByeReason,
};

/** What a slot carries since a moment ago. */
export type SlotState = {
  /** The receiving m-line, audio or video. */
  mid: string,
  /** What it carries, or nothing. */
  up: Up | null,
  /** Whether the picture is held back, since the peer's line cannot carry it now. Never so for audio. */
  paused: boolean,
};

/** What a subscriber wishes to see in one video slot. */
export type SlotWish = {
  /** The receiving m-line. */
  mid: string,
  /** What to show there, or nothing. */
  up: Up | null,
  /**
   * The height at which it is shown, in device pixels; the smallest layer at least this tall is sent, else the
   * tallest there is.
   */
  height_px: number,
};

/** One speaker of a `speakers` message. */
export type SpeakerLevel = {
  /** Who. */
  member: number,
  /** 0 loudest to 127 silent, in -dBov (RFC 6464). */
  level_dbov: number,
};

/** Answers `POST /api/meetings/{name}/token`. */
export type TokenResponse = {
  /** The meeting's name as it is shown and stands in its link. */
  meeting: string,
  /** The join token: signed, good for a few minutes, for this meeting only. */
  token: string,
  /**
   * How to reach the bridge's own TURN relay (RFC 8656), at the host and port of the page, over UDP, TCP and perhaps
   * TLS. Missing where the bridge has none.
   */
  relay?: RelayCredentials,
};

/** Names one thing one peer publishes. */
export type Up = {
  /** Who publishes. */
  peer: number,
  /** What. */
  kind: UpKind,
};

/** What a publisher sends on one m-line. */
export type UpKind = "microphone" | "camera" | "screen";

/** Says which m-line of an offer carries which up. */
export type UpLine = {
  /** The m-line, one the client sends on. */
  mid: string,
  /** What is sent there. */
  kind: UpKind,
};

/** The publisher's own word on one up: whether it sends now and how tall its tallest layer is. */
export type UpState = {
  /** What. */
  kind: UpKind,
  /** Whether media flows: false while muted, off or not shared. */
  active: boolean,
  /** Height of the tallest layer in pixels; 0 for audio or when unknown. */
  height_px: number,
};

/**
 * Which simulcast layers of one up somebody receives or waits for, and how much of them their lines carry. The publisher
 * may pause the others.
 */
export type UpWanted = {
  /** What. */
  kind: UpKind,
  /** One entry a layer, smallest first, as many as were negotiated. */
  layers: Array<boolean>,
  /**
   * The most that is to be sent of each layer, in bit/s of the encoder's output; 0, or no entry, where there is no
   * such limit. A publisher that does not keep to it is served as if there were none.
   */
  bps_max: Array<number>,
};

/** The protocol versions the server of this source tree speaks, newest last. */
export const VERSIONS: readonly number[] = [1];

/** Largest frame the server accepts, in bytes of UTF-8. */
export const FRAME_BYTES_MAX = 524288;

/** Longest shown name, in Unicode code points; the server cuts longer ones. */
export const NAME_CHARS_MAX = 64;
