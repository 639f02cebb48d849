"""CPC against loops over states, steps and negatives, given the same negatives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.ops.negatives import sample_in_groups
from taichu_jax.ops.random import fold_name
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.state import Batch
from tests import case as cases

RNG = jax.random.key(4)


def run(params, batch=None, **fields):
    """The loss, and the latents, which are real, and the predictions that it was made from."""
    modules, objective, *_ = cases.built("cpc")
    objective = dataclasses.replace(objective, **fields)
    batch = cases.load("cpc").batch if batch is None else batch

    def compute(params):
        nets = BoundNets(modules, params)
        loss = objective.loss(nets, batch, None, RNG)
        latents, real = nets("speech", batch["audio"], batch["audio_lengths"], method="features")
        context = nets("speech", latents, real, method="contextualise").tokens
        return loss, (latents, real, nets("cpc_head", context))

    loss, rest = jax.jit(compute)(params)
    return loss, [np.asarray(x) for x in rest]


@pytest.mark.parametrize(
    ("negatives", "first", "scale"), [("utterance", 1, 1.0), ("voice", 2, None), ("batch", 1, 1.0)]
)
def test_loss_is_the_papers(negatives, first, scale):
    params, lang = cases.built("cpc")[2], cases.load("cpc").batch["lang"]
    fields = {"negatives": negatives, "first": first, "scale": scale}
    loss, (latents, real, predictions) = run(params, **fields)
    rows, steps, width = latents.shape
    groups = {"utterance": np.arange(rows), "voice": lang, "batch": np.zeros(rows, int)}[negatives]
    drawn, _ = sample_in_groups(fold_name(RNG, "negatives"), real, jnp.asarray(groups), 5)
    factor = 1 / width if scale is None else scale
    losses, right, outside = [], [], 0
    for b in range(rows):
        for t in range(steps):
            for k in range(first, first + 3):
                if t + k >= real[b].sum():
                    continue
                p = predictions[b, t, (k - first) * width : (k - first + 1) * width]
                logits = [factor * p @ latents[b, t + k]]
                for m in drawn[b, t + k]:
                    row, step = divmod(int(m), steps)
                    assert real[row, step] and (row, step) != (b, t + k)
                    assert groups[row] == groups[b]
                    outside += row != b
                    logits.append(factor * p @ latents[row, step])
                losses.append(np.log(np.exp(logits).sum()) - logits[0])
                right.append(logits[0] == max(logits))
    assert (outside > 0) == (negatives != "utterance")
    np.testing.assert_allclose(loss.value, np.mean(losses), rtol=1e-4)
    total, count = loss.metrics["accuracy"]
    assert count == len(losses) and total == sum(right)
    parts = [loss.metrics[f"accuracy_{name}"][1] for name in ("first", "last")]
    lengths = real.sum(1)
    expected = [np.maximum(lengths - k, 0).sum() for k in (first, first + 2)]
    np.testing.assert_array_equal(parts, expected)


def test_utterances_without_negatives_are_left_out():
    batch = dict(cases.load("cpc").batch)
    params = cases.built("cpc")[2]
    window = 1 + sum((k - 1) * s for k, s in ((10, 1), (8, 5), (4, 20)))
    batch["audio_lengths"] = np.array([window, *[0] * 7], np.int32)  # one latent in all
    loss, (_, real, _) = run(params, batch, negatives="batch")
    assert real.sum() == 1 and loss.value == 0 and loss.metrics["accuracy"][1] == 0


def test_errors_say_what_is_wrong():
    params = cases.built("cpc")[2]
    with pytest.raises(UserError, match="valid: batch, utterance, voice"):
        run(params, negatives="speaker")
    with pytest.raises(UserError, match="4 steps of latents 6 wide need 24"):
        run(params, steps=4)
    batch = Batch({k: v for k, v in cases.load("cpc").batch.items() if k != "lang"})
    with pytest.raises(UserError, match="no field 'lang'"):
        run(params, batch)
