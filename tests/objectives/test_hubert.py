"""HuBERT against loops over steps and codes, given the same spans."""

import dataclasses

import jax
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.heads import Projection
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.spans import span_mask
from taichu_jax.training.nets import BoundNets
from tests import case as cases
from tests.cases.hubert import CODES

SETTINGS = {
    "paper": {"on_unmasked": 0.0},
    "both": {"on_masked": 0.7, "on_unmasked": 0.3, "penalty": 2.0, "temperature": 0.5},
    "visible": {"on_masked": 0.0, "on_unmasked": 1.0},
    "linear": {"scores": "linear", "head": "linear"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_loss_is_the_papers(name):
    modules, objective, params, *_ = cases.built("hubert")
    objective = dataclasses.replace(objective, **SETTINGS[name])
    modules = modules | {"linear": Projection(features=CODES)}
    linear = {"linear": {"kernel": jax.random.normal(jax.random.key(9), (16, CODES))}}
    params = params | {"linear": linear}
    batch = cases.load("hubert").batch
    rng = jax.random.key(3)

    def run(params):
        nets = BoundNets(modules, params)
        loss = objective.loss(nets, batch, None, rng)
        latents, real = nets("speech", batch["mel"], batch["mel_lengths"], method="features")
        masked = span_mask(fold_name(rng, "spans"), real.sum(-1), real.shape[1], rate=0.8, span=2)
        states = nets("speech", latents, real, masked, method="contextualise").tokens
        return loss, (latents, real, masked, nets(objective.head, states))

    loss, rest = jax.jit(run)(params)
    latents, real, masked, projected = map(np.asarray, rest)
    codes = np.asarray(params["hubert_codebook"]["code_embedding"])
    sums, counts, right = [0.0, 0.0], [0, 0], [0, 0]
    for b in range(len(real)):
        for t in range(real[b].sum()):
            label = batch["units"][b, 2 * t]  # units at 100 Hz, tokens at 50 Hz
            if label < 0:
                continue
            scores = projected[b, t]
            if objective.scores == "cosine":
                lengths = np.linalg.norm(codes, axis=-1) * np.linalg.norm(projected[b, t])
                scores = codes @ projected[b, t] / lengths / objective.temperature
            visible = int(not masked[b, t])
            sums[visible] += np.log(np.exp(scores).sum()) - scores[label]
            counts[visible] += 1
            right[visible] += scores.argmax() == label
    assert min(counts) > 5 and (batch["units"] < 0).any()
    weights = (objective.on_masked, objective.on_unmasked)
    total = sum(w * s for w, s in zip(weights, sums, strict=True))
    count = sum(n for w, n in zip(weights, counts, strict=True) if w)
    energy = np.square(latents[real]).mean()
    expected = total / count + objective.penalty * energy
    np.testing.assert_allclose(loss.value, expected, rtol=1e-4)

    metrics = {k: float(a / b) for k, (a, b) in loss.metrics.items()}
    assert metrics["masked_loss"] == pytest.approx(sums[0] / counts[0], rel=1e-4)
    assert metrics["unmasked_loss"] == pytest.approx(sums[1] / counts[1], rel=1e-4)
    assert metrics["masked_accuracy"] == pytest.approx(right[0] / counts[0])
    assert metrics["unmasked_accuracy"] == pytest.approx(right[1] / counts[1])
    assert metrics["latent_energy"] == pytest.approx(energy, rel=1e-4)


def test_errors_say_what_is_wrong():
    modules, objective, params, *_ = cases.built("hubert")
    batch = cases.load("hubert").batch

    def run(**fields):
        changed = dataclasses.replace(objective, **fields)
        changed.loss(BoundNets(modules, params), batch, None, jax.random.key(0))

    with pytest.raises(UserError, match="did you mean 'cosine'"):
        run(scores="cosin")
    with pytest.raises(UserError, match="are both 0"):
        run(on_masked=0.0, on_unmasked=0.0)
    with pytest.raises(UserError, match="unit_rate must be the stream's"):
        run(unit_rate=50.0)
