"""wav2vec against loops over states, steps and negatives, given the same negatives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.ops.negatives import sample_in_groups
from taichu_jax.ops.random import fold_name
from taichu_jax.training.nets import BoundNets
from tests import case as cases

RNG = jax.random.key(4)


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


@pytest.mark.parametrize(("first", "weight"), [(1, None), (2, 1.0)])
def test_loss_is_the_papers(first, weight):
    modules, objective, params, *_ = cases.built("wav2vec")
    objective = dataclasses.replace(objective, first=first, negative_weight=weight)
    batch = cases.load("wav2vec").batch

    @jax.jit
    def run(params):
        nets = BoundNets(modules, params)
        loss = objective.loss(nets, batch, None, RNG)
        latents, real = nets("speech", *batch.values(), method="features")
        context = nets("speech", latents, real, method="contextualise").tokens
        return loss, (latents, real, context)

    loss, rest = run(params)
    latents, real, context = (np.asarray(x, np.float64) for x in rest)
    drawn, _ = sample_in_groups(fold_name(RNG, "negatives"), rest[1], jnp.arange(8), 4)
    kernel = np.asarray(params["wav2vec_head"]["linear"]["kernel"]).reshape(8, 3, 6)
    bias = np.asarray(params["wav2vec_head"]["linear"]["bias"]).reshape(3, 6)
    total, count, found, fooled = 0.0, 0, 0, 0
    for b, length in enumerate(real.sum(1).astype(int)):
        flat = latents[b]
        for t in range(length):
            for k in range(first, first + 3):
                if t + k >= length:
                    continue
                h = context[b, t] @ kernel[:, k - first] + bias[k - first]
                own = h @ flat[t + k]
                others = [h @ flat[m - b * len(flat)] for m in np.asarray(drawn[b, t + k])]
                expected = np.mean([log_sigmoid(-x) for x in others])
                total -= log_sigmoid(own) + (4 if weight is None else weight) * expected
                count += 1
                found += own > 0
                fooled += np.sum(np.array(others) > 0)
    np.testing.assert_allclose(loss.value, total / count, rtol=1e-4)
    assert loss.metrics["found"] == (found, count)
    assert loss.metrics["fooled"] == (fooled, 4 * count)
