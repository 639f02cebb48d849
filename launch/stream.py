"""Recognises a recording while it is played, chunk by chunk, with a run that was trained with CTC.

python launch/stream.py --run runs/NAME --audio X.wav
python launch/stream.py --run runs/NAME --audio X.wav --fast

--run DIR      the run's folder; its encoder hears in chunks (chunk_size), its sounds are not normalised
--audio FILE   WAV, FLAC, OGG or MP3
--fast         as fast as it can, instead of in real time
--step N       the checkpoint of this step; the newest by default
--pause S      a text ends after so many seconds without a letter, the next begins; 0.6; 0: never

A line a chunk: the second at which it ends, the latency in ms, the text so far; = marks a text that has
ended. Latency is the time from a chunk's end to its text; a word is heard up to a chunk before that, and
the spectrogram needs 12.5 ms more. At the end the latencies and the real-time factor: seconds of
computing per second of sound.
"""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from taichu_jax import cli

FLAGS = {"run": "", "audio": "", "fast": "false", "step": "", "pause": "0.6"}
PIECE = 0.02  # seconds of sound that arrive at once


def run(arguments: list[str]) -> None:
    """Parses the arguments, reads the recording and prints what is heard."""
    from taichu_jax.errors import UserError

    flags = cli.parse(arguments, FLAGS, switches=("fast",))
    for name, what in (("run", "DIR is needed: the folder of a run"), ("audio", "FILE is needed")):
        if not flags[name]:
            raise UserError(f"--{name} {what}")
    fast = cli.flag("fast", flags["fast"])
    pause = cli.number("pause", flags["pause"], float)
    step = int(cli.number("step", flags["step"])) if flags["step"] else None

    from taichu_jax.inference.inputs import read_sound
    from taichu_jax.inference.streaming import Recogniser
    from taichu_jax.training import runtime
    from taichu_jax.training.run import Run

    wave = read_sound(pathlib.Path(flags["audio"]))
    runtime.start_alone("launch/stream.py")
    recogniser = Recogniser(Run.open(flags["run"], step))
    recogniser.start(pause)  # a wrong pause is said before all is compiled
    recogniser.warm_up()
    play(recogniser, wave, fast, pause)


def play(recogniser, wave, fast: bool, pause: float = 0.0) -> str:
    """Feeds a wave at 16 kHz piece by piece and prints each text; returns the last."""
    import numpy as np

    from taichu_jax.data.audio import RATE

    session, size = recogniser.start(pause), round(PIECE * RATE)
    began, busy, latencies, text = time.perf_counter(), 0.0, [], ""

    def show(results, arrived) -> str:
        text = ""
        for partial in results:
            latencies.append(time.perf_counter() - arrived)
            text = partial.text
            mark, late = "=" if partial.final else " ", 1000 * latencies[-1]
            print(f"{partial.end:7.2f} s  {late:6.1f} ms {mark} {text}", flush=True)
            arrived = time.perf_counter() if fast else arrived
        return text

    for start in range(0, len(wave) + size, size):
        piece = wave[start : start + size]
        if not fast:
            time.sleep(max(0.0, began + (start + len(piece)) / RATE - time.perf_counter()))
        here = time.perf_counter()
        # In real time sound that came while computing was waiting since it was spoken.
        arrived = here if fast else min(here, began + (start + len(piece)) / RATE)
        results = session.feed(piece) if len(piece) else session.finish()
        text = show(results, arrived) or text
        busy += time.perf_counter() - here
    seconds = len(wave) / RATE
    mean, late, worst = np.mean(latencies), np.percentile(latencies, 95), max(latencies)
    print(
        f"{seconds:.2f} s of sound, {len(latencies)} chunks of {recogniser.chunk_seconds:.2f} s; latency "
        f"{1000 * mean:.1f} ms on average, {1000 * late:.1f} for 95 of 100, {1000 * worst:.1f} at worst; "
        f"real-time factor {busy / seconds:.3f}"
    )
    return text


if __name__ == "__main__":
    cli.main(run, __doc__)
