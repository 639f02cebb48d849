"""Clustering goes on where it was cut off, covers every recording, and reads layers as they are."""

import dataclasses
import json
import pathlib
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans

from taichu_jax.data import builder, fetch
from taichu_jax.data.audio import HOP, RATE, log_mel
from taichu_jax.data.items import Damaged
from taichu_jax.data.records import Decoded
from taichu_jax.data.streams import Recordings
from taichu_jax.data.units import CENTROIDS, INFO, UNITS, open_units
from taichu_jax.errors import UserError
from taichu_jax.evals import clustering, unit_features
from taichu_jax.evals.clustering import Plan, cluster
from taichu_jax.evals.unit_features import MFCC, HiddenStates, the_recordings
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.wave import WaveEncoder
from taichu_jax.training.nets import BoundNets

STREAM = Recordings(batch_size=8, trim=True, languages=("fr", "ro"))
PLAN = Plan(clusters=6, passes=2, chunk=16)


class Loudness:
    """Cheap features: two numbers of every 50 ms."""

    rate = 20.0

    def __init__(self):
        self.facts = {"features": "loudness"}
        self.read = 0

    def __call__(self, waves):
        self.read += len(waves)
        hop = round(RATE / self.rate)
        whole = [wave[: len(wave) // hop * hop].reshape(-1, hop) for wave in waves]
        return [np.stack([np.abs(x).mean(1), x.std(1)], 1).astype(np.float32) for x in whole]


@pytest.fixture(scope="module")
def sample_data_dir(tmp_path_factory):
    """A data folder with the sample."""
    data_dir = tmp_path_factory.mktemp("data")
    builder.prepare_stamps(data_dir, source=fetch.SAMPLE)
    return data_dir


def silent(stage, done, total):
    del stage, done, total


def files(folder):
    return {name: (folder / name).read_bytes() for name in (UNITS, CENTROIDS, INFO)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, sample_data_dir):
    """Units of the sample, made in one go; the stages that were announced."""
    folder, said = tmp_path_factory.mktemp("whole"), []
    cluster(folder, STREAM, sample_data_dir, Loudness(), PLAN, lambda *call: said.append(call))
    return folder, said


class Killed(BaseException):
    """The end of a program, wherever it is."""


def test_cut_off_anywhere_the_units_are_the_same(whole, tmp_path, sample_data_dir):
    folder, said = whole
    expected = files(folder)
    for after in range(2, len(said), 7):
        calls, features = 0, Loudness()

        def say(*_, after=after):
            nonlocal calls
            calls += 1
            if calls > after:
                raise Killed

        again = tmp_path / str(after)
        with pytest.raises(Killed):
            cluster(again, STREAM, sample_data_dir, features, PLAN, say)
        assert not (again / INFO).exists()
        cluster(again, STREAM, sample_data_dir, features, PLAN, silent)
        assert files(again) == expected, said[after]
        assert not (again / clustering.WORK).exists()
        everything = sum(1 for _ in json.loads(expected[INFO])["recordings"])
        assert features.read == everything  # no features are computed twice


def test_a_half_written_file_is_not_used(whole, tmp_path, sample_data_dir, monkeypatch):
    replace, count = clustering.os.replace, 0

    def killed(*args):
        nonlocal count
        count += 1
        if count == 9:  # the file is on the disk, under its partial name
            raise Killed
        replace(*args)

    monkeypatch.setattr(clustering.os, "replace", killed)
    with pytest.raises(Killed):
        cluster(tmp_path, STREAM, sample_data_dir, Loudness(), PLAN, silent)
    partial = list((tmp_path / clustering.WORK).glob("*.partial"))
    assert len(partial) == 1
    partial[0].write_bytes(b"PK half")
    monkeypatch.undo()
    cluster(tmp_path, STREAM, sample_data_dir, Loudness(), PLAN, silent)
    assert files(tmp_path) == files(whole[0])


def test_every_recording_of_every_split_has_its_nearest_centre(whole, sample_data_dir):
    units, centroids = open_units(whole[0]), np.load(whole[0] / CENTROIDS)
    features, count = Loudness(), 0
    for split in ("train", "test", "validation", "test_recordings"):
        stream = dataclasses.replace(STREAM, split=split)
        source = stream.source(sample_data_dir)
        for row, lang in stream.select(source):
            wave = source.wave(row, lang, trim=True)
            frames = features([wave.astype(np.float32) / 32767])[0]
            near = np.square(frames[:, None] - centroids).sum(-1).argmin(1)
            found, samples = units.of((source.entries[row].id, lang))
            assert samples == len(wave)
            assert (found == near).mean() > 0.99 or len(near) < 20  # ties in float32
            count += len(near)
    assert count == units.facts["frames"]
    assert units.facts["trim"] is True and units.facts["rate"] == 20.0


def test_the_centres_are_scikit_learns(whole, sample_data_dir):
    """The same chunks in the same order, fed to an estimator that was never saved."""
    stream = STREAM
    source = stream.source(sample_data_dir)
    examples = stream.select(source)
    order = np.random.default_rng([0, 0]).permutation(len(examples))
    chunks = []
    for first in range(0, len(order), PLAN.chunk):
        some = [examples[i] for i in order[first : first + PLAN.chunk]]
        waves = [source.wave(row, lang, True).astype(np.float32) / 32767 for row, lang in some]
        chunks.append(np.concatenate(Loudness()(waves)))
    model = MiniBatchKMeans(6, batch_size=10_000, reassignment_ratio=0.0, random_state=0)
    for turn in range(2):
        for i in np.random.default_rng([0, 1 + turn]).permutation(len(chunks)):
            model.partial_fit(chunks[i])
    found = np.load(whole[0] / CENTROIDS)
    np.testing.assert_allclose(found, model.cluster_centers_, rtol=1e-4)
    assert len(chunks) > 2


def test_few_frames_in_a_chunk_are_joined_for_the_first_centres():
    steps = clustering._steps([3, 0, 4, 2], Plan(clusters=6, passes=2, chunk=1))
    first = sum([3, 0, 4, 2][i] for i in steps[0])
    assert first >= 6
    assert sorted(i for step in steps for i in step) == [0, 0, 2, 2, 3, 3]


def test_what_is_wrong_is_said(whole, tmp_path, sample_data_dir, monkeypatch):
    def run(folder, plan=PLAN, stream=STREAM):
        return cluster(folder, stream, sample_data_dir, Loudness(), plan, silent)

    with pytest.raises(UserError, match="--clusters 0: must be at least 1"):
        Plan(clusters=0)
    with pytest.raises(UserError, match=r"--clusters 1000000: the recordings have \d+ frames only"):
        run(tmp_path / "many", Plan(clusters=1_000_000))
    with monkeypatch.context() as patch:
        patch.setattr(clustering, "_fit", lambda *args: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(tmp_path / "many")  # the refusal left nothing in the way
    with pytest.raises(UserError, match=r"holds other units \(clusters: 6 -> 7\); name another"):
        run(tmp_path / "many", dataclasses.replace(PLAN, clusters=7))
    done = shutil.copytree(whole[0], tmp_path / "done")
    assert run(done)["frames"] > 0  # nothing to do
    with pytest.raises(UserError, match=r"holds other units \(trim: True -> False\)"):
        run(done, stream=dataclasses.replace(STREAM, trim=False))
    with pytest.raises(UserError, match="cannot be used"):
        run(pathlib.Path("/proc/units"))
    with (
        clustering._alone(tmp_path / "used"),
        pytest.raises(UserError, match="another program is clustering in it"),
    ):
        run(tmp_path / "used")


def test_a_damaged_recording_has_no_units(tmp_path, sample_data_dir, monkeypatch):
    original = Decoded.wave

    def wave(self, row, lang, trim=False):
        if (row, lang) == broken:
            raise Damaged("broken on purpose")
        return original(self, row, lang, trim)

    source = STREAM.source(sample_data_dir)
    broken = tuple(STREAM.select(source)[3])
    key = source.entries[broken[0]].id, broken[1]
    monkeypatch.setattr(Decoded, "wave", wave)
    cluster(tmp_path, STREAM, sample_data_dir, Loudness(), Plan(clusters=2, passes=1), silent)
    assert key in open_units(tmp_path)
    assert len(open_units(tmp_path).of(key)[0]) == 0


# ----------------------------------------------------------------------------------- features


def test_mfccs_are_39_numbers_with_their_differences():
    wave = np.random.default_rng(0).normal(size=8000).astype(np.float32) / 10
    short = wave[:200]
    found, tiny = MFCC()([wave, short])
    assert found.shape == (51, 39) and found.dtype == np.float32 and tiny.shape == (2, 39)
    assert MFCC.rate == 100.0
    bands = log_mel(wave, 23)
    for k in range(13):  # the orthonormal cosine transform of type II
        cosine = np.cos(np.pi * k * (2 * np.arange(23) + 1) / 46)
        expected = bands @ cosine * np.sqrt((2 if k else 1) / 23)
        np.testing.assert_allclose(found[:, k], expected, atol=1e-3)
    for t in range(4, 47):
        for offset in (13, 26):
            values = found[:, offset - 13 : offset]
            slope = sum(n * (values[t + n] - values[t - n]) for n in (1, 2)) / 10
            np.testing.assert_allclose(found[t, offset : offset + 13], slope, atol=1e-3)


def test_normalised_mfccs_do_not_tell_how_loud_a_recording_is_or_through_what_it_went():
    noise = np.random.default_rng(0).normal(size=8000).astype(np.float32) / 10
    loud = noise * np.linspace(0.1, 1.0, 8000, dtype=np.float32)  # something that changes
    here, there, silence = MFCC(normalised=True)([loud, 0.3 * loud, np.zeros(4000, np.float32)])
    np.testing.assert_allclose(here.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(here.std(0), 1, atol=1e-4)
    np.testing.assert_allclose(here, there, atol=2e-2)
    assert np.abs(silence).max() < 1e-4
    plain = MFCC()([loud, 0.3 * loud])
    assert np.abs(plain[0] - plain[1]).max() > 1
    assert MFCC(normalised=True).facts != MFCC().facts


NETWORKS = {
    "mel": SpeechEncoder(width=8, depth=2, heads=2, stride=2, bands=8, frames=40),
    "waveform": WaveEncoder(
        width=8,
        depth=2,
        heads=2,
        channels=4,
        kernels=(10, 8),
        strides=(5, 64),
        positions=4,
        groups=1,
    ),
}


@pytest.fixture(params=NETWORKS)
def opened(request, monkeypatch):
    """A run with an untrained network, in place of the one on the disk."""
    form, network = request.param, NETWORKS[request.param]
    stream = Recordings(batch_size=4, audio=form, seconds=0.4, mel_bands=8)
    size = (2, 40, 8) if form == "mel" else (2, 6400)
    init = jax.jit(lambda: network.init(jax.random.key(0), jnp.zeros(size), jnp.full(2, size[1])))
    params = {"speech": init()["params"]}

    networks = {"speech": network, "other": NETWORKS["mel"]}
    run = types.SimpleNamespace(
        experiment=types.SimpleNamespace(
            networks=networks, streams={"voices": stream}, compute_dtype=None
        ),
        params=params,
        step=7,
        nets=lambda: BoundNets(networks, params),
    )
    monkeypatch.setattr(unit_features.Run, "open", lambda path: run)
    return form, network, params["speech"], stream.parts(None)[0]


def test_states_are_those_of_the_layer_and_long_recordings_are_read_in_pieces(opened):
    form, network, params, part = opened
    features = HiddenStates("runs/x", "speech", 1)
    rng = np.random.default_rng(0)
    waves = [rng.normal(size=n).astype(np.float32) for n in (5000, 6400, 9000, 20_000)]
    found = features(waves)
    hop = round(RATE / features.rate)
    assert hop == 320
    encode = jax.jit(lambda x, n: network.apply({"params": params}, x, n).layers[1])

    def states(wave):
        values = part.values(wave)
        field = np.zeros((1, *features._shape[1:]), np.float32)
        field[0, : len(values)] = values
        count = int(network.token_count(len(values)))
        return np.asarray(encode(field, jnp.array([len(values)])))[0, :count]

    for wave, frames in zip(waves, found, strict=True):
        if len(wave) <= 6400:
            np.testing.assert_allclose(frames, states(wave), rtol=1e-4, atol=1e-5)
            continue
        total = len(wave) // HOP + 1 if form == "mel" else len(wave)
        assert abs(len(frames) - int(network.token_count(total))) <= 1
        first, last = states(wave[:6400]), -(-(len(wave) - 6400) // hop) * hop
        np.testing.assert_allclose(frames[: len(first)], first, rtol=1e-4, atol=1e-5)
        end = states(wave[last:])
        new = len(frames) - last // hop
        assert new == len(end)
        known = len(first) * len(range(0, last, len(first) * hop))
        tail = len(frames) - known
        assert tail > 2
        np.testing.assert_allclose(frames[-tail:], end[-tail:], rtol=1e-4, atol=1e-5)


def test_wrong_layers_and_networks_are_named(opened):
    with pytest.raises(UserError, match="--layer 3: network 'speech' of runs/x has layers 0 to 2"):
        HiddenStates("runs/x", "speech", 3)
    with pytest.raises(UserError, match="has no network 'speach'; did you mean 'speech'"):
        HiddenStates("runs/x", "speach", 0)


def test_the_stream_must_be_clear():
    one, two = Recordings(batch_size=2), Recordings(batch_size=4)
    assert the_recordings({"a": one, "text": object()}, "", "x") is one
    assert the_recordings({"a": one, "b": two}, "b", "x") is two
    with pytest.raises(UserError, match="2 streams of recordings, name one with --stream"):
        the_recordings({"a": one, "b": two}, "", "x")
    with pytest.raises(UserError, match="no stream of recordings 'c'"):
        the_recordings({"a": one}, "c", "x")
