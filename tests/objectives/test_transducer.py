"""The transducer's loss, from its networks' scores, against all alignments one by one."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from taichu_jax.objectives.speech.transducer import BLANK
from taichu_jax.ops.vocabulary import CLS, FIRST_TOKEN
from taichu_jax.training.nets import BoundNets
from tests import case as cases


def enumerated(scores, labels):
    """- log of the sum over all ways through scores [T, U + 1, V]: blanks go on, labels go up."""
    p = np.exp(scores - np.log(np.exp(scores).sum(-1, keepdims=True)))
    frames, moves, total = len(p), len(p) - 1 + len(labels), 0.0
    for writes in itertools.combinations(range(moves), len(labels)):
        t = u = 0
        product = 1.0
        for move in range(moves):
            if move in writes:
                product *= p[t, u, labels[u]]
                u += 1
            else:
                product *= p[t, u, BLANK]
                t += 1
        assert t == frames - 1
        total += product * p[t, u, BLANK]
    return -np.log(total)


@pytest.mark.parametrize("average", ["characters", "utterances"])
def test_loss_is_the_sum_over_all_alignments(average):
    modules, objective, params, *_ = cases.built("transducer")
    objective = dataclasses.replace(objective, average=average)
    batch = cases.load("transducer").batch
    labels = np.where(batch["text_mask"] & (batch["text"] >= FIRST_TOKEN), batch["text"], 0)[:, 1:]

    @jax.jit
    def run(params):
        nets = BoundNets(modules, params)
        loss = objective.loss(nets, batch, None, jax.random.key(0))
        heard = nets("speech", batch["mel"], batch["mel_lengths"])
        return loss, heard.mask, nets("joiner", heard.tokens, nets("predictor", labels))

    loss, mask, scores = run(params)
    assert (batch["text"][:, 0] == CLS).all()
    losses, characters = [], 0
    for row, frames in enumerate(np.asarray(mask).sum(1)):
        said = labels[row][labels[row] > 0]
        if batch["text_mask"][row].all() or batch["mel_lengths"][row] == batch["mel"].shape[1]:
            continue  # may have been cut
        losses.append(enumerated(np.asarray(scores[row, :frames], np.float64), said))
        characters += len(said)
    assert len(losses) > 2
    divisor = characters if average == "characters" else len(losses)
    np.testing.assert_allclose(loss.value, sum(losses) / divisor, rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["per_utterance"], (sum(losses), len(losses)), rtol=1e-5)
