"""The attention recogniser's loss against a loop over the transcripts' ids."""

import dataclasses

import jax
import numpy as np
import pytest

from taichu_jax.training.nets import BoundNets
from tests import case as cases


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_papers(smoothing):
    modules, objective, params, *_ = cases.built("attention_asr")
    objective = dataclasses.replace(objective, smoothing=smoothing)
    batch = cases.load("attention_asr").batch

    @jax.jit
    def run(params):
        nets = BoundNets(modules, params)
        loss = objective.loss(nets, batch, None, jax.random.key(0))
        heard = nets("speech", batch["mel"], batch["mel_lengths"])
        return loss, nets(
            "text_decoder", batch["text"], batch["text_mask"], heard.tokens, heard.mask
        )

    loss, logits = run(params)
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses, plain, right = [], [], []
    for row, (ids, mask, frames) in enumerate(
        zip(batch["text"], batch["text_mask"], batch["mel_lengths"], strict=True)
    ):
        if mask.all() or frames == batch["mel"].shape[1]:
            continue  # may have been cut
        for i in range(1, mask.sum()):
            own = log_p[row, i - 1]  # has seen the ids before i
            plain.append(-own[ids[i]])
            losses.append((1 - smoothing) * plain[-1] - smoothing * own.mean())
            right.append(own.argmax() == ids[i])
    assert 10 < len(losses) < batch["text_mask"].sum()
    np.testing.assert_allclose(loss.value, np.mean(losses), rtol=1e-5)
    total, count = loss.metrics["per_token"]
    np.testing.assert_allclose(total / count, np.mean(plain), rtol=1e-5)
    assert tuple(loss.metrics["accuracy"]) == (sum(right), len(right))
