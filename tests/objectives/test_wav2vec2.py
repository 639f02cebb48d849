"""wav2vec 2.0 against loops over steps and negatives, given the same spans, noise and negatives."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.ops.negatives import sample_others
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.spans import span_mask
from taichu_jax.training.nets import BoundNets
from tests import case as cases

STEP = 100_000  # the Gumbel temperature has moved: 2 * 0.999995**100000 = 1.213


@functools.cache
def outcome():
    """The loss, and everything that the networks and the draws gave on the way to it."""
    modules, objective, params, *_ = cases.built("wav2vec2")
    batch = cases.load("wav2vec2").batch
    rng = jax.random.key(7)

    def run(params):
        nets = BoundNets(modules, params, step=STEP)
        loss = objective.loss(nets, batch, None, rng)
        latents, real = nets("speech", *batch.values(), method="features")
        masked = span_mask(fold_name(rng, "spans"), real.sum(-1), real.shape[1], rate=0.65, span=2)
        context = nets("speech", latents, real, masked, method="contextualise").tokens
        targets = nets(
            "quantiser",
            nets("speech", latents, method="normalise"),
            fold_name(rng, "gumbel"),
            jnp.float32(2 * 0.999995**STEP),
        )
        c = nets("wav2vec2_head", context)
        q = nets("wav2vec2_target_head", targets.vectors)
        others = sample_others(fold_name(rng, "negatives"), masked, 4)[0]
        return loss, (latents, real, masked, c, q, others, *targets[1:3])

    loss, rest = jax.jit(run)(params)
    return loss, [np.asarray(x) for x in rest]


def test_loss_is_the_papers():
    loss, (latents, real, masked, c, q, others, probabilities, indices) = outcome()

    def cosine(x, y):
        return x @ y / (np.linalg.norm(x) * np.linalg.norm(y))

    losses, right, skipped = [], 0, 0
    for b in range(len(masked)):
        hidden = np.flatnonzero(masked[b])
        for t in hidden:
            if len(hidden) < 2:
                continue
            logits = [cosine(c[b, t], q[b, t]) / 0.1]
            for n in others[b, t]:
                assert n in hidden and n != t
                if (indices[b, n] == indices[b, t]).all():
                    skipped += 1
                else:
                    logits.append(cosine(c[b, t], q[b, n]) / 0.1)
            losses.append(np.log(np.exp(logits).sum()) - logits[0])
            right += logits[0] == max(logits)
    assert skipped > 0  # the rule on equal codes is exercised

    share = probabilities[masked].mean(0)
    perplexity = np.exp(-(share * np.log(share)).sum(-1))
    diversity = (share.size - perplexity.sum()) / share.size
    energy = np.square(latents[real]).mean()
    expected = np.mean(losses) + 0.1 * diversity + 10 * energy
    np.testing.assert_allclose(loss.value, expected, rtol=1e-4)

    metrics = {k: float(total / count) for k, (total, count) in loss.metrics.items()}
    assert metrics["accuracy"] == pytest.approx(right / len(losses), rel=1e-5)
    assert metrics["contrastive"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert metrics["diversity"] == pytest.approx(diversity, rel=1e-4)
    assert metrics["latent_energy"] == pytest.approx(energy, rel=1e-4)
    assert metrics["probability_perplexity"] == pytest.approx(perplexity.mean(), rel=1e-4)
    assert metrics["gumbel_temperature"] == pytest.approx(1.213, abs=1e-3)
    first = np.eye(share.shape[1])[probabilities[masked].argmax(-1)].mean(0)
    codes = np.exp(-(first * np.log(np.maximum(first, 1e-12))).sum(-1)).mean()
    assert metrics["code_perplexity"] == pytest.approx(codes, rel=1e-4)
    assert metrics["masked_share"] == pytest.approx(masked.sum() / real.sum(), rel=1e-5)


def test_nothing_hidden_leaves_the_penalty_only():
    modules, objective, params, *_ = cases.built("wav2vec2")
    batch = cases.load("wav2vec2").batch
    nothing = jnp.zeros_like(batch["audio_lengths"])
    loss = jax.jit(
        lambda p: objective.loss(
            BoundNets(modules, p), batch | {"audio_lengths": nothing}, None, jax.random.key(0)
        )
    )(params)
    assert loss.value == 0


def test_errors_say_what_is_wrong():
    modules, objective, params, *_ = cases.built("wav2vec2")
    batch = cases.load("wav2vec2").batch
    objective = dataclasses.replace(objective, layer=2)
    with pytest.raises(UserError, match="layer=2: must be from 1 to 1, the blocks of network"):
        jax.eval_shape(
            lambda p: objective.loss(BoundNets(modules, p), batch, None, jax.random.key(0)), params
        )
