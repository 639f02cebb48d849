"""launch/speak.py writes what the codec makes, says how late it is, and refuses nonsense."""

import importlib.util
import io
import re

import numpy as np
import pytest
import soundfile

from taichu_jax.data import audio
from taichu_jax.errors import UserError
from taichu_jax.inference.sound_stream import GriffinLimStream
from taichu_jax.inference.vocoder import NeuralVocoder
from tests.conftest import ROOT
from tests.data.files import sound
from tests.inference.speakers import WAVE, codec_run, vocoder_run


@pytest.fixture
def launcher():
    module_spec = importlib.util.spec_from_file_location("speak", ROOT / "launch/speak.py")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


class Delay:
    """A passage that gives every sample 480 samples later."""

    def __init__(self):
        self._kept = np.zeros(0, np.float32)

    def feed(self, wave):
        self._kept = np.concatenate([self._kept, wave])
        out, self._kept = self._kept[:-480], self._kept[-480:]
        return out

    def finish(self):
        return self._kept


def test_what_is_written_is_what_was_made_and_how_late_it_is(launcher, monkeypatch, tmp_path):
    """With a clock that only sleeping and computing move."""
    now, log = [0.0], io.StringIO()

    class Clock:
        perf_counter = staticmethod(lambda: now[0])

        @staticmethod
        def sleep(seconds):
            now[0] += seconds

    class Slow(Delay):
        def feed(self, wave):
            now[0] += 0.03
            return super().feed(wave)

    monkeypatch.setattr(launcher, "time", Clock)
    wave, path = WAVE[:8000], tmp_path / "out.wav"
    with launcher.writer(str(path)) as write:
        launcher.play(Slow(), wave, chunk=0.1, write=write, fast=False, log=log)
    written, rate = soundfile.read(path, dtype="float32")
    assert rate == audio.RATE
    np.testing.assert_allclose(written, wave, atol=2**-15)
    *lines, last = log.getvalue().splitlines()
    ends = [(1600 * (i + 1) - 480) / 16_000 for i in range(5)] + [0.5]
    assert [line.split()[0] for line in lines] == [f"{end:.2f}" for end in ends]
    # A chunk of 100 ms, 30 ms of computing, and from the second on the 30 ms that are kept back.
    assert [line.split()[2] for line in lines] == ["130.0", *["160.0"] * 4, "60.0"]
    assert now[0] == pytest.approx(0.53)
    assert last == (
        "0.50 s of sound in chunks of 0.1 s; first sound after 130.0 ms; latency 160.0 ms (median), "
        "160.0 at worst; real-time factor 0.300"
    )


def test_samples_alone_go_to_the_standard_output(launcher, capfdbinary):
    with launcher.writer("-") as write:
        write(np.array([0.0, 1.0, -0.5], np.float32))
    assert capfdbinary.readouterr().out == np.array([0, 32767, -16384], "<i2").tobytes()


def test_sound_is_made_by_what_is_asked_for(launcher):
    streamed, sound_of = launcher.prepared(codec_run(), None, 0.16)
    assert streamed.frames == 16 and isinstance(sound_of(), GriffinLimStream)
    _, sound_of = launcher.prepared(codec_run(), vocoder_run(), 0.16)
    assert isinstance(sound_of()._vocoder, NeuralVocoder) and sound_of() is not sound_of()


def test_a_vocoder_of_other_bands_is_refused(launcher, monkeypatch):
    monkeypatch.setattr(
        "taichu_jax.inference.vocoder.NeuralVocoder", lambda run: type("V", (), {"bands": 80})()
    )
    with pytest.raises(UserError, match=r"reads frames of 80 bands, but runs/x makes 8"):
        launcher.prepared(codec_run(), vocoder_run(), 0.16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--codec DIR is needed"),
        (["--codec", "x"], "--audio FILE is needed"),
        (["--codec", "x", "--audio", "y"], "--out FILE is needed"),
        (["--codec", "x", "--audio", "/nonexistent.wav", "--out", "z"], "No such file"),
        (["--codec", "/nonexistent", "--audio", "{good}", "--out", "z"], "holds no run"),
        (["--codec", "x", "--audio", "y", "--out", "z", "--chunk", "long"], "--chunk=long: must be a n"),
        (["--codec", "x", "--audio", "y", "--out", "z", "--stages", "a"], "--stages=a: must be a whole"),
        (["--vocodr", "x"], "did you mean '--vocoder'"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(launcher, tmp_path, arguments, message):
    (tmp_path / "good").write_bytes(sound(WAVE))
    with pytest.raises(UserError, match=message) as caught:
        launcher.run([a.format(good=tmp_path / "good") for a in arguments])
    assert re.fullmatch(r"[^\n]+", str(caught.value))


def test_a_file_that_cannot_be_written_is_named(launcher, tmp_path):
    with (
        pytest.raises(UserError, match=r"--out=.*/none/x\.wav: cannot be written"),
        launcher.writer(str(tmp_path / "none" / "x.wav")),
    ):
        pass
