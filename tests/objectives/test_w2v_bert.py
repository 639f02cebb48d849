"""Masked codes against loops; with wav2vec 2.0, one mask and the same ids for both."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.config import build, spec
from taichu_jax.errors import UserError
from taichu_jax.models.heads import Projection
from taichu_jax.models.quantiser import ProductQuantiser
from taichu_jax.objectives.speech.w2v_bert import MaskedCodes
from taichu_jax.objectives.speech.wav2vec2 import Wav2Vec2
from taichu_jax.ops.draws import draw_key
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.spans import span_mask
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.state import init_params
from taichu_jax.training.step import make_loss
from tests import case as cases

STEP = 3


@functools.cache
def together():
    """Both objectives in one loss, as the step does it; and what one draw gives."""
    case = cases.load("w2v_bert")
    networks = dict(case.networks)
    networks["quantiser"] = spec(ProductQuantiser, groups=2, codes=6, dim=8)
    networks["wav2vec2_head"] = networks["wav2vec2_target_head"] = spec(Projection, features=8)
    modules, streams = build(networks), {"stream": case.batch}
    shared = {"source": "stream", "input": "mel", "span": 2, "draw": "w2v_bert"}
    objectives = {
        "wav2vec2": build(spec(Wav2Vec2, negatives=4, layer=1, **shared)),
        "w2v_bert": build(spec(MaskedCodes, **shared)),
    }

    @jax.jit
    def run():
        params, teachers, memory = init_params(modules, objectives, streams, 0)
        loss = make_loss(modules, objectives, 11)
        total, (metrics, _) = loss(params, teachers, memory, streams, jnp.int32(STEP))
        nets, key = BoundNets(modules, params), draw_key(jax.random.key(99), STEP, "w2v_bert")
        latents, real = nets("speech", *case.batch.values(), method="features")
        masked = span_mask(fold_name(key, "spans"), real.sum(-1), real.shape[1], rate=0.65, span=2)
        encoded = nets("speech", latents, real, masked, method="contextualise")
        normal = nets("speech", latents, method="normalise")
        codes = nets("quantiser", normal, fold_name(key, "gumbel"), 2.0)
        scores = nets("codes_head", encoded.tokens)
        lower = nets("wav2vec2_head", _normalised(encoded.layers[1]))
        return total, metrics, (masked, codes, scores, lower, encoded.layers[1])

    return run()


def _normalised(x):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5)


def test_codes_are_predicted_where_speech_is_hidden():
    total, metrics, (masked, codes, scores, *_) = together()
    masked, ids = np.asarray(masked), np.asarray(codes.indices)
    losses, right = [], 0
    for b, t in zip(*np.nonzero(masked), strict=True):
        for g in range(2):
            x = np.asarray(scores)[b, t, 6 * g : 6 * g + 6].astype(np.float64)
            losses.append(np.log(np.exp(x).sum()) - x[ids[b, t, g]])
            right += x.argmax() == ids[b, t, g]
    np.testing.assert_allclose(metrics["w2v_bert/loss"][0], np.mean(losses), rtol=1e-5)
    assert metrics["w2v_bert/accuracy"] == (right, len(losses))
    used = np.eye(6)[ids[masked]].mean(0)
    expected = np.exp(-(used * np.log(np.maximum(used, 1e-12))).sum(-1)).sum()
    np.testing.assert_allclose(metrics["w2v_bert/code_perplexity"][0], expected, rtol=1e-4)
    parts = metrics["wav2vec2/loss"][0] + metrics["w2v_bert/loss"][0]
    np.testing.assert_allclose(total, parts, rtol=1e-6)


def test_both_hide_the_same_steps_and_contrast_the_lower_block():
    _, metrics, (masked, codes, _, lower, block) = together()
    for name in ("wav2vec2", "w2v_bert"):
        assert metrics[f"{name}/masked_share"][0] == masked.sum()
    # the same ids: wav2vec 2.0's average of probabilities over the hidden steps, and its lower states
    share = np.asarray(codes.probabilities)[np.asarray(masked)].mean(0)
    expected = np.exp(-(share * np.log(share)).sum(-1)).sum()
    np.testing.assert_allclose(metrics["wav2vec2/probability_perplexity"][0], expected, rtol=1e-4)
    normal = np.asarray(_normalised(block))[np.asarray(masked)]
    unit = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    std = unit.std(0).mean() * unit.shape[-1] ** 0.5
    np.testing.assert_allclose(metrics["wav2vec2/feature_std"][0], std, rtol=1e-3)
    assert np.isfinite(lower).all()


def test_without_a_name_each_draws_its_own():
    modules, objective, params, *_ = cases.built("w2v_bert")
    batch = cases.load("w2v_bert").batch

    @jax.jit
    def run():
        def loss(seed, draw):
            other = dataclasses.replace(objective, draw=draw)
            return other.loss(BoundNets(modules, params), batch, None, jax.random.key(seed)).value

        return [loss(*draw) for draw in ((0, ""), (1, ""), (0, "one"), (1, "one"), (0, "two"))]

    own, another, one, same, two = run()
    assert own != another and one == same != two


def test_errors_say_what_is_wrong():
    modules, objective, params, *_ = cases.built("w2v_bert")
    batch = cases.load("w2v_bert").batch

    def run(networks, weights):
        jax.eval_shape(
            lambda w: objective.loss(BoundNets(networks, w), batch, None, jax.random.key(0)),
            weights,
        )

    wide = modules | {"codes_head": Projection(features=13)}
    kernel = {"codes_head": {"linear": {"kernel": jnp.zeros((16, 13))}}}
    with pytest.raises(UserError, match="gives 13 scores; network 'quantiser' has 2 x 6 codes"):
        run(wide, params | kernel)
    gumbel = ProductQuantiser(groups=2, codes=6, dim=8)
    weights = gumbel.init(jax.random.key(0), jnp.zeros((1, 1, 16)))["params"]
    with pytest.raises(UserError, match="network 'quantiser' has no loss of its own"):
        run(modules | {"quantiser": gumbel}, params | {"quantiser": weights})
