"""NPC against a loop over frames, given the encoder's states and the same noise."""

import jax
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.heads import Projection
from taichu_jax.models.quantiser import KmeansQuantiser
from taichu_jax.ops.random import fold_name
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.state import init_params
from tests import case as cases


def test_loss_is_the_papers():
    modules, objective, params, *_ = cases.built("npc")
    batch, rng = cases.load("npc").batch, jax.random.key(7)

    @jax.jit
    def run(params):
        nets = BoundNets(modules, params)
        states = nets("speech", *batch.values()).tokens
        return objective.loss(nets, batch, None, rng), states

    loss, states = run(params)
    states = np.asarray(states)
    table = jax.tree.map(np.asarray, params["quantiser"])
    head = np.asarray(params["npc_head"]["linear"]["kernel"])
    noise = np.asarray(jax.random.gumbel(fold_name(rng, "gumbel"), (*states.shape[:2], 2, 6)))
    errors, chosen = [], []
    for b, n in enumerate(batch["mel_lengths"]):
        for t in range(n):
            codes = []
            for g in range(2):
                scores = states[b, t, 4 * g : 4 * g + 4] @ table["scores_kernel"][g]
                codes.append((scores + table["scores_bias"][g] + noise[b, t, g]).argmax())
            vector = np.concatenate([table["code_embedding"][g][c] for g, c in enumerate(codes)])
            errors.extend(np.abs(batch["mel"][b, t] - vector @ head))
            chosen.append(codes)
    np.testing.assert_allclose(loss.value, np.mean(errors), rtol=1e-5)
    perplexities = []
    for column in np.transpose(chosen):
        share = np.bincount(column, minlength=6) / len(column)
        perplexities.append(2 ** -sum(p * np.log2(p) for p in share if p > 0))
    total, count = loss.metrics["code_perplexity"]
    np.testing.assert_allclose(total / count, np.mean(perplexities), rtol=1e-4)


def test_a_frame_is_never_its_own_prediction():
    """The prediction at t, through quantiser and head: blind to t - 1 .. t + 1, sees up to t +- 6."""
    modules, _, params, *_ = cases.built("npc")
    batch, t = cases.load("npc").batch, 8

    @jax.jit
    @jax.grad
    def sensitivity(mel):
        nets = BoundNets(modules, params)
        states = nets("speech", mel, batch["mel_lengths"]).tokens
        codes = nets("quantiser", states, jax.random.key(1), 1.0)
        return (nets("npc_head", codes.vectors)[:, t] ** 2).sum()

    seen = np.abs(sensitivity(batch["mel"])).max((0, 2))
    distance = np.abs(np.arange(len(seen)) - t)
    np.testing.assert_array_equal(seen > 0, (distance > 1) & (distance <= 6))


def test_errors_say_what_is_wrong():
    modules, objective, *_ = cases.built("npc")
    batch = cases.load("npc").batch

    def run(**networks):
        init_params({**modules, **networks}, {"npc": objective}, {"stream": batch}, 0)

    with pytest.raises(UserError, match="32 predictions of 7 bands for 32 mel frames of 16"):
        jax.eval_shape(lambda: run(npc_head=Projection(features=7)))
    with pytest.raises(UserError, match="learns by a penalty, which NPC does not add"):
        jax.eval_shape(lambda: run(quantiser=KmeansQuantiser(groups=2, codes=6, dim=8)))
