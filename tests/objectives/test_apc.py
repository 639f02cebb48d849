"""APC against a loop over frames, given the network's states."""

import dataclasses

import jax
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.training.nets import BoundNets
from tests import case as cases


def run(objective, params, batch):
    nets = BoundNets(cases.built("apc")[0], params)
    return objective.loss(nets, batch, None, jax.random.key(0)), nets("speech", *batch.values())


@pytest.mark.parametrize("shift", [1, 5])
def test_loss_is_the_papers(shift):
    _, objective, params, *_ = cases.built("apc")
    objective = dataclasses.replace(objective, shift=shift)
    batch = cases.load("apc").batch
    loss, encoded = jax.jit(lambda p, b: run(objective, p, b))(params, batch)
    head = np.asarray(params["apc_head"]["linear"]["kernel"])
    errors, copies = [], []
    for b, n in enumerate(batch["mel_lengths"]):
        for t in range(n - shift):
            target = batch["mel"][b, t + shift]
            errors.extend(np.abs(target - np.asarray(encoded.tokens)[b, t] @ head))
            copies.extend(np.abs(target - batch["mel"][b, t]))
    np.testing.assert_allclose(loss.value, np.mean(errors), rtol=1e-5)
    total, count = loss.metrics["copy_error"]
    np.testing.assert_allclose(total / count, np.mean(copies), rtol=1e-5)
    assert count == len(copies)


def test_errors_say_what_is_wrong():
    _, objective, params, *_ = cases.built("apc")
    batch = cases.load("apc").batch
    with pytest.raises(UserError, match="shift=32: must be from 1 to 31"):
        run(dataclasses.replace(objective, shift=32), params, batch)
