// mediasoup behind the plainest HTTP: JSON in, JSON out, session descriptions in between.
//
//   node server.mjs ADDRESS PORT_MIN PORT_MAX one-port|port-each feedback|no-feedback repair|no-repair
//
// Prints "ready PORT" when it listens. A room is a router, a bot has a transport to send and one to receive.

import { createServer } from 'node:http';
import * as mediasoup from 'mediasoup';
import { parse, parseParams } from 'sdp-transform';

const [address, portMin, portMax, ports, feedback, repair] = process.argv.slice(2);
const hasFeedback = feedback === 'feedback';
const hasRepair = repair === 'repair';

/** As the load tester has it for answers. */
const BODY_BYTES_MAX = 4 << 20;
/**
 * mediasoup's own default. From a high one it starts to probe each line at multiples of it: at a gigabit it sent more
 * probes than media. One layer is never held back by an estimate.
 */
const INITIAL_BITRATE_BPS = 600_000;

const CODECS = [
  { kind: 'audio', mimeType: 'audio/opus', clockRate: 48_000, channels: 2 },
  { kind: 'video', mimeType: 'video/VP8', clockRate: 90_000 },
];
const MID = 'urn:ietf:params:rtp-hdrext:sdes:mid';
const TRANSPORT_CC = 'http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01';
const EXTENSIONS = [
  MID,
  'urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id',
  'urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id',
  'urn:ietf:params:rtp-hdrext:ssrc-audio-level',
  ...(hasFeedback ? [TRANSPORT_CC] : []),
];
/** Without transport-wide feedback there is no REMB in its place. */
const isWantedFeedback = ({ type, parameter }) =>
  type !== 'goog-remb' &&
  (hasFeedback || type !== 'transport-cc') &&
  (hasRepair || type !== 'nack' || parameter === 'pli');

const worker = await mediasoup.createWorker({ logLevel: 'warn' });
worker.on('died', (error) => {
  console.error(String(error));
  process.exit(1);
});
const listen = { protocol: 'udp', ip: address };
const range = { min: Number(portMin), max: Number(portMax) };
const server =
  ports === 'one-port'
    ? await worker.createWebRtcServer({ listenInfos: [{ ...listen, port: range.min }] })
    : null;

const routers = new Map();
const subscribers = new Map();

/** The room's router, made by the first who names it. */
function routerOf(room) {
  if (!routers.has(room)) routers.set(room, worker.createRouter({ mediaCodecs: CODECS }));
  return routers.get(room);
}

function createTransport(router) {
  return router.createWebRtcTransport({
    ...(server ? { webRtcServer: server } : { listenInfos: [{ ...listen, portRange: range }] }),
    initialAvailableOutgoingBitrate: INITIAL_BITRATE_BPS,
  });
}

const actions = {
  async publish({ room, offer }) {
    const router = await routerOf(room);
    const transport = await createTransport(router);
    const description = parse(offer);
    await transport.connect({ dtlsParameters: dtlsOf(description, 'client') });
    const feeds = [];
    const sections = [];
    for (const media of description.media) {
      const rtpParameters = sendingParameters(media);
      const producer = await transport.produce({ kind: media.type, rtpParameters });
      feeds.push(producer.id);
      sections.push({ kind: media.type, direction: 'recvonly', parameters: rtpParameters });
    }
    return { answer: write(transport, 'passive', sections), feeds };
  },

  async subscribe({ room, feeds }) {
    const router = await routerOf(room);
    const transport = await createTransport(router);
    const { codecs, headerExtensions } = router.rtpCapabilities;
    const rtpCapabilities = {
      codecs: codecs
        .filter(({ mimeType }) => hasRepair || !mimeType.endsWith('/rtx'))
        .map((it) => ({ ...it, rtcpFeedback: it.rtcpFeedback.filter(isWantedFeedback) })),
      headerExtensions: headerExtensions.filter(({ uri }) => EXTENSIONS.includes(uri)),
    };
    const consumers = new Map();
    for (const [index, producerId] of feeds.entries()) {
      const mid = String(index);
      // Nothing is sent before there is somebody to decrypt it.
      consumers.set(producerId, await transport.consume({ producerId, rtpCapabilities, mid, paused: true }));
    }
    const sections = [...consumers.values()].map(({ kind, rtpParameters }) => ({
      kind,
      direction: 'sendonly',
      parameters: rtpParameters,
    }));
    subscribers.set(transport.id, { transport, consumers });
    return { subscriber: transport.id, offer: write(transport, 'actpass', sections) };
  },

  async answer({ subscriber, answer }) {
    const { transport, consumers } = known(subscribers, subscriber);
    const description = parse(answer);
    const setup = description.setup ?? description.media[0].setup;
    await transport.connect({
      dtlsParameters: dtlsOf(description, setup === 'passive' ? 'server' : 'client'),
    });
    await Promise.all([...consumers.values()].map((consumer) => consumer.resume()));
    return {};
  },

  async prefer({ subscriber, feed, spatial }) {
    const consumer = known(known(subscribers, subscriber).consumers, feed);
    await consumer.setPreferredLayers({ spatialLayer: spatial });
    return {};
  },
};

function known(map, key) {
  if (!map.has(key)) throw new Error(`there is no ${key}`);
  return map.get(key);
}

function dtlsOf(description, role) {
  const { type, hash } = description.fingerprint ?? description.media[0].fingerprint;
  return { role, fingerprints: [{ algorithm: type, value: hash }] };
}

/** What an m-line of an offer sends: Opus or VP8 with its RTX, whatever else it could send. */
function sendingParameters(media) {
  const wanted = CODECS.find(({ kind }) => kind === media.type);
  if (!wanted) throw new Error(`m=${media.type} is not taken`);
  const name = wanted.mimeType.split('/')[1];
  const main = media.rtp.find(({ codec }) => codec.toLowerCase() === name.toLowerCase());
  if (!main) throw new Error(`the offer has no ${name}`);
  const parametersOf = (payload) =>
    parseParams(media.fmtp.find((it) => it.payload === payload)?.config ?? '');
  const rtx = media.rtp.find(
    ({ codec, payload }) => codec === 'rtx' && parametersOf(payload).apt === main.payload,
  );
  const feedbackOf = (payload) =>
    (media.rtcpFb ?? [])
      .filter((it) => String(it.payload) === String(payload) || it.payload === '*')
      .map(({ type, subtype }) => ({ type, parameter: subtype ?? '' }))
      .filter(isWantedFeedback);
  const codec = ({ payload, codec: codecName, rate, encoding }) => ({
    mimeType: `${media.type}/${codecName}`,
    payloadType: payload,
    clockRate: rate,
    ...(encoding ? { channels: Number(encoding) } : {}),
    parameters: parametersOf(payload),
    rtcpFeedback: codecName === 'rtx' ? [] : feedbackOf(payload),
  });
  const rids = (media.rids ?? []).filter(({ direction }) => direction === 'send').map(({ id }) => id);
  const [main0, rtx0] =
    media.ssrcGroups?.find(({ semantics }) => semantics === 'FID')?.ssrcs.split(' ') ?? [];
  const ssrc = Number(main0 ?? media.ssrcs?.[0]?.id);
  const single = ssrc ? { ssrc, ...(rtx && rtx0 ? { rtx: { ssrc: Number(rtx0) } } : {}) } : {};
  return {
    mid: String(media.mid),
    codecs: [main, ...(rtx ? [rtx] : [])].map(codec),
    headerExtensions: (media.ext ?? [])
      .filter(({ uri }) => EXTENSIONS.includes(uri))
      .map(({ uri, value }) => ({ uri, id: value })),
    encodings: rids.length > 0 ? rids.map((rid) => ({ rid })) : [single],
    rtcp: { cname: String(media.mid), reducedSize: true },
  };
}

/** A session description of ours (RFC 8866, RFC 8829). */
function write(transport, setup, sections) {
  const { iceParameters, iceCandidates, dtlsParameters } = transport;
  const { algorithm, value } = dtlsParameters.fingerprints.find((it) => it.algorithm === 'sha-256');
  const lines = ['v=0', 'o=- 1 1 IN IP4 127.0.0.1', 's=-', 't=0 0', 'a=ice-lite', 'a=msid-semantic: WMS *'];
  lines.push(`a=group:BUNDLE ${sections.map(({ parameters }) => parameters.mid).join(' ')}`);
  for (const { kind, direction, parameters } of sections) {
    const { mid, codecs, headerExtensions, encodings, rtcp } = parameters;
    lines.push(`m=${kind} 7 UDP/TLS/RTP/SAVPF ${codecs.map((it) => it.payloadType).join(' ')}`);
    lines.push('c=IN IP4 127.0.0.1', `a=mid:${mid}`, `a=${direction}`, 'a=rtcp-mux', 'a=rtcp-rsize');
    lines.push(`a=ice-ufrag:${iceParameters.usernameFragment}`, `a=ice-pwd:${iceParameters.password}`);
    lines.push(`a=fingerprint:${algorithm} ${value}`, `a=setup:${setup}`);
    for (const { payloadType, mimeType, clockRate, channels, parameters: settings, rtcpFeedback } of codecs) {
      const name = `${mimeType.split('/')[1]}/${clockRate}${channels > 1 ? `/${channels}` : ''}`;
      lines.push(`a=rtpmap:${payloadType} ${name}`);
      const config = Object.entries(settings ?? {}).map(([key, it]) => `${key}=${it}`);
      if (config.length > 0) lines.push(`a=fmtp:${payloadType} ${config.join(';')}`);
      for (const it of rtcpFeedback ?? [])
        lines.push(`a=rtcp-fb:${payloadType} ${it.type} ${it.parameter ?? ''}`.trimEnd());
    }
    for (const { uri, id } of headerExtensions) lines.push(`a=extmap:${id} ${uri}`);
    const rids = encodings.map(({ rid }) => rid).filter(Boolean);
    if (direction === 'recvonly' && rids.length > 0) {
      lines.push(...rids.map((rid) => `a=rid:${rid} recv`), `a=simulcast:recv ${rids.join(';')}`);
    }
    if (direction === 'sendonly') {
      const [{ ssrc, rtx }] = encodings;
      lines.push(`a=msid:${rtcp.cname} ${mid}`);
      if (rtx) lines.push(`a=ssrc-group:FID ${ssrc} ${rtx.ssrc}`);
      for (const id of [ssrc, ...(rtx ? [rtx.ssrc] : [])]) lines.push(`a=ssrc:${id} cname:${rtcp.cname}`);
    }
    for (const { foundation, priority, ip, port } of iceCandidates)
      lines.push(`a=candidate:${foundation} 1 udp ${priority} ${ip} ${port} typ host`);
    lines.push('a=end-of-candidates');
  }
  return `${lines.join('\r\n')}\r\n`;
}

async function handle(request) {
  let body = '';
  for await (const chunk of request.setEncoding('utf8')) {
    body += chunk;
    if (body.length > BODY_BYTES_MAX) throw new Error('the request is too long');
  }
  const action = actions[request.url.slice(1)];
  if (!action) throw new Error(`there is no ${request.url}`);
  return action(JSON.parse(body));
}

const api = createServer(async (request, response) => {
  let [status, reply] = [200, null];
  try {
    reply = await handle(request);
  } catch (error) {
    [status, reply] = [400, { error: String(error) }];
  }
  const text = JSON.stringify(reply);
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
  });
  response.end(text);
});
// Bots keep their connection for as long as they live.
api.keepAliveTimeout = 0;
api.listen(0, address, () => console.log(`ready ${api.address().port}`));
