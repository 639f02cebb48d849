"""Characters from planted tones: what is said is read off, and the rates are those of another count."""

import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.data.audio import AudioAugment
from taichu_jax.data.parts import AudioPart
from taichu_jax.models.layers import Encoded
from taichu_jax.ops.lengths import within
from taichu_jax.probing.encoder import Encoder, means
from taichu_jax.probing.readers import WaveReader
from taichu_jax.probing.tasks.recognition import Recognition, error_rate
from tests.probing.toy import Toy, rows_of, scores, study

TONES = {"a": 500.0, "b": 1500.0, "c": 3000.0}
SAMPLES = 9600


class Tones(Toy):
    """Every letter is 0.15 s of its tone, then 0.05 s of silence."""

    def wave(self, i, trim=False):
        del trim
        time = np.arange(2400) / 16_000
        quiet = np.zeros(800)
        parts = [x for c in self.contents[i] for x in (np.sin(6.2832 * TONES[c] * time), quiet)]
        return 0.5 * np.concatenate(parts).astype(np.float32)


def hidden_states(params, inputs):
    del params
    mel, lengths = inputs
    mask = within(lengths, mel.shape[1])
    return Encoded(tokens=mel, mask=mask, layers=(jnp.zeros_like(mel),), rate=100.0)


def test_tones_are_read():
    draw = np.random.default_rng(0)
    texts = ["".join(draw.choice(list("abc"), draw.integers(1, 4))) for _ in range(60)]
    rows = rows_of([{}] * 60, ["train"] * 45 + ["test"] * 15, [str(i) for i in range(60)])
    part = AudioPart(
        form="mel",
        samples=SAMPLES,
        bands=8,
        views=1,
        normalise=False,
        trim=False,
        augment=AudioAugment(),
    )
    encoder = Encoder("planted", "speech", WaveReader(part), hidden_states, {}, dict, means)
    found = study(encoder, Tones("speech", rows, texts), scratch_steps=2)
    result = Recognition(steps=150).run(found)
    assert result["better"] == "lower" and (result["train"], result["test"]) == (45, 15)
    planted = scores(result, "planted")
    assert planted["linear"] < 25 and planted["weighted sum"] < 40
    assert result["rows"][-1]["layers"]["linear"] == "last"
    curve = next(c for c in result["curves"] if c["system"] == "planted")
    assert curve["values"][0] > 60 > curve["values"][1]  # nothing can be heard in zeros
    assert scores(result, "writing nothing")["linear"] == 100.0
    assert set(scores(result, "trained from scratch")) == {"linear"}


def test_the_error_rate_merges_repeats_and_skips_padding():
    path = np.array([[1, 1, 0, 2, 2, 1], [2, 0, 0, 0, 0, 0]])  # 'aba' + ..., 'b' + padding
    logits = np.eye(4)[path]
    mask = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]], bool)
    # written: 'ab' for 'abb' (one deletion of three), 'b' for 'b'
    assert error_rate(["abb", "b"], logits, mask, "ab") == pytest.approx(100 / 4)
