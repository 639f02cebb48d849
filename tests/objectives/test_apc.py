"""APC against a loop over frames, given the network's states; with every encoder it can run with."""

import dataclasses

import jax
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.recurrent import RecurrentEncoder
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.state import init_params
from tests import batches
from tests import case as cases

TRANSFORMER = {"width": 8, "depth": 2, "heads": 2, "bands": batches.BANDS, "frames": batches.FRAMES}
ENCODERS = {
    "gru": RecurrentEncoder(width=8, depth=2),
    "lstm": RecurrentEncoder(width=8, depth=2, cell="lstm"),
    "transformer": SpeechEncoder(**TRANSFORMER, stride=1, causal=True),
}
every_encoder = pytest.mark.parametrize("encoder", ENCODERS)


def ready(encoder):
    modules, objective, *_ = cases.built("apc")
    modules = {**modules, "speech": encoder}
    batch = cases.load("apc").batch

    def init():
        return init_params(modules, {"apc": objective}, {"stream": batch}, 0)[0]

    return modules, objective, jax.jit(init)(), batch


@pytest.mark.parametrize(
    ("encoder", "shift"), [("gru", 1), ("gru", 5), ("lstm", 5), ("transformer", 5)]
)
def test_loss_is_the_papers(encoder, shift):
    modules, objective, params, batch = ready(ENCODERS[encoder])
    objective = dataclasses.replace(objective, shift=shift)

    @jax.jit
    def run(params, batch):
        nets = BoundNets(modules, params)
        return objective.loss(nets, batch, None, jax.random.key(0)), nets("speech", *batch.values())

    loss, encoded = run(params, batch)
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


@every_encoder
def test_a_prediction_has_seen_the_past_only(encoder):
    """Of everything up to frame t, t included, and of nothing behind it."""
    modules, _, params, batch = ready(ENCODERS[encoder])
    t = 9

    @jax.jit
    @jax.grad
    def sensitivity(mel):
        nets = BoundNets(modules, params)
        encoded = nets("speech", mel, batch["mel_lengths"])
        return (nets("apc_head", encoded.tokens)[:, t] ** 2).sum()

    seen = np.abs(sensitivity(batch["mel"])).max(-1)
    assert (seen[:, : t + 1] > 0).all()
    np.testing.assert_array_equal(seen[:, t + 1 :], 0)


def test_errors_say_what_is_wrong():
    _, objective, params, batch = ready(ENCODERS["gru"])

    def run(encoder, **fields):
        modules = {**cases.built("apc")[0], "speech": encoder}
        nets = BoundNets(modules, params)
        other = dataclasses.replace(objective, **fields)
        jax.eval_shape(lambda: other.loss(nets, batch, None, jax.random.key(0)))

    with pytest.raises(UserError, match="shift=32: must be from 1 to 31"):
        run(ENCODERS["gru"], shift=32)
    _, _, params, _ = ready(ENCODERS["transformer"])
    params["speech"]["front"]["kernel"] = np.ones((2 * batches.BANDS, 8), np.float32)
    with pytest.raises(UserError, match=r"16 predictions .* for 32 mel frames .*\(stride=1\)"):
        run(SpeechEncoder(**TRANSFORMER, stride=2, causal=True))
