"""Probes of speech on planted states, where the right answer is known."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.data.streams import Recordings
from taichu_jax.errors import UserError
from taichu_jax.evals import character_probe, spoken_words
from taichu_jax.evals.character_probe import CharacterProbe, Heard, letters

LETTERS = "abcdef"
PROBE = CharacterProbe(
    stream=Recordings(),
    languages=("fr", "ro"),
    minutes=(1.0,),
    steps=200,
    batch_size=8,
    learning_rate=0.1,
)


def heard(count: int, seed: int, informative: bool = True) -> Heard:
    """Two layers of states, of which the second spells the words, two states a letter."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list(LETTERS), rng.integers(1, 6))) for _ in range(count)]
    states = 0.1 * rng.normal(size=(count, 16, 2, 8)).astype(np.float32)
    mask = np.zeros((count, 16), bool)
    for row, word in enumerate(words):
        for i, letter in enumerate(word):
            if informative:
                states[row, 3 * i : 3 * i + 2, 1, LETTERS.index(letter)] += 1.0
        mask[row, : 3 * len(word)] = True
    languages = np.array(["fr", "ro"] * (count // 2))
    return Heard(jnp.asarray(states), jnp.asarray(mask), words, languages, np.full(count, 1.0))


def test_characters_that_are_there_are_read_and_noise_is_not():
    train, test = heard(120, 0), heard(20, 1)
    rates = PROBE._rates(train, test, 0)
    assert set(rates) == {"1 min", "to ro"}
    assert rates["1 min"] < 5 and rates["to ro"] < 5
    blind = PROBE._rates(heard(120, 0, informative=False), heard(20, 1, informative=False), 0)
    assert blind["1 min"] > 60


def test_only_the_labelled_minutes_and_languages_are_learnt_from(monkeypatch):
    learnt = []
    monkeypatch.setattr(
        CharacterProbe,
        "_error_rate",
        lambda self, train, rows, test, wanted, rng: learnt.append((rows, wanted)) or 0.0,
    )
    train, test = heard(120, 0), heard(20, 1)
    PROBE._rates(train, test, 0)
    (minute, everybody), (others, asked) = learnt
    assert train.seconds[minute].sum() == 60 and len(everybody) == 20
    assert set(train.languages[others]) == {"fr"} and set(test.languages[asked]) == {"ro"}


def test_text_is_plain():
    assert letters("Un  Éléphant, gris!") == "un éléphant gris"


def test_channels_are_standardised_over_the_real_training_states():
    train, test = heard(40, 0), heard(8, 1)
    spoiled = train._replace(
        states=jnp.where(train.mask[:, :, None, None], 5 * train.states + 3, 99.0)
    )
    scaled, same = character_probe._standardised(spoiled, test)
    real = np.asarray(scaled.states, np.float32)[np.asarray(train.mask)]
    np.testing.assert_allclose(real.mean(0), 0, atol=1e-2)
    np.testing.assert_allclose(real.std(0), 1, atol=1e-2)
    moved = np.asarray(spoiled.states, np.float32)[np.asarray(train.mask)]
    expected = (np.asarray(test.states) - moved.mean(0)) / moved.std(0)
    np.testing.assert_allclose(np.asarray(same.states, np.float32), expected, atol=2e-2)


def test_a_language_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UserError, match="transfer='pl'"):
        dataclasses.replace(PROBE, transfer="pl").run(None, tmp_path)


def test_words_are_found_from_planted_counts_and_not_from_noise():
    rng = np.random.default_rng(0)

    def split(count, informative):
        words = ["".join(rng.choice(list(LETTERS), 5)) for _ in range(count)]
        counts = np.array([[word.count(c) for c in LETTERS] for word in words], float)
        noise = rng.normal(size=(count, len(LETTERS)))
        layers = [noise, counts + 0.01 * noise if informative else noise[::-1]]
        return {"layers": layers, "words": words, "lang": np.zeros(count, int)}

    def best(informative):
        sizes = {"train": 300, "validation": 40, "test": 40}
        return spoken_words._best_layer({k: split(n, informative) for k, n in sizes.items()})

    known, blind = best(True), best(False)
    assert known["layer"] == 1 and known["R@10"] > 90
    assert blind["R@10"] < 60 and 20 < known["chance R@10"] < 30


def test_moments_leave_padding_out():
    from taichu_jax.models.layers import Encoded

    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    mask = np.arange(5) < np.array([3, 5])[:, None]
    (found,) = spoken_words._moments(Encoded(tokens=jnp.asarray(x), mask=jnp.asarray(mask)))
    expected = np.concatenate([x[0, :3].mean(0), x[0, :3].std(0)])
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_layers_of_another_width_are_left_out():
    from taichu_jax.models.layers import Encoded

    x = jnp.ones((2, 6, 4))
    encoded = Encoded(
        tokens=x, mask=jnp.ones((2, 6), bool), layers=(jnp.ones((2, 6, 3)), x), rate=100.0
    )
    found = character_probe._layers(encoded)
    assert found["states"].shape == (2, 3, 2, 4) and found["mask"].shape == (2, 3)
