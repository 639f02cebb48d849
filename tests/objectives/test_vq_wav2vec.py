"""vq-wav2vec against loops over states, steps and negatives, given the same codes and negatives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.config import build, spec
from taichu_jax.models.quantiser import KmeansQuantiser
from taichu_jax.ops.negatives import sample_in_groups
from taichu_jax.ops.random import fold_name
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.state import init_params
from tests import case as cases

RNG, STEP = jax.random.key(4), 100_000


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


@pytest.mark.parametrize("kind", ["gumbel", "kmeans"])
def test_loss_is_the_papers(kind):
    case = cases.load("vq_wav2vec")
    modules, objective, batch = build(case.networks), build(case.objective), case.batch
    objective = dataclasses.replace(objective, commitment=0.7)
    if kind == "kmeans":
        quantiser = build(spec(KmeansQuantiser, groups=2, codes=5, dim=4))
        modules = modules | {"speech": modules["speech"].clone(quantiser=quantiser)}

    @jax.jit
    def run():
        params = init_params(modules, {"vq": objective}, {"stream": batch}, 0)[0]
        nets = BoundNets(modules, params, step=STEP)
        loss = objective.loss(nets, batch, None, RNG)
        latents, real = nets("speech", *batch.values(), method="features")
        key, temperature = fold_name(RNG, "gumbel"), jnp.float32(2 * 0.999995**STEP)
        codes = nets("speech", latents, key, temperature, method="quantise")
        context = nets("speech", codes.vectors, real, method="contextualise").tokens
        return loss, codes, real, nets("vq_wav2vec_head", context)

    loss, codes, real, predictions = run()
    drawn, _ = sample_in_groups(fold_name(RNG, "negatives"), real, jnp.arange(8), 4)
    q, real, predictions = (np.asarray(x) for x in (codes.vectors, real, predictions))
    losses = []
    for b, length in enumerate(real.sum(1)):
        for t in range(length):
            for k in (1, 2, 3):
                if t + k < length:
                    h = predictions[b, t, 4 * k - 4 : 4 * k]
                    others = [h @ q[b, m - b * len(q[b])] for m in np.asarray(drawn[b, t + k])]
                    wrong = sum(log_sigmoid(-x) for x in others)
                    losses.append(-log_sigmoid(h @ q[b, t + k]) - wrong)
    share = np.asarray(codes.probabilities)[real].mean(0)
    entropy = -(share * np.log(share)).sum(-1)
    diversity = (10 - np.exp(entropy).sum()) / 10
    expected = np.mean(losses) + 0.1 * diversity
    metrics = {k: float(total / count) for k, (total, count) in loss.metrics.items()}
    if kind == "kmeans":
        penalty = np.asarray(codes.penalty)[real].mean()
        assert metrics["commitment"] == pytest.approx(penalty, rel=1e-4) and penalty > 0
        expected += 0.7 * penalty
    else:
        assert metrics["gumbel_temperature"] == pytest.approx(1.213, abs=1e-3)
    np.testing.assert_allclose(loss.value, expected, rtol=1e-4)
    used = np.eye(5)[np.asarray(codes.indices)[real]].mean(0)
    perplexity = np.exp(-(used * np.log(np.maximum(used, 1e-12))).sum(-1)).mean()
    assert metrics["code_perplexity"] == pytest.approx(perplexity, rel=1e-4)
    assert metrics["probability_perplexity"] == pytest.approx(np.exp(entropy).mean(), rel=1e-4)


def test_the_temperature_falls_from_2_to_a_half():
    gumbel = build(cases.load("vq_wav2vec").objective).gumbel
    values = [float(gumbel(jnp.asarray(step))) for step in (0, 100_000, 400_000)]
    np.testing.assert_allclose(values, [2.0, 2 * 0.999995**100_000, 0.5], rtol=1e-3)
