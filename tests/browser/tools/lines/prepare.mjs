// What lines.mjs needs and machines do not have: Debian packages, two Python packages in a folder of their own, a
// network namespace. Each says what it does; what cannot be had is left out.

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const here = import.meta.dirname ?? new URL('.', import.meta.url).pathname;
const PYTHON = join(here, '../../../../target/lines-python');
const PYTHON_PACKAGES = ['numpy==2.4.6', 'pesq==0.0.4'];

/** As `janus/call.ts` has it. */
const ADDRESS = '10.99.0.1';

const isRoot = process.getuid() === 0;

/** Gives the Python that scores, with the speech made in the folder; null if there is none. */
export function prepareSpeech(folder) {
  const python = join(PYTHON, 'bin/python');
  const isDone =
    packages('speech for the bad lines', ['espeak-ng']) &&
    (existsSync(python) && run(python, ['-c', 'import pesq'], { stdio: 'ignore' })
      ? true
      : makePython(python)) &&
    (existsSync(join(folder, 'speech.wav')) || run(python, [join(here, 'speech.py'), 'make', folder])) &&
    run(python, [join(here, 'speech.py'), 'check', folder]);
  if (!isDone) console.log('Speech is left out.');
  return isDone ? python : null;
}

function makePython(python) {
  console.log(`Installing ${PYTHON_PACKAGES.join(' and ')} from PyPI into target/lines-python.`);
  return (
    packages('the speech score is compiled', ['gcc', 'libc6-dev']) &&
    ((run('python3', ['-m', 'venv', PYTHON]) && existsSync(python)) ||
      (packages('the speech score is in Python', ['python3-venv', 'python3-dev']) &&
        run('python3', ['-m', 'venv', '--clear', PYTHON]))) &&
    run(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...PYTHON_PACKAGES])
  );
}

/**
 * A sound card that plays to nobody, at the right speed also on a busy machine, for Firefox. Gives where it is, and
 * what ends it; null if there is none.
 */
export function startSound() {
  if (!packages('a sound card for Firefox', ['pulseaudio'])) return null;
  const home = mkdtempSync(join(tmpdir(), 'asamblea-sound-'));
  const socket = join(home, 'native');
  const flags = ['-n', '--daemonize=no', '--exit-idle-time=-1', '--use-pid-file=no', '--disable-shm'];
  const modules = [
    'module-null-sink sink_name=nowhere rate=48000',
    `module-native-protocol-unix socket=${socket} auth-anonymous=1`,
  ];
  const child = spawn('pulseaudio', [...flags, ...modules.flatMap((it) => ['-L', it])], {
    env: { ...process.env, HOME: home, PULSE_RUNTIME_PATH: join(home, 'runtime') },
    stdio: 'ignore',
  });
  const stop = () => {
    child.kill('SIGKILL');
    rmSync(home, { recursive: true, force: true });
  };
  // It opens its socket when it is ready.
  for (let tries = 0; tries < 100 && !existsSync(socket); tries++) spawnSync('sleep', ['0.1']);
  if (existsSync(socket)) return { server: `unix:${socket}`, stop };
  stop();
  console.log('There is no sound card: Firefox makes one up, which a busy machine distorts.');
  return null;
}

/** Whether Janus is there, and a network that it can be run in. */
export function prepareJanus() {
  // Debian starts it as a service, which nobody has asked for.
  const isServed = existsSync('/run/systemd/system') && !isInstalled('janus');
  if (isServed) asRoot(['systemctl', 'mask', '--runtime', 'janus.service']);
  const isDone = packages('a server to compare with', ['janus', 'iproute2', 'util-linux']) && hasNamespace();
  if (isServed) {
    asRoot(['systemctl', 'unmask', '--runtime', 'janus.service']);
    asRoot(['systemctl', 'disable', 'janus.service']);
  }
  if (!isDone)
    console.log(
      'Janus is left out: it needs a Debian package and a network namespace (root, or user namespaces).',
    );
  return isDone;
}

/** An interface that leads nowhere: its other end is in the same namespace. All of it ends with the command. */
const NETWORK = [
  'ip link set lo up',
  'ip link add janus0 type veth peer name janus1',
  `ip address add ${ADDRESS}/24 dev janus0`,
  'ip link set janus0 up',
  'ip link set janus1 up',
].join(' && ');

/** The command in a network namespace of its own, where Janus has an address to offer. */
export function inNamespace(command) {
  return ['unshare', ...(isRoot ? ['-n'] : ['-rn']), 'sh', '-c', `${NETWORK} && exec "$@"`, 'sh', ...command];
}

function hasNamespace() {
  const [program, ...args] = inNamespace(['true']);
  return run(program, args);
}

function packages(why, names) {
  const missing = names.filter((name) => !isInstalled(name));
  if (missing.length === 0) return true;
  console.log(`Installing ${missing.join(' ')} with apt: ${why}.`);
  const apt = (...args) => asRoot(['env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', '-qq', ...args]);
  return apt('update') && apt('install', '-y', '--no-install-recommends', ...missing);
}

function isInstalled(name) {
  const { stdout } = spawnSync('dpkg-query', ['-W', '-f', '${Status}', name], { encoding: 'utf8' });
  return stdout?.includes('ok installed') ?? false;
}

function asRoot(command) {
  const [program, ...args] = isRoot ? command : ['sudo', ...command];
  return run(program, args);
}

function run(program, args, options = { stdio: ['ignore', 'inherit', 'inherit'] }) {
  return spawnSync(program, args, options).status === 0;
}
