"""Damaged examples are counted where batches arrive, and end the run when there are too many."""

from __future__ import annotations

import dataclasses
import json
import logging
import math

import numpy as np
import pytest

from taichu_jax import cli
from taichu_jax.config import spec
from taichu_jax.data import builder
from taichu_jax.data.damage import FEWEST, WINDOW, Harm, Harms, Watch
from taichu_jax.data.items import Damaged
from taichu_jax.data.loader import Loader
from taichu_jax.data.records import Decoded
from taichu_jax.data.sentences import Sentences
from taichu_jax.data.streams import Pictures
from taichu_jax.data.tokenizer import ByteTokenizer
from taichu_jax.errors import UserError
from taichu_jax.training.experiment import Experiment, defaults
from taichu_jax.training.loop import train
from tests.data.files import png
from tests.data.small_run import Grey, Scale

COUNT = 60


def harms(*numbers):
    return Harms(tuple(Harm(f"e{n}", "broken") for n in numbers))


def feed(watch, batches, share, distinct=10**9, rows=16, seed=0):
    """Batches of so many rows, of whose draws that share is damaged."""
    rng = np.random.default_rng(seed)
    for batch in range(batches):
        bad = rng.negative_binomial(rows, 1 - share) if share else 0
        watch.add(rows, harms(*((batch * 1000 + i) % distinct for i in range(bad))))


def test_the_share_decides():
    for seed in range(5):
        for share in (0.0, 0.01, 0.03, 0.045):
            feed(Watch("a", 0.05), 2000, share, seed=seed)
        with pytest.raises(UserError):
            feed(Watch("a", 0.05), 2000, 0.08, seed=seed)
        with pytest.raises(UserError):
            feed(Watch("a", 0.05), 3, 0.5, seed=seed)


def test_the_last_window_counts_and_not_the_whole_run():
    watch = Watch("a", 0.05)
    feed(watch, 20_000, 0.0)
    steps = 0
    with pytest.raises(UserError, match=r"of the last 2,0\d\d examples"):
        for steps in range(WINDOW):
            watch.add(16, harms(*range(steps * 16, steps * 16 + 16)))
    allowed = 0.05 * WINDOW + 3 * math.sqrt(WINDOW * 0.05 * 0.95)
    assert abs(steps - allowed / 16) <= 1
    assert len(watch._window) <= WINDOW / 16 + 2


def test_a_few_bad_examples_of_a_tiny_data_set_end_nothing():
    watch = Watch("a", 0.05)
    feed(watch, 150, 0.3, distinct=FEWEST - 1)
    feed(Watch("a", 1.0), 50, 0.9)
    with pytest.raises(UserError, match="1 are damaged, 1 different ones: e7: broken; look"):
        Watch("a", 0.0).add(16, harms(7))


def test_the_line_names_the_first_and_the_log_names_each_once(caplog):
    watch = Watch("pictures", 0.05)
    watch.add(10_000, harms(1, 2))
    watch.add(10_000, harms(2, 3, 1))
    assert [record.message for record in caplog.records] == [
        f"left out e{n}: broken" for n in (1, 2, 3)
    ]
    with pytest.raises(UserError) as raised:
        Watch("pictures", 0.05).add(4, harms(*range(12)))
    assert str(raised.value) == (
        "config.data.damaged_share=0.05: of the last 16 examples drawn for stream 'pictures' 12 are "
        "damaged, 12 different ones: e0: broken; e1: broken; e2: broken; ...; look at them, or prepare "
        "the data again"
    )


# ----------------------------------------------------------------------------- with real records


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    """{share: data folder}: pictures of which that share cannot be decoded when they are read."""
    folder = tmp_path_factory.mktemp("shares")
    lines = [
        json.dumps(
            {"id": f"{i:02}", "image": f"{i}.png", "texts": {"en": f"{i}"}, "split": "train"}
        )
        for i in range(COUNT)
    ]
    for i in range(COUNT):
        (folder / f"{i}.png").write_bytes(png(np.full((4, 4, 1), 4 * i)))
    (folder / "m.jsonl").write_text("\n".join(lines))
    made, good = {}, builder._png
    for share in (0.0, 0.03, 0.5, 1.0):
        bad = {f"{i}.png" for i in range(round(share * COUNT))}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builder, "_png", lambda p, bad=bad: b"odd" if p.name in bad else good(p))
            builder.prepare_manifest(folder / str(share), "shares", folder / "m.jsonl")
        made[share] = folder / str(share)
    return made


STREAM = Pictures(dataset="shares", batch_size=16, image_size=4, augment=False)


@pytest.mark.parametrize("workers", [0, 1])
def test_counts_come_from_worker_processes(shares, workers, caplog):
    with (
        caplog.at_level(logging.WARNING),
        Loader(
            {"a": STREAM}, shares[0.5], None, seed=0, workers=workers, damaged_share=0.05
        ) as loader,
        pytest.raises(
            UserError, match=r"stream 'a' \d+ are damaged, \d+ different ones: \d\d: picture"
        ),
    ):
        for _ in range(4):
            next(loader)
    named = [record.message for record in caplog.records]
    assert len(named) == len(set(named)) >= FEWEST
    assert all(int(line.split()[2][:-1]) < COUNT / 2 for line in named)


def test_when_nothing_can_be_used_a_worker_says_so(shares):
    with (
        Loader({"a": STREAM}, shares[1.0], None, seed=0, workers=1) as loader,
        pytest.raises(UserError, match="20 examples drawn in a row are damaged, one of them is"),
    ):
        next(loader)


def test_batches_are_the_same_with_and_without_harms(shares):
    plain = STREAM.batches(shares[0.5], None, seed=3)
    told = STREAM.batches(shares[0.5], None, seed=3, harms=True)
    for step in range(3):
        for key, values in plain[step].items():
            np.testing.assert_array_equal(told[step]["batch"][key], values)
        assert told[step]["harms"] == told[step]["harms"] and told[step]["harms"].found
    assert STREAM.batches(shares[0.0], None, seed=3, harms=True)[0]["harms"] == Harms(())


@pytest.mark.parametrize("pack", [False, True])
def test_damaged_texts_are_replaced_too(shares, monkeypatch, pack):
    original = Decoded.texts

    def texts(self, row):
        if row % 2:
            raise Damaged("broken on purpose")
        return original(self, row)

    monkeypatch.setattr(Decoded, "texts", texts)
    stream = Sentences(dataset="shares", batch_size=8, text_length=12, pack=pack)
    element = stream.batches(shares[0.0], ByteTokenizer(), seed=0, harms=True)[0]
    assert element["batch"]["has_text"].all() and element["harms"].found
    assert all(int(harm.example) % 2 for harm in element["harms"].found)
    rows = list(stream.epoch(shares[0.0], ByteTokenizer()))
    seen = "".join(ByteTokenizer().decode(ids) for batch in rows for ids in batch["text"])
    assert seen and len(seen) < 100
    monkeypatch.setattr(Decoded, "texts", lambda *_: (_ for _ in ()).throw(Damaged("all")))
    with pytest.raises(UserError, match="20 examples drawn in a row"):
        stream.batches(shares[0.0], ByteTokenizer(), seed=0)[0]


# ------------------------------------------------------------------------------------ whole runs


def config_of(data_dir, **data):
    config = defaults()
    config.steps, config.log_every = 3, 1
    config.data.dir, config.data.workers = str(data_dir), 0
    config.data.update(data)
    config.streams.a = spec(
        Pictures, **dataclasses.asdict(STREAM) | {"image_augment": STREAM.image_augment}
    )
    config.networks.scale = spec(Scale)
    config.objectives.grey = spec(Grey, source="a")
    return config


def test_a_run_goes_on_with_few_and_ends_with_many(shares, tmp_path, caplog, capsys):
    for share, named in ((0.0, 0), (0.03, 2)):
        caplog.clear()
        train(config_of(shares[share]), tmp_path / str(share))
        assert 0 <= sum("left out" in record.message for record in caplog.records) <= named
        assert len((tmp_path / str(share) / "losses.jsonl").read_text().splitlines()) == 3
    assert named and any("left out 0" in record.message for record in caplog.records)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(lambda _: train(config_of(shares[0.5]), tmp_path / "bad"), "")
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "config.data.damaged_share=0.05" in lines[0]
    train(config_of(shares[0.5], damaged_share=1.0), tmp_path / "bad")  # the share may change


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_wrong_share_is_named(share):
    with pytest.raises(
        UserError, match=rf"config.data.damaged_share={share}: must be between 0 and 1"
    ):
        Experiment.from_config(config_of("nowhere", damaged_share=share))
