"""The comparison's arithmetic, and that its list is whole."""

from __future__ import annotations

import math
import pathlib

import numpy as np
import pytest

from experiments.speech_ssl import table
from experiments.speech_ssl.methods import METHODS

ROOT = pathlib.Path(__file__).parents[2]
RECOGNISERS = {"ctc", "streaming_ctc", "attention_asr", "transducer"}
SOUND = {"mel_codec", "hifi_gan", "fast_speech2"}  # what is made, not states to probe


def rows(trained, untrained):
    full = dict.fromkeys(table.MEASURES, 0.0)
    cost = {"seconds a step": 0.1, "GFLOP a step": 1.0, "MiB": 10.0, "encoder parameters": 5}
    return [
        {"seed": i, "trained": full | a, "untrained": full | b, "cost": cost}
        for i, (a, b) in enumerate(zip(trained, untrained, strict=True))
    ]


def test_every_self_supervised_config_of_speech_is_compared():
    files = (ROOT / "configs" / "speech").glob("[a-z]*_stamps.py")
    names = {file.stem.removesuffix("_stamps") for file in files}
    assert {method.config for method in METHODS} == names - RECOGNISERS - SOUND


def test_the_interval_is_students():
    mean, half = table.interval([1.0, 2.0, 4.0])
    # t(0.975, 2) = 4.303, from a printed table
    expected = 4.303 * np.std([1, 2, 4], ddof=1) / math.sqrt(3)
    assert mean == pytest.approx(7 / 3) and half == pytest.approx(expected, rel=1e-3)
    assert math.isnan(table.interval([1.0])[1])


def test_a_gain_is_positive_where_training_helps():
    found = rows([{"words": 60.0, "cer10": 70.0}], [{"words": 50.0, "cer10": 80.0}])
    assert table.gain(found, "words")[0] == 10 and table.gain(found, "cer10")[0] == 10


def test_bold_is_for_gains_beyond_their_interval():
    clear = rows([{"words": w} for w in (60.0, 61.0, 62.0)], [{"words": 50.0}] * 3)
    noisy = rows([{"words": w} for w in (40.0, 61.0, 62.0)], [{"words": 50.0}] * 3)
    assert table._cell(clear, "words") == "61.0 ± 2.5 (**+11.0**)"
    assert "**" not in table._cell(noisy, "words")
    text = table.markdown({"steps": 4, "methods": {"apc": clear}, "baselines": {}})
    assert "| APC | 3 | 61.0 ± 2.5 (**+11.0**) |" in text and "| APC | 100 | 1.0 | 10 | 5 |" in text


def test_what_is_not_finished_is_left_out(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "cost.json").write_text("{}")
    assert table.measured(tmp_path) == []
