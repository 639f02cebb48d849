"""data2vec against loops over examples and channels, the teacher's weights apart from the student's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.spans import span_mask
from taichu_jax.training.nets import BoundNets
from tests import case as cases


def moved(tree):
    """Other weights than the student's, so that a swap of the two would show."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    return structure.unflatten(
        [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


@pytest.mark.parametrize(
    ("norm", "beta", "average"), [("instance", 0.0, 2), ("layer", 0.5, 1)], ids=["paper", "other"]
)
def test_loss_is_the_papers(norm, beta, average):
    modules, objective, params, teachers, _ = cases.built("data2vec")
    objective = dataclasses.replace(objective, norm=norm, beta=beta, average=average)
    batch = cases.load("data2vec").batch
    rng, teachers = jax.random.key(3), moved(teachers)

    def run(params, teachers):
        loss = objective.loss(BoundNets(modules, params, teachers), batch, None, rng)
        student, teacher = BoundNets(modules, params), BoundNets(modules, params | teachers)
        latents, real = student("speech", *batch.values(), method="features")
        masked = span_mask(
            fold_name(rng, "spans"), real.sum(-1), real.shape[1], rate=0.65, span=2, at_least=1
        )
        whole = teacher("speech", latents, real, method="contextualise")
        states = student("speech", latents, real, masked, method="contextualise").tokens
        return loss, (real, masked, whole.layers, student("data2vec_head", states))

    loss, rest = jax.jit(run)(params, teachers)
    real, masked, layers, predicted = jax.tree.map(np.asarray, rest)
    errors = []
    for b, n in enumerate(real.sum(1)):
        target = 0
        for block in layers[-average:]:
            x = block[b, :n]
            axis = 0 if norm == "instance" else 1
            deviation = np.sqrt(x.var(axis, keepdims=True) + 1e-5)
            target = target + (x - x.mean(axis, keepdims=True)) / deviation / average
        for t in np.flatnonzero(masked[b]):
            assert t < n
            d = np.abs(predicted[b, t] - target[t])
            each = np.where(d < beta, d**2 / (2 * beta), d - beta / 2) if beta else d**2
            errors.append(each.sum() / np.sqrt(16))
    np.testing.assert_allclose(loss.value, np.mean(errors), rtol=1e-4)


def test_the_teacher_learns_nothing_and_shares_the_front_end():
    _, _, _, teachers, _ = cases.built("data2vec")
    assert set(teachers) == {"speech"}
    assert "transformer" in teachers["speech"] and "front" not in teachers["speech"]


def test_decay_rises_from_0999_to_09999_in_30000_steps():
    decay = cases.built("data2vec")[1].teacher.decay
    values = [float(decay(jnp.asarray(step))) for step in (0, 15_000, 30_000, 90_000)]
    np.testing.assert_allclose(values, [0.999, 0.99945, 0.9999, 0.9999], rtol=1e-6)


def test_errors_say_what_is_wrong():
    modules, objective, params, teachers, _ = cases.built("data2vec")
    batch = cases.load("data2vec").batch

    def run(**fields):
        other = dataclasses.replace(objective, **fields)
        other.loss(BoundNets(modules, params, teachers), batch, None, jax.random.key(0))

    with pytest.raises(UserError, match="average=3: must be from 1 to 2"):
        run(average=3)
    with pytest.raises(UserError, match="valid: instance, layer"):
        run(norm="batch")
