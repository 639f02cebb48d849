"""WavLM is the prediction of the clean speech's units from mixed speech."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.ops.mixing import mix_utterances
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.spans import span_mask
from taichu_jax.training.nets import BoundNets
from tests import case as cases


def test_loss_is_the_papers():
    modules, objective, params, *_ = cases.built("wavlm")
    batch = {k: jnp.asarray(v) for k, v in cases.load("wavlm").batch.items()}
    lengths, rng = batch["audio_lengths"], jax.random.key(3)

    def run(params):
        nets = BoundNets(modules, params)
        loss = objective.loss(nets, batch, None, rng)
        audio, added = mix_utterances(
            fold_name(rng, "mixing"),
            batch["audio"],
            lengths,
            probability=0.8,
            decibels=(-5.0, 5.0),
            noise=0.4,
            noise_decibels=(-5.0, 20.0),
        )
        latents, real = nets("speech", audio, lengths, method="features")
        masked = span_mask(fold_name(rng, "spans"), real.sum(-1), real.shape[1], rate=0.8, span=2)
        states = nets("speech", latents, real, masked, method="contextualise").tokens
        return loss, (added, latents, real, masked, nets("wavlm_head", states))

    loss, rest = jax.jit(run)(params)
    added, latents, real, masked, projected = map(np.asarray, rest)
    codes = np.asarray(params["wavlm_codebook"]["code_embedding"])
    losses, right = [], 0
    for b, t in np.argwhere(masked & real):
        label = int(batch["units"][b, t])
        if label >= 0:
            norms = np.linalg.norm(codes, axis=-1) * np.linalg.norm(projected[b, t])
            scores = codes @ projected[b, t] / norms / 0.1
            losses.append(np.log(np.exp(scores).sum()) - scores[label])
            right += scores.argmax() == label
    energy = np.square(latents[real]).mean()
    np.testing.assert_allclose(loss.value, np.mean(losses) + 10 * energy, rtol=1e-4)
    metrics = {k: float(a / b) for k, (a, b) in loss.metrics.items()}
    assert metrics["masked_accuracy"] == pytest.approx(right / len(losses))
    assert metrics["mixed_share"] == pytest.approx(float(added.sum() / lengths.sum()), rel=1e-5)
    assert 0.1 < metrics["mixed_share"] < 0.5


def test_no_sound_leaves_nothing():
    modules, objective, params, *_ = cases.built("wavlm")
    batch = {k: jnp.asarray(v) for k, v in cases.load("wavlm").batch.items()}
    empty = batch | {"audio_lengths": jnp.zeros_like(batch["audio_lengths"])}
    run = jax.jit(
        lambda p: objective.loss(BoundNets(modules, p), empty, None, jax.random.key(0)).value
    )
    assert run(params) == 0
