"""The codec's loss against loops over frames, tokens and stages, given the same codes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.config import build
from taichu_jax.errors import UserError
from taichu_jax.ops.random import fold_name
from taichu_jax.training.nets import BoundNets
from tests import case as cases

RNG = jax.random.key(4)
OBJECTIVE = dataclasses.replace(
    build(cases.load("mel_codec").objective), l1=0.7, l2=0.3, commitment=0.9, revival=0.6
)


def test_loss_is_the_sum_of_its_terms():
    modules, _, params, _, memory = cases.built("mel_codec")
    batch = cases.load("mel_codec").batch
    unused = np.zeros((3, 6), bool)
    unused[1, 2:4] = unused[2, 0] = True
    # Long unused: this batch's tokens are too few to lift their shares above the threshold.
    memory = dataclasses.replace(
        memory, shares=jnp.where(unused, -1.0, memory.shares), unused=unused
    )
    targets = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    memory = dataclasses.replace(memory, targets=jnp.asarray(targets))

    @jax.jit
    def run():
        nets = BoundNets(modules, params, step=5)
        loss = OBJECTIVE.loss(nets, batch, memory, RNG)
        latents, real = nets("speech", *batch.values(), method="encode")
        in_use = OBJECTIVE._in_use(fold_name(RNG, "stages"), 8)
        codes = nets("speech", latents, in_use, method="quantise")
        drawn = nets("speech", codes.vectors, batch["mel_lengths"], method="synthesise")
        return loss, latents, real, in_use, codes, drawn

    loss, latents, real, in_use, codes, drawn = jax.tree.map(np.asarray, run())
    assert len(set(in_use.tolist())) > 1
    absolute, squared, penalty = [], [], []
    books = np.asarray(params["speech"]["quantiser"]["code_embedding"])
    for b, length in enumerate(batch["mel_lengths"]):
        for t in range(length):
            absolute += list(np.abs(drawn[b, t] - batch["mel"][b, t]))
            squared += list(np.square(drawn[b, t] - batch["mel"][b, t]))
        for n in range(-(-length // 4)):
            left = latents[b, n]
            for s in range(3):
                left = left - books[s, codes.indices[b, n, s]]
                if s < in_use[b]:
                    penalty.append(1.25 * np.square(left).mean())
    back = [np.square(books[s, v] - targets[s, v]).mean() for s, v in np.argwhere(unused)]
    terms = [np.mean(x) for x in (absolute, squared, penalty, back)]
    np.testing.assert_allclose(loss.value, np.dot([0.7, 0.3, 0.9, 0.6], terms), rtol=1e-4)
    metrics = {name: total / count for name, (total, count) in loss.metrics.items()}
    for name, term in zip(("mel_l1", "mel_l2", "commitment", "revival"), terms, strict=True):
        assert metrics[name] == pytest.approx(term, rel=1e-4)
    for s in range(3):
        used = np.bincount(codes.indices[..., s][real], minlength=6) / real.sum()
        entropy = -(used * np.log(np.maximum(used, 1e-12))).sum()
        assert metrics[f"code_perplexity_{s + 1}"] == pytest.approx(np.exp(entropy), rel=1e-4)
        assert metrics[f"dead_share_{s + 1}"] == pytest.approx(unused[s].mean())
        np.testing.assert_allclose(
            loss.memory.shares[s], np.where(unused[s], -0.99, 0.99 / 6) + 0.01 * used, rtol=1e-4
        )
    np.testing.assert_array_equal(loss.memory.targets, targets)


def test_stages_are_dropped_as_often_as_they_should_be():
    rows = 60_000
    draw = jax.jit(OBJECTIVE._in_use, static_argnums=1)
    share = np.bincount(draw(RNG, rows), minlength=4) / rows
    expected = np.array([0, 1 / 6, 1 / 6, 1 / 2 + 1 / 6])
    np.testing.assert_allclose(share, expected, atol=5 * np.sqrt(0.25 / rows))
    never = dataclasses.replace(OBJECTIVE, stage_dropout=0.0)
    assert (np.asarray(never._in_use(RNG, 8)) == 3).all()


def test_sizes_that_do_not_agree_are_named():
    modules, _, params, _, memory = cases.built("mel_codec")
    nets = BoundNets(modules, params)
    wrong = dataclasses.replace(OBJECTIVE, codes=7)
    with pytest.raises(UserError, match=r"\(3, 7, 4\): .* 'speech' has \(3, 6, 4\)"):
        jax.eval_shape(lambda: wrong.loss(nets, cases.load("mel_codec").batch, memory, RNG))
