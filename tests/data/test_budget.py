"""A few minutes of recordings: a fixed draw within the budget, smaller ones part of larger ones."""

import dataclasses

import numpy as np
import pytest

from taichu_jax.data.audio import RATE
from taichu_jax.data.budget import within_minutes
from taichu_jax.data.items import Damaged
from taichu_jax.data.parts import Example
from taichu_jax.data.records import Entry
from taichu_jax.data.streams import Recordings, Triplets
from taichu_jax.errors import UserError


class Source:
    """Recordings of 1 to 4 seconds; that of row 5 is damaged."""

    def __init__(self):
        self.entries = [Entry(f"r{i}", i, 0, (), ("fr", "ro"), False) for i in range(60)]
        self.heard, self.named = [], []

    def wave(self, row, lang, trim=False):
        if row == 5:
            raise Damaged("no sound")
        self.heard.append((row, lang))
        return np.zeros(RATE * (1 + row % 4) // (2 if trim else 1), np.int16)

    def report(self, row, damage):
        self.named.append(row)


ALL = [Example(row, lang) for lang in ("fr", "ro") for row in range(60)]


def seconds(examples, trim=False):
    return sum(1 + row % 4 for row, _ in examples) / (2 if trim else 1)


def test_the_draw_keeps_to_the_budget_and_grows_with_it():
    before = []
    for minutes in (0.2, 0.5, 1.0, 2.0):
        chosen = within_minutes(Source(), ALL, minutes)
        assert 60 * minutes - 4 < seconds(chosen) <= 60 * minutes
        assert chosen == [e for e in ALL if e in chosen]  # in the stream's own order
        assert set(before) < set(chosen)
        before = chosen
    everything = within_minutes(Source(), ALL, 100.0)
    assert everything == [e for e in ALL if e.row != 5]
    trimmed = within_minutes(Source(), ALL, 1.0, trim=True)
    assert 56 < seconds(trimmed, trim=True) <= 60


def test_the_draw_depends_on_the_seed_and_the_recording_alone():
    chosen = within_minutes(Source(), ALL, 1.0)
    assert within_minutes(Source(), ALL[::-1], 1.0) == chosen[::-1]
    other = within_minutes(Source(), ALL, 1.0, seed=1)
    assert set(other) != set(chosen)
    source = Source()
    within_minutes(source, ALL, 0.2)
    assert len(source.heard) < 20  # what is not drawn is not decoded


def test_streams_draw_from_their_training_split_only(sample_data_dir):
    for stream in (Recordings(minutes=0.1), Triplets(modalities=("text", "audio"), minutes=0.1)):
        source = stream.source(sample_data_dir)
        chosen = stream.select(source)
        everything = dataclasses.replace(stream, minutes=0.0).select(source)
        assert 0 < len(chosen) < len(everything) and set(chosen) <= set(everything)
        assert sum(len(source.wave(*e)) for e in chosen) <= 6 * RATE
        assert stream.select(source) == chosen
        test = dataclasses.replace(stream, split="test")
        held = test.source(sample_data_dir)
        assert test.select(held) == dataclasses.replace(test, minutes=0.0).select(held)


def test_settings_that_make_no_sense():
    with pytest.raises(UserError, match="minutes=-1: must be 0 or more"):
        Recordings(minutes=-1)
    with pytest.raises(UserError, match="minutes: needs examples that are all recordings"):
        Triplets(minutes=1.0, pairs=0.5)
