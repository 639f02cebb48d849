"""Passes a recording through a codec while it is played, chunk by chunk, and writes what comes out.

python launch/speak.py --codec runs/mel_codec_stamps --audio X.wav --out Y.wav
python launch/speak.py --codec runs/A --vocoder runs/B --audio X.wav --out - | aplay -r 16000 -f S16_LE

--codec DIR    a run whose codec (MelTokeniser) is causal
--vocoder DIR  a run with a generator of sound; without it Griffin-Lim makes the sound, in blocks
--audio FILE   WAV, FLAC, OGG or MP3
--out FILE     a WAV of 16 bits, written as it is made; - writes its samples alone to the standard output
--chunk S      seconds of sound that are passed on at once, a whole number of tokens; 0.4 by default
--stages N     codes of a token that are kept; all by default
--fast         as fast as it can, instead of in real time

A line a chunk: the second of the recording up to which sound is out, and the latency in ms. Latency is
the time from when a sample was spoken to when it can be played, at the chunk's first sample, its oldest:
the wait for the chunk and for what comes after, and the computing. The worst is how far a player must
be behind to never wait. At the end also the real-time factor: seconds of computing per second of sound.
"""

import contextlib
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from taichu_jax import cli

FLAGS = {
    "codec": "", "vocoder": "", "audio": "", "out": "", "chunk": "0.4", "stages": "", "fast": "false"
}  # fmt: skip


def run(arguments: list[str]) -> None:
    """Parses the arguments and passes the recording through."""
    from taichu_jax.errors import UserError

    flags = cli.parse(arguments, FLAGS, switches=("fast",))
    for name, what in (
        ("codec", "DIR is needed: the folder of a run with a codec"),
        ("audio", "FILE is needed"),
        ("out", "FILE is needed: where the sound is written, or -"),
    ):
        if not flags[name]:
            raise UserError(f"--{name} {what}")
    fast, chunk = cli.flag("fast", flags["fast"]), cli.number("chunk", flags["chunk"], float)
    stages = int(cli.number("stages", flags["stages"])) if flags["stages"] else None

    from taichu_jax.data.audio import RATE
    from taichu_jax.inference.inputs import read_sound
    from taichu_jax.inference.speaking import Passage
    from taichu_jax.training import runtime
    from taichu_jax.training.run import Run

    wave = read_sound(pathlib.Path(flags["audio"]))
    runtime.start_alone("launch/speak.py")
    streamed, sound = prepared(
        Run.open(flags["codec"]), Run.open(flags["vocoder"]) if flags["vocoder"] else None, chunk
    )
    most = streamed.codec.quantiser.stages
    if stages is not None and not 1 <= stages <= most:
        raise UserError(f"--stages={stages}: must be 1 to {most}, the codec's")
    warm = Passage(streamed, sound(), stages)
    warm.feed(wave[: round(2 * chunk * RATE)])  # compiles
    warm.finish()
    with writer(flags["out"]) as write:
        play(
            Passage(streamed, sound(), stages),
            wave,
            chunk=chunk,
            write=write,
            fast=fast,
            log=sys.stderr if flags["out"] == "-" else sys.stdout,
        )


def prepared(codec_run, vocoder_run, chunk: float):
    """(the codec, a function that makes a new stream of sound) for chunks of so many seconds."""
    from taichu_jax.errors import UserError
    from taichu_jax.inference.codec_stream import StreamedCodec
    from taichu_jax.inference.sound_stream import GriffinLimStream, NeuralStream
    from taichu_jax.inference.vocoder import NeuralVocoder

    streamed = StreamedCodec(codec_run, chunk)
    if vocoder_run is None:
        return streamed, GriffinLimStream
    vocoder = NeuralVocoder(vocoder_run)
    if vocoder.bands != streamed.codec.bands:
        raise UserError(
            f"{vocoder_run.path}: reads frames of {vocoder.bands} bands, but {codec_run.path} makes "
            f"{streamed.codec.bands}"
        )
    return streamed, lambda: NeuralStream(vocoder, streamed.frames)


@contextlib.contextmanager
def writer(out: str):
    """A function that writes samples float32 to a file, as they come."""
    import numpy as np
    import soundfile

    from taichu_jax.data.audio import RATE
    from taichu_jax.errors import UserError

    if out == "-":

        def samples(wave) -> None:
            sys.stdout.buffer.write(np.round(wave * 32767).astype("<i2").tobytes())
            sys.stdout.buffer.flush()

        yield samples
        return
    try:
        file = soundfile.SoundFile(out, "w", RATE, 1, subtype="PCM_16", format="WAV")
    except (RuntimeError, OSError) as error:
        raise UserError(f"--out={out}: cannot be written ({error})") from error
    with file:
        yield file.write


def play(passage, wave, *, chunk: float, write, fast: bool, log) -> None:
    """Feeds a wave at 16 kHz chunk by chunk, writes what comes out and says how late it is."""
    import numpy as np

    from taichu_jax.data.audio import RATE

    size, out, busy = round(chunk * RATE), 0, 0.0
    began, latencies = time.perf_counter(), []
    for start in range(0, len(wave) + size, size):
        piece = wave[start : start + size]
        spoken = (start + len(piece)) / RATE
        if not fast:
            time.sleep(max(0.0, began + spoken - time.perf_counter()))
        here = time.perf_counter()
        made = passage.feed(piece) if len(piece) else passage.finish()
        now = time.perf_counter()
        busy += now - here
        if not len(made):
            continue
        write(made)
        # In real time sound that came while computing was waiting since it was spoken.
        waited = now - here if fast else now - began - spoken
        latencies.append(spoken + waited - out / RATE)
        out += len(made)
        print(f"{out / RATE:7.2f} s  {1000 * latencies[-1]:7.1f} ms", file=log, flush=True)
    seconds = len(wave) / RATE
    print(
        f"{seconds:.2f} s of sound in chunks of {chunk:g} s; first sound after "
        f"{1000 * latencies[0]:.1f} ms; latency {1000 * np.median(latencies):.1f} ms (median), "
        f"{1000 * max(latencies):.1f} at worst; real-time factor {busy / seconds:.3f}",
        file=log,
    )


if __name__ == "__main__":
    cli.main(run, __doc__)
