"""VQ-VAE: every term in NumPy loops, the codebook over several steps, and what gradients reach."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.image_tokeniser import Tokenised
from taichu_jax.objectives.vision.vqvae import VQVAE
from taichu_jax.ops.ema_codebook import no_averages
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.optim import AdamW, Optimizer
from taichu_jax.training.state import init_state
from taichu_jax.training.step import make_step
from tests import case as cases
from tests.fakes import FakeNets

ENTRIES, DIM = 5, 3
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(4, 8, 8, 3)).astype(np.float32)
BOOK = RNG.normal(size=(ENTRIES, DIM)).astype(np.float32)
LATENTS = RNG.normal(size=(4, 2, 2, DIM)).astype(np.float32)
CODES = np.square(LATENTS[..., None, :] - BOOK).sum(-1).argmin(-1)
PIXELS = RNG.normal(size=IMAGES.shape).astype(np.float32)
PRESENT = np.array([True, False, True, True])
OBJECTIVE = VQVAE(source="s", present="has_image", entries=ENTRIES, dim=DIM, variance=0.3)
BATCH = {"image": jnp.asarray(IMAGES), "has_image": jnp.asarray(PRESENT)}


def nets(latents=LATENTS, book=BOOK):
    made = Tokenised(
        jnp.asarray(latents),
        jnp.asarray(CODES),
        jnp.asarray(book)[CODES],
        None,
        jnp.asarray(PIXELS),
    )
    return FakeNets(
        image_tokeniser=lambda images: made, image_tokeniser__codebook=lambda: jnp.asarray(book)
    )


def reference():
    """(reconstruction, commitment), means over the pictures that are there."""
    errors, distances = [], []
    for b in np.flatnonzero(PRESENT):
        errors += [
            (PIXELS[b][place] - (2 * IMAGES[b][place] - 1)) ** 2 for place in np.ndindex(8, 8, 3)
        ]
        for place in np.ndindex(2, 2):
            difference = LATENTS[b][place] - BOOK[CODES[b][place]]
            distances.append(np.mean(difference**2))
    return np.mean(errors), np.mean(distances)


def test_loss_is_the_formula():
    loss = jax.jit(
        lambda: OBJECTIVE.loss(nets(), BATCH, no_averages(ENTRIES, DIM), jax.random.key(0))
    )()
    error, distance = reference()
    np.testing.assert_allclose(loss.value, error / 0.3 + 0.25 * distance, rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["reconstruction"][0], error, rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["commitment"][0], distance, rtol=1e-5)
    used = CODES[PRESENT].reshape(-1)
    shares = np.bincount(used, minlength=ENTRIES) / len(used)
    entropy = -sum(p * np.log(p) for p in shares if p)
    np.testing.assert_allclose(loss.metrics["code_perplexity"][0], np.exp(entropy), rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["codes_unused"][0], (shares == 0).mean(), rtol=1e-6)
    learnt = dataclasses.replace(OBJECTIVE, decay=None)
    assert learnt.memory(jax.random.key(0)) is None and learnt.assigned(None) == {}
    value = jax.jit(lambda: learnt.loss(nets(), BATCH, None, jax.random.key(0)).value)()
    np.testing.assert_allclose(value, error / 0.3 + 1.25 * distance, rtol=1e-5)


@pytest.mark.parametrize("decay", [0.99, None])
def test_latents_are_pulled_to_entries_and_entries_to_latents_only_when_learnt(decay):
    objective = dataclasses.replace(OBJECTIVE, decay=decay)

    def value(latents, book):
        memory = objective.memory(jax.random.key(0))
        return objective.loss(nets(latents, book), BATCH, memory, jax.random.key(0)).value

    to_latents, to_book = jax.jit(jax.grad(value, (0, 1)))(jnp.asarray(LATENTS), jnp.asarray(BOOK))
    count = PRESENT.sum() * 4 * DIM
    expected = np.zeros_like(BOOK)
    for b, i, j in np.ndindex(4, 2, 2):
        difference = (LATENTS[b, i, j] - BOOK[CODES[b, i, j]]) * PRESENT[b]
        np.testing.assert_allclose(to_latents[b, i, j], 0.25 * 2 * difference / count, atol=1e-6)
        expected[CODES[b, i, j]] -= 2 * difference / count
    np.testing.assert_allclose(to_book, expected if decay is None else 0 * BOOK, atol=1e-6)


def test_the_codebook_of_the_network_follows_the_latents_over_several_steps():
    """Through the optimiser's step, with decay, clipping and absent pictures, against loops."""
    case = cases.load("vqvae")
    modules, objective, *_ = cases.built("vqvae")
    objective = dataclasses.replace(objective, revive=0.0, decay=0.8)
    streams = {"stream": {k: jnp.asarray(v) for k, v in case.batch.items()}}
    optimizer = Optimizer(AdamW(learning_rate=0.05, weight_decay=0.5, clip=0.1))
    tokeniser = modules["image_tokeniser"]

    def step(state):
        params = {"params": state.params["image_tokeniser"]}
        latents = tokeniser.apply(params, streams["stream"]["image"], method="encode")
        new, metrics = make_step(modules, {"a": objective}, optimizer)(state, streams)
        return new, metrics, latents

    state = jax.jit(lambda: init_state(modules, {"a": objective}, streams, optimizer, 0))()
    book = np.asarray(state.params["image_tokeniser"]["code_embedding"], np.float64)
    counts, sums, step = np.ones(len(book)), book.copy(), jax.jit(step)
    for _ in range(3):
        state, _, latents = step(state)
        new_counts, new_sums = np.zeros(len(book)), np.zeros_like(book)
        for b in np.flatnonzero(case.batch["has_image"]):
            for z in np.asarray(latents[b], np.float64).reshape(-1, 6):
                code = np.square(z - book).sum(-1).argmin()
                new_counts[code] += 1
                new_sums[code] += z
        counts, sums = 0.8 * counts + 0.2 * new_counts, 0.8 * sums + 0.2 * new_sums
        total = counts.sum()
        book = sums / ((counts + 1e-5) / (total + 24 * 1e-5) * total)[:, None]
        got = state.params["image_tokeniser"]["code_embedding"]
        np.testing.assert_allclose(got, book, rtol=1e-3, atol=1e-5)
    assert (new_counts > 0).sum() > 1  # more than one entry is in use


def test_gradients_reach_encoder_and_decoder_but_not_the_codebook():
    _, _, params, teachers, _ = cases.built("vqvae")
    _, (grads, _) = cases.gradients("vqvae")(params, teachers, cases.load("vqvae").batch)
    grads = grads["image_tokeniser"]
    assert not np.asarray(grads.pop("code_embedding")).any()
    assert set(grads) == {"encoder", "latent", "decoder"}
    for part, tree in grads.items():
        assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(tree)), part


def test_dead_entries_move_to_latents_of_pictures_that_are_there():
    case = cases.load("vqvae")
    modules, objective, params, *_ = cases.built("vqvae")
    objective = dataclasses.replace(objective, revive=1.0)
    batch = {k: jnp.asarray(v) for k, v in case.batch.items()}

    @jax.jit
    def run():
        memory = objective.memory(jax.random.key(0))
        loss = objective.loss(BoundNets(modules, params), batch, memory, jax.random.key(2))
        made = modules["image_tokeniser"].apply(
            {"params": params["image_tokeniser"]}, batch["image"]
        )
        return loss, made

    loss, made = run()
    present = case.batch["has_image"]
    counts = np.bincount(np.asarray(made.codes)[present].reshape(-1), minlength=24)
    dead = 0.9 + 0.1 * counts < 1.0
    assert 0 < dead.sum() < 24
    np.testing.assert_allclose(loss.metrics["codes_revived"][0], dead.mean(), rtol=1e-6)
    book = objective.assigned(loss.memory)["image_tokeniser"]["code_embedding"]
    latents = np.asarray(made.latents)[present].reshape(-1, 6)
    for code in np.flatnonzero(dead):
        assert np.abs(latents - np.asarray(book[code])).max(-1).min() < 1e-5


def test_settings_that_make_no_sense_are_refused():
    for wrong, message in (
        ({"decay": 1.0}, "decay=1.0"),
        ({"decay": None, "revive": 1.0}, "revive=1.0"),
        ({"variance": 0.0}, "variance=0.0"),
    ):
        with pytest.raises(UserError, match=message):
            dataclasses.replace(OBJECTIVE, **wrong)
    with pytest.raises(UserError, match=r"entries=7.*'image_tokeniser' is 5 x 3"):
        dataclasses.replace(OBJECTIVE, entries=7).loss(nets(), BATCH, None, jax.random.key(0))
