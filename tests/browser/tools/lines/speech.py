"""Speech for the bad lines, and how well it is heard.

    speech.py make FOLDER     writes FOLDER/speech.wav, which is played, and speech.json, where its pieces are
    speech.py score FOLDER    scores every FOLDER/*.wav that a cell recorded and that has no score yet
    speech.py check FOLDER    whether the score tells good from bad, without any browser

Speech is synthetic (espeak-ng), English and Spanish in turn, so that every machine has the same. The score is wide-band
PESQ (ITU-T P.862.2) as MOS-LQO: 1.0 is bad, above 4.5 nothing was changed. Each piece is looked for in the recording by
cross-correlation, so a longer delay alone costs nothing.
"""

import json
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import numpy
from pesq import PesqError, pesq

RATE = 48_000
SCORE_RATE = 16_000
# A piece with the pauses around it. P.862 is made for pieces of 3 s of speech and more.
PIECE_SECONDS = 6.0
# What the speech of a piece may take at most: the rest is pause.
SPOKEN_SECONDS_MAX = 5.4
# Speech as loud as telephony has it, with room above.
LEVEL_DB = -24.0
# A piece is not looked for later than this after its time: a jitter buffer holds no more.
DELAY_SECONDS_MAX = 2.0
# What a piece that is not there at all gets: the lowest.
WORST = 1.0

PIECES = [
    ("en-us", "The boat came in late because the wind had turned. We carried the nets up the hill together."),
    ("es", "El puente se cerró por la lluvia esta mañana. Llegaremos a la reunión un poco más tarde."),
    ("en-us", "Please send me the numbers before Thursday. I would like to read them on the train."),
    ("es", "La maestra abrió la ventana para ver el sol. Los niños guardaron los libros en silencio."),
]


def read(path):
    with wave.open(str(path)) as file:
        words = numpy.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        return file.getframerate(), words.astype(numpy.float64) / 32_768


def write(path, rate, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((numpy.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())


def resample(samples, rate, to):
    """Band-limited, over the whole signal at once."""
    if rate == to:
        return samples
    count = round(len(samples) * to / rate)
    spectrum = numpy.fft.rfft(samples)
    fitted = numpy.zeros(count // 2 + 1, dtype=complex)
    kept = min(len(spectrum), len(fitted))
    fitted[:kept] = spectrum[:kept]
    return numpy.fft.irfft(fitted, count) * (count / len(samples))


def spoken(voice, text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoken.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-s", "165", "-w", str(path), text], check=True)
        rate, samples = read(path)
    samples = resample(samples, rate, RATE)
    loud = numpy.flatnonzero(numpy.abs(samples) > 0.01)
    samples = samples[loud[0] : loud[-1]]
    if len(samples) > SPOKEN_SECONDS_MAX * RATE:
        raise SystemExit(f"takes {len(samples) / RATE:.1f} s: {text}")
    samples *= 10 ** (LEVEL_DB / 20) / numpy.sqrt(numpy.mean(samples**2))
    piece = numpy.zeros(int(PIECE_SECONDS * RATE))
    before = (len(piece) - len(samples)) // 2
    piece[before : before + len(samples)] = samples
    return piece


def make(folder):
    write(folder / "speech.wav", RATE, numpy.concatenate([spoken(*piece) for piece in PIECES]))
    pieces = [{"voice": voice, "text": text} for voice, text in PIECES]
    (folder / "speech.json").write_text(json.dumps({"piece_seconds": PIECE_SECONDS, "pieces": pieces}))


def lag(piece, recorded):
    """Where in the recording the piece fits best, in samples."""
    size = 1 << (len(piece) + len(recorded)).bit_length()
    product = numpy.fft.rfft(recorded, size) * numpy.conj(numpy.fft.rfft(piece, size))
    fits = numpy.fft.irfft(product, size)[: max(1, len(recorded) - len(piece) + 1)]
    return int(numpy.argmax(fits))


def score_piece(piece, recorded):
    """The score, and how late the piece comes in s: none where nothing is found."""
    if numpy.max(numpy.abs(recorded), initial=0) < 1e-3:
        return WORST, None
    at = lag(piece, recorded)
    heard = recorded[at : at + len(piece)]
    heard = numpy.pad(heard, (0, len(piece) - len(heard)))
    # The library takes whole numbers or small ones; a silent stretch is no utterance and gives an error.
    score = pesq(SCORE_RATE, piece.astype(numpy.float32), heard.astype(numpy.float32), "wb", PesqError.RETURN_VALUES)
    return (max(float(score), WORST), at / SCORE_RATE) if score > 0 else (WORST, None)


def pieces_of(folder):
    rate, speech = read(folder / "speech.wav")
    speech = resample(speech, rate, SCORE_RATE)
    return numpy.split(speech, len(PIECES))


def score_recording(pieces, recorded, begins_seconds, seconds):
    """`begins_seconds`: when in the recording the first piece was spoken; `seconds`: how long pieces were."""
    found = []
    for count in range(int(seconds / PIECE_SECONDS)):
        piece = pieces[count % len(pieces)]
        at = int((begins_seconds + count * PIECE_SECONDS) * SCORE_RATE)
        until = at + len(piece) + int(DELAY_SECONDS_MAX * SCORE_RATE)
        if at < 0 or at + len(piece) > len(recorded):
            continue
        score, delay = score_piece(piece, recorded[at:until])
        found.append({"score": round(score, 2), "delay_ms": None if delay is None else round(delay * 1_000)})
    return found


def score(folder):
    pieces = pieces_of(folder)
    for path in sorted(folder.glob("*.speech.json")):
        target = path.with_name(path.name.replace(".speech.json", ".score.json"))
        if target.exists() and target.stat().st_mtime >= path.stat().st_mtime:
            continue
        cell = json.loads(path.read_text())
        rate, recorded = read(path.with_name(path.name.replace(".speech.json", ".wav")))
        recorded = resample(recorded, rate, SCORE_RATE)
        begins = (cell["spokeAt"] - cell["recordedAt"]) / 1_000
        found = score_recording(pieces, recorded, begins, cell["ms"] / 1_000)
        target.write_text(json.dumps(found))
        print(f"  {path.name.removesuffix('.speech.json')}: {[it['score'] for it in found]}", flush=True)


def check(folder):
    """Nothing changed, a longer delay, a noise, packets of 20 ms missing: the score has to fall in this order."""
    pieces = pieces_of(folder)
    random = numpy.random.default_rng(1)
    whole = numpy.concatenate(pieces)
    late = numpy.concatenate([numpy.zeros(SCORE_RATE // 2), whole, numpy.zeros(SCORE_RATE)])
    frame = SCORE_RATE // 50

    def holes(share):
        kept = random.random(len(late) // frame + 1) >= share
        return late * numpy.repeat(kept, frame)[: len(late)]

    medians = {}
    for name, recorded in [("late", late), ("5 % missing", holes(0.05)), ("30 % missing", holes(0.3))]:
        found = score_recording(pieces, recorded, 0.0, len(pieces) * PIECE_SECONDS)
        medians[name] = float(numpy.median([it["score"] for it in found]))
        print(f"  {name}: {[(it['score'], it['delay_ms']) for it in found]}")
    good = medians["late"] > 4.5 > medians["5 % missing"] > medians["30 % missing"] + 0.5
    raise SystemExit(0 if good and medians["30 % missing"] < 2 else "The score does not tell good from bad.")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("make", "score", "check"):
        raise SystemExit(__doc__)
    {"make": make, "score": score, "check": check}[sys.argv[1]](Path(sys.argv[2]))
