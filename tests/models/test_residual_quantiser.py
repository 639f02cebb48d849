"""Residual quantisation against loops over vectors, stages and entries."""

import jax
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.residual_quantiser import ResidualQuantiser

MODEL = ResidualQuantiser(stages=3, codes=7, dim=5, gamma=0.25)
X = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)
BOOKS = np.random.default_rng(1).normal(size=(3, 7, 5)).astype(np.float32) * 0.7
PARAMS = {"params": {"code_embedding": BOOKS}}
QUANTISE = jax.jit(MODEL.apply)


def loops(x, books):
    """(indices, residuals before each stage and after the last) of one vector."""
    indices, residuals = [], [x]
    for book in books:
        distances = [np.square(residuals[-1] - entry).sum() for entry in book]
        indices.append(int(np.argmin(distances)))
        residuals.append(residuals[-1] - book[indices[-1]])
    return indices, residuals


def test_every_stage_takes_the_nearest_entry_to_what_is_left():
    in_use = np.array([3, 2])
    out = QUANTISE(PARAMS, X, in_use)
    for b in range(2):
        for n in range(6):
            indices, residuals = loops(X[b, n], BOOKS)
            assert out.indices[b, n].tolist() == indices
            entries = [BOOKS[s, i] for s, i in enumerate(indices)]
            np.testing.assert_allclose(out.vectors[b, n], sum(entries[: in_use[b]]), rtol=1e-4)
            penalty = [1.25 * np.square(r).mean() for r in residuals[1:]]
            np.testing.assert_allclose(out.penalty[b, n], penalty, rtol=1e-4)
            np.testing.assert_allclose(out.residuals[b, n], residuals[:3], rtol=1e-4, atol=1e-6)
    every = QUANTISE(PARAMS, X)
    for stages in (1, 2, 3):
        some = MODEL.apply(PARAMS, every.indices[..., :stages], method="look_up")
        counted = QUANTISE(PARAMS, X, np.full(2, stages))
        np.testing.assert_allclose(some, counted.vectors, rtol=1e-5, atol=1e-6)


def test_gradients_are_straight_through_and_the_penalty_s_own():
    weight = np.random.default_rng(2).normal(size=X.shape).astype(np.float32)

    def through(params, x):
        return (MODEL.apply(params, x).vectors * weight).sum()

    def penalty(params, x):
        return MODEL.apply(params, x).penalty.sum()

    to_params, to_x = jax.jit(jax.grad(through, argnums=(0, 1)))(PARAMS, X)
    np.testing.assert_allclose(to_x, weight, rtol=1e-6)
    assert np.abs(to_params["params"]["code_embedding"]).max() == 0

    to_params, to_x = jax.jit(jax.grad(penalty, argnums=(0, 1)))(PARAMS, X)
    books, expected = np.zeros_like(BOOKS), np.zeros_like(X)
    for b in range(2):
        for n in range(6):
            indices, residuals = loops(X[b, n], BOOKS)
            for s, i in enumerate(indices):
                books[s, i] -= 2 * residuals[s + 1] / 5
                expected[b, n] += 0.25 * 2 * residuals[s + 1] / 5
    np.testing.assert_allclose(to_params["params"]["code_embedding"], books, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_x, expected, rtol=1e-4, atol=1e-5)


def test_where_nothing_is_an_entry_no_stage_makes_it_worse():
    """Without a zero entry the nearest one may be farther than nothing at all."""
    x = np.random.default_rng(3).normal(size=(4, 50, 5)).astype(np.float32)

    def left(books):
        out = QUANTISE({"params": {"code_embedding": books}}, x)
        entries = np.stack([books[s][np.asarray(out.indices)[..., s]] for s in range(3)])
        residuals = x - np.concatenate([np.zeros_like(x)[None], np.cumsum(entries, 0)])
        return np.linalg.norm(residuals, axis=-1)

    with_zero = BOOKS.copy()
    with_zero[:, 4] = 0
    norms = left(with_zero)
    assert (np.diff(norms, axis=0) <= 1e-6).all()
    assert (np.diff(norms.mean((1, 2))) < 0).all()  # on average each stage is worth something
    assert (np.diff(left(BOOKS * 3), axis=0) > 0).any()


def test_wrong_sizes_are_named():
    with pytest.raises(UserError, match="dim=5: the latents have 4 channels"):
        MODEL.apply(PARAMS, X[..., :4])
    with pytest.raises(UserError, match="codes of 4 stages; valid: 1 to stages=3"):
        MODEL.apply(PARAMS, np.zeros((1, 2, 4), np.int32), method="look_up")
    with pytest.raises(UserError, match="stages=0"):
        ResidualQuantiser(stages=0).init(jax.random.key(0), X)
