"""Units are stored, joined by record and language, and cropped with the sound."""

import dataclasses
import json
import pickle

import numpy as np
import pytest

from taichu_jax.data import units as stored
from taichu_jax.data.audio import RATE, AudioAugment
from taichu_jax.data.loader import Loader
from taichu_jax.data.records import Decoded
from taichu_jax.data.streams import Recordings
from taichu_jax.data.units import UnitCrops, open_units, write_units
from taichu_jax.errors import UserError

PLAIN = AudioAugment(
    gain_db=0, speed_probability=0, noise_probability=0, band_masks=0, frame_masks=0
)
STREAM = Recordings(
    batch_size=8, seconds=0.4, audio="waveform", normalise=False, audio_augment=PLAIN
)


def clock(folder, data_dir, rate=100.0, trim=False, leave_out=0):
    """Units that tell the time: unit k of every recording is k."""
    stream = dataclasses.replace(STREAM, trim=trim)
    rows = []
    for split in ("train", "test", "validation", "test_recordings"):
        here = dataclasses.replace(stream, split=split)
        source = here.source(data_dir)
        for row, lang in here.select(source):
            samples = len(source.wave(row, lang, trim))
            count = 1 + int(samples * rate / RATE)
            rows.append((source.entries[row].id, lang, samples, np.arange(count)))
    rows = rows[leave_out:]
    total = sum(len(row[-1]) for row in rows)
    facts = {"rate": rate, "clusters": 1000, "dataset": STREAM.dataset, "trim": trim}
    write_units(folder, facts, np.zeros((1000, 2)), total, rows)
    return dataclasses.replace(stream, units=str(folder), unit_rate=rate, unit_clusters=1000)


@pytest.fixture(scope="module")
def clocks(tmp_path_factory, sample_data_dir):
    """Streams whose units tell the time, by rate."""
    folder = tmp_path_factory.mktemp("units")
    return {rate: clock(folder / str(rate), sample_data_dir, rate) for rate in (100.0, 50.0)}


@pytest.fixture
def times(monkeypatch):
    """Recordings whose samples tell the time."""
    original = Decoded.wave

    def wave(self, row, lang, trim=False):
        return np.arange(len(original(self, row, lang, trim)), dtype=np.int32)

    monkeypatch.setattr(Decoded, "wave", wave)


def heard(batch, row):
    """The recording's sample numbers in a row."""
    return batch["audio"][row, : batch["audio_lengths"][row]] * 32767


@pytest.mark.parametrize("rate", [100.0, 50.0])
def test_units_are_cropped_with_the_sound(clocks, times, sample_data_dir, rate):
    stream = clocks[rate]
    hop, starts = RATE / rate, set()
    batches = stream.batches(sample_data_dir, None, seed=1)
    for step in range(4):
        batch = batches[step]
        assert batch["units"].shape == (8, round(0.4 * rate))
        for row in range(8):
            sound = heard(batch, row)
            starts.add(round(sound[0]) % hop)
            for j, unit in enumerate(batch["units"][row]):
                if j * hop <= len(sound) - 1:
                    assert abs(unit * hop - sound[round(j * hop)]) <= hop / 2 + 1
                elif j * hop > len(sound):
                    assert unit == -1
    assert len(starts) > 8  # crops do start between two units


def test_units_follow_a_change_of_speed(clocks, times, sample_data_dir):
    fast = dataclasses.replace(PLAIN, speed=0.3, speed_probability=1.0)
    stream = dataclasses.replace(clocks[100.0], audio_augment=fast)
    batch = stream.batches(sample_data_dir, None, seed=1)[0]
    stretched = 0
    for row in range(8):
        sound, found = heard(batch, row), batch["units"][row]
        there = [
            j for j in range(2, len(found) - 2) if found[j] >= 0 and j * 160 < len(sound) - 400
        ]
        for j in there:
            assert abs(found[j] * 160 - sound[j * 160]) < 160
        stretched += len(there) > 5 and (np.diff(found[there]) != 1).any()
    assert stretched > 3


def test_an_epoch_starts_at_the_beginning(clocks, sample_data_dir):
    batch = next(clocks[100.0].epoch(sample_data_dir, None))
    for row in range(8):
        count = min(40, 1 + batch["audio_lengths"][row] // 160)
        np.testing.assert_array_equal(batch["units"][row, :count], np.arange(count))
        assert (batch["units"][row, count:] == -1).all()


def test_shapes_need_no_folder_and_mel_and_views_have_units():
    stream = dataclasses.replace(STREAM, units="/none", audio="mel", views=2, unit_rate=25.0)
    fields = stream.fields()
    assert fields["units"].shape == fields["units2"].shape == (8, 10)
    assert fields["units"].dtype == np.int32
    assert "units" not in STREAM.fields()


def test_a_worker_process_finds_them(clocks, sample_data_dir):
    part = clocks[100.0].parts(None)[0]
    assert pickle.loads(pickle.dumps(part)) == part
    loader = Loader({"voices": clocks[100.0]}, sample_data_dir, None, seed=1)
    try:
        assert (next(iter(loader))["voices"]["units"] >= 0).any()
    finally:
        loader.close()


def test_round_trip(tmp_path):
    rows = [("a", "fr", 500, np.array([3, 0, 299])), ("a", "ro", 0, np.zeros(0, int))]
    centroids = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    write_units(tmp_path, {"rate": 100.0, "what": [1]}, centroids, 3, rows)
    found = open_units(tmp_path)
    assert found.facts == {"rate": 100.0, "what": [1]}
    np.testing.assert_array_equal(found.of(("a", "fr"))[0], [3, 0, 299])
    assert found.of(("a", "fr"))[1] == 500
    assert len(found.of(("a", "ro"))[0]) == 0
    assert ("b", "fr") not in found
    np.testing.assert_array_equal(np.load(tmp_path / stored.CENTROIDS), centroids)
    assert np.load(tmp_path / stored.UNITS).dtype == np.uint16


def test_what_does_not_fit_is_said_before_training(tmp_path, clocks, sample_data_dir):
    good = clocks[100.0]
    table = [
        (
            {"units": str(tmp_path / "none")},
            "no units there; write them with: python launch/cluster.py",
        ),
        ({"unit_rate": 50.0}, "written with rate=100.0, but the stream has unit_rate=50.0"),
        ({"unit_clusters": 99}, "written with clusters=1000, but the stream has unit_clusters=99"),
        ({"trim": True}, "written with trim=False, but the stream has trim=True"),
    ]
    for fields, message in table:
        with pytest.raises(UserError, match=message):
            dataclasses.replace(good, **fields).batches(sample_data_dir, None, seed=0)
    partly = clock(tmp_path / "partly", sample_data_dir, leave_out=3)
    with pytest.raises(UserError, match=r"3 of \d+ recordings have no units, the first is "):
        partly.batches(sample_data_dir, None, seed=0)
    with pytest.raises(UserError, match="shift_seconds"):
        dataclasses.replace(good, audio_augment=AudioAugment(shift_seconds=0.1))
    with pytest.raises(UserError, match="must be above 0"):
        Recordings(unit_rate=0.0)


def test_damage_and_other_audio_are_said(tmp_path, sample_data_dir, monkeypatch):
    stream = clock(tmp_path / "units", sample_data_dir)
    original = Decoded.wave
    monkeypatch.setattr(Decoded, "wave", lambda *args: original(*args)[:-1])
    with pytest.raises(UserError, match=r"had \d+ samples then and \d+ now"):
        stream.batches(sample_data_dir, None, seed=0)[0]
    monkeypatch.undo()
    flat = np.load(tmp_path / "units" / stored.UNITS, mmap_mode="r+")
    flat[5] += 1
    flat.flush()
    info = tmp_path / "units" / stored.INFO
    info.write_text(json.dumps(json.loads(info.read_text())))  # as if it were another folder
    with pytest.raises(UserError, match="is damaged"):
        stream.batches(sample_data_dir, None, seed=0)


def test_size_of_a_row():
    assert UnitCrops("", 100.0).size(32_000) == 200
    assert UnitCrops("", 100 / 3).size(32_000) == 67
    assert UnitCrops("", 50.0).size(400) == 2
