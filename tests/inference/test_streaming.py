"""Streamed recognition against the whole recording at once, and what cannot stream."""

import dataclasses
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.data import audio
from taichu_jax.data.streams import Triplets
from taichu_jax.data.tokenizer import ByteTokenizer
from taichu_jax.errors import UserError
from taichu_jax.evals.decoding import ctc
from taichu_jax.inference.streaming import MelStream, Recogniser
from taichu_jax.models.heads import Projection
from taichu_jax.models.local_context import LocalContextEncoder
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.ctc import CTC
from taichu_jax.training.nets import BoundNets
from tests.conftest import ROOT
from tests.data.files import sound
from tests.evals import tiny

RNG = np.random.default_rng(0)
LOUD = np.repeat(10 ** RNG.uniform(-4, -0.7, 32), 500)[:15_813]  # or all sounds alike
WAVE = (RNG.normal(size=15_813) * LOUD).astype(np.float32)
LABELS = np.array([ctc.BLANK, 70, 80, 90])
FRAMES = audio.frame_count(len(WAVE))


def run(path, encoder=None, **fields):
    """An open run of CTC with random weights."""
    modules = {
        "audio": encoder or SpeechEncoder(
            width=8, depth=2, heads=2, stride=3, frames=120, chunk_size=4, left_context=5
        ),
        "ctc_head": Projection(features=tiny.VOCAB),
    }  # fmt: skip
    rng, params = np.random.default_rng(11), {}

    def draw(path, leaf):
        share = 0.0 if path[-1].key == "bias" else 1.0
        values = share * rng.normal(size=leaf.shape)
        # Blind to how loud all is, which would else be all that a random network hears.
        return jnp.asarray(values - (values.mean(0) if leaf.ndim == 2 else 0.0), jnp.float32)

    if encoder is None:
        inputs = {"audio": (np.zeros((1, 12, 80)), np.array([12])), "ctc_head": (np.zeros((1, 8)),)}
        for name, module in modules.items():
            shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs[name])["params"]
            params[name] = jax.tree_util.tree_map_with_path(draw, shapes)
        # A few labels only, so that the blank and repeats are among what is said.
        wanted = jnp.zeros(tiny.VOCAB).at[LABELS].set(1.0)
        params["ctc_head"]["linear"]["kernel"] *= wanted
    whole = tiny.run(path)
    stream = Triplets(modalities=("text", "audio"), normalise=False)
    experiment = dataclasses.replace(
        whole.experiment,
        networks=modules,
        objectives={"ctc": CTC(source="voices", encoder="audio")},
        streams={"voices": stream},
        **fields,
    )
    return dataclasses.replace(whole, experiment=experiment, params=params)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    fresh = run(tmp_path_factory.mktemp("run"))
    # Where a checkpoint's weights are put.
    return dataclasses.replace(fresh, params=jax.device_put(fresh.params, jax.devices()[0]))


@pytest.fixture(scope="module")
def recogniser(opened):
    return Recogniser(opened)


@pytest.mark.parametrize("pieces", [[15_813], [1, 199, 1, 159, 5000], [160] * 98, [50] * 316])
def test_frames_come_as_soon_as_their_samples_are_there(pieces):
    whole, stream, found, heard = audio.log_mel(WAVE), MelStream(80), [], 0
    for size in pieces:
        found.append(stream.feed(WAVE[heard : heard + size]))
        heard = min(heard + size, len(WAVE))
        ready = sum(t * audio.HOP + audio.WINDOW // 2 <= heard for t in range(FRAMES))
        assert sum(map(len, found)) == ready
        assert len(stream._wave) <= size + 4 * audio.HOP
    found += [stream.feed(WAVE[heard:]), stream.finish()]
    np.testing.assert_allclose(np.concatenate(found), whole, atol=1e-5)
    assert len(stream.finish()) == 0


@pytest.mark.parametrize("piece", [len(WAVE), 1600, 777])
def test_the_text_is_that_of_the_whole_recording(opened, recogniser, piece):
    session, texts = recogniser.start(), []
    for start in range(0, len(WAVE), piece):
        texts += list(session.feed(WAVE[start : start + piece]))
    texts += list(session.finish())

    @jax.jit
    def whole(mel, lengths):
        nets = BoundNets(opened.experiment.networks, opened.params)
        objective = opened.experiment.objectives["ctc"]
        return objective.log_probabilities(nets, {"mel": mel, "mel_lengths": lengths})

    log_p, states = whole(audio.log_mel(WAVE)[None], np.array([FRAMES], np.int32))
    path = log_p[0, : int(states[0])]
    best, ids = path.argmax(-1), ctc.greedy(path)
    assert len(ids) > 3 and (best == ctc.BLANK).any()
    assert ((best[3:-1:4] == best[4::4]) & (best[4::4] != ctc.BLANK)).any()  # over a border
    assert texts[-1].text == ByteTokenizer().decode(ids)
    chunks = -(-FRAMES // 12)
    assert [round(100 * t.end) for t in texts] == [
        *(12 * (i + 1) for i in range(chunks - 1)),
        FRAMES,
    ]
    assert list(session.finish()) == []


def test_a_text_ends_at_a_pause_and_nothing_is_lost(recogniser, monkeypatch):
    """With states that are told: three to a chunk, which are 30 ms each."""
    chunks = [[70, 0, 0, 0], [0, 0, 80, 80], [80, 0, 0, 90], [90, 0, 0, 0], [0, 0, 0, 0], [90]]
    told = iter([[ctc.BLANK if i == 0 else i for i in chunk] for chunk in chunks])
    monkeypatch.setattr(recogniser, "labels", lambda mel, heard: (next(told), heard))
    session = recogniser.start(0.15)  # five states
    wave = np.zeros(5 * 12 * audio.HOP + 1000, np.float32)
    found = [(p.text, p.final) for p in (*session.feed(wave), *session.finish())]
    letters = {i: ByteTokenizer().decode([i]) for i in (70, 80, 90)}
    first, second = letters[70] + letters[80], letters[90]
    assert found == [
        (letters[70], False),  # three blanks
        (first, False),  # five, but then a letter
        (first + second, False),
        (first + second, False),
        (first + second, True),
        (second, False),
    ]
    with pytest.raises(UserError, match="pause=-1: must be 0 or more"):
        recogniser.start(-1)


def test_nothing_is_compiled_after_warming_up(recogniser):
    compiled = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    recogniser.warm_up()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        session = recogniser.start()
        assert len([*session.feed(WAVE), *session.finish()]) == 9
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []


def test_a_stream_of_nothing_says_nothing(recogniser):
    session = recogniser.start()
    assert list(session.feed(WAVE[:0])) == [] and list(session.finish()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": {}}, "has no objective CTC"),
        ({"streams": {"voices": Triplets()}}, r"config\.streams\.voices\.normalise=false"),
        ({"networks": {"audio": SpeechEncoder()}}, r"config\.networks\.audio\.chunk_size=8"),
        ({"networks": {"audio": LocalContextEncoder()}}, "LocalContextEncoder; only a SpeechEnc"),
    ],
)
def test_what_cannot_stream_says_what_to_set(opened, change, message):
    experiment = dataclasses.replace(opened.experiment, **change)
    with pytest.raises(UserError, match=message):
        Recogniser(dataclasses.replace(opened, experiment=experiment))


@pytest.fixture
def launcher():
    module_spec = importlib.util.spec_from_file_location("stream", ROOT / "launch/stream.py")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def test_the_launcher_prints_texts_latency_and_speed(launcher, recogniser, capsys):
    text = launcher.play(recogniser, WAVE[:8000], True)
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[-1].endswith(text)
    assert [float(line.split()[0]) for line in lines] == [0.12, 0.24, 0.36, 0.48, 0.51]
    assert re.fullmatch(
        r"0\.50 s of sound, 5 chunks of 0\.12 s; latency [\d.]+ ms on average, [\d.]+ for 95 of "
        r"100, [\d.]+ at worst; "
        r"real-time factor [\d.]+", last
    )  # fmt: skip


def test_real_time_is_not_faster_than_the_sound(launcher, recogniser, monkeypatch, capsys):
    """With a clock that only sleeping and computing move."""
    now = [0.0]

    class Clock:
        perf_counter = staticmethod(lambda: now[0])

        @staticmethod
        def sleep(seconds):
            now[0] += seconds

    labels = recogniser.labels

    def slow(mel, heard):
        now[0] += 0.03
        return labels(mel, heard)

    monkeypatch.setattr(launcher, "time", Clock)
    monkeypatch.setattr(recogniser, "labels", slow)
    launcher.play(recogniser, WAVE[:8000], False)
    out = capsys.readouterr().out
    # The end of the sound completes two chunks, of which the last waits for the other.
    assert [line.split()[2] for line in out.splitlines()[:5]] == ["30.0"] * 4 + ["60.0"]
    assert now[0] >= 0.5 and "latency 36.0 ms on average, 54.0 for 95 of 100, 60.0 at worst" in out
    assert "real-time factor 0.300" in out  # five chunks of 0.03 s in half a second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--run DIR is needed"),
        (["--run", "x"], "--audio FILE is needed"),
        (["--run", "x", "--audio", "/nonexistent.wav"], "No such file"),
        (["--run", "x", "--audio", "{empty}"], "sound is empty"),
        (["--run", "x", "--audio", "{hours}", "--fast"], "3:00:00 of sound; at most 600 s"),
        (["--run", "/nonexistent", "--audio", "{good}"], "holds no run"),
        (["--run", "x", "--audio", "y", "--pause", "soon"], "--pause=soon: must be a number"),
        (["--fasst"], "did you mean '--fast'"),
        (["--run", "x", "--audio", "y", "--step", "ten"], "--step=ten: must be a whole number"),
    ],
)
def test_nonsense_is_refused(launcher, tmp_path, arguments, message):
    files = {
        "empty": sound(np.zeros(0)),
        "good": sound(WAVE),
        "hours": sound(np.zeros(3 * 3600 * 1000, np.float32), 1000, subtype="PCM_U8"),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if f"{{{name}}}" in arguments else b"")
    places = {name: str(tmp_path / name) for name in files}
    with pytest.raises(UserError, match=message):
        launcher.run([a.format(**places) for a in arguments])
