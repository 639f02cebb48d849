"""Mockingjay against a loop over altered cells, given the same draw."""

import jax
import numpy as np
import pytest

from taichu_jax.ops.alterations import alter_time
from taichu_jax.ops.random import fold_name
from taichu_jax.training.nets import BoundNets
from tests import case as cases

STRIDE = 3  # of the case's encoder: frames per token


@jax.jit
def run(params, batch):
    modules, objective, *_ = cases.built("mockingjay")
    nets, rng = BoundNets(modules, params), jax.random.key(4)
    mel, lengths = batch["mel"], batch["mel_lengths"]
    altered, where = alter_time(fold_name(rng, "time"), mel, lengths, rate=0.3, span=4)
    predicted = nets("mockingjay_head", nets("speech", altered, lengths).tokens)
    return objective.loss(nets, batch, None, rng), altered, where, predicted


def test_loss_is_the_papers():
    _, _, params, *_ = cases.built("mockingjay")
    batch = cases.load("mockingjay").batch
    mel, bands = batch["mel"], batch["mel"].shape[-1]
    loss, altered, where, predicted = run(params, batch)
    altered, where, predicted = map(np.asarray, (altered, where, predicted))
    errors, sizes = [], []
    for b, n in enumerate(batch["mel_lengths"]):
        for t in np.flatnonzero(where[b, :, 0]):
            assert t < n
            for m in range(bands):
                guess = predicted[b, t // STRIDE, t % STRIDE * bands + m]
                errors.append(abs(guess - mel[b, t, m]))
                sizes.append(abs(mel[b, t, m]))
    fates = {
        "zero" if not a[w].any() else "kept" if (a[w] == x[w]).all() else "moved"
        for a, w, x in zip(altered, where, mel, strict=True)
    }
    assert len(fates) > 1  # the draw has hidden utterances and others
    np.testing.assert_allclose(loss.value, np.mean(errors), rtol=1e-5)
    metrics = {k: float(total / count) for k, (total, count) in loss.metrics.items()}
    assert metrics["mean_error"] == pytest.approx(np.mean(sizes), rel=1e-5)
    assert metrics["altered_share"] == pytest.approx(
        len(errors) / bands / batch["mel_lengths"].sum(), rel=1e-5
    )
    assert set(params["speech"]["transformer"]) == {"block_0", "norm"}  # Audio ALBERT's encoder


def test_utterances_of_one_span_or_less_add_nothing():
    _, _, params, *_ = cases.built("mockingjay")
    batch = cases.load("mockingjay").batch
    loss = run(params, batch | {"mel_lengths": np.array([4, 3, 2, 1, 0] * 2, np.int32)[:8]})[0]
    assert loss.value == 0 == loss.metrics["altered_share"][0]
