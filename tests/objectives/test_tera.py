"""TERA against a loop over altered cells, given the same draws; each alteration alone too."""

import dataclasses

import jax
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.objectives.speech.mockingjay import Mockingjay
from taichu_jax.ops.alterations import alter_frequency, alter_magnitude, alter_time
from taichu_jax.ops.random import fold_name
from taichu_jax.training.nets import BoundNets
from tests import case as cases

STRIDE = 2  # of the case's encoder: frames per token
RNG = jax.random.key(2)
OFF = {"rate": 0.0, "band_share": 0.0, "noise_rate": 0.0}
ALONE = {"frequency": "band_share", "magnitude": "noise_rate"}  # time: it is Mockingjay then


def loop(batch, predicted, where):
    """(mean absolute error, number) of the cells `where`, which are all real."""
    bands, errors = batch["mel"].shape[-1], []
    for b, t, m in np.argwhere(where):
        assert t < batch["mel_lengths"][b]
        guess = predicted[b, t // STRIDE, t % STRIDE * bands + m]
        errors.append(abs(guess - batch["mel"][b, t, m]))
    return np.mean(errors), len(errors)


@pytest.mark.parametrize("what", ["all", *ALONE])
def test_loss_is_the_papers(what):
    modules, objective, params, *_ = cases.built("tera")
    batch = cases.load("tera").batch
    if what != "all":
        field = ALONE[what]
        objective = dataclasses.replace(objective, **OFF | {field: getattr(objective, field)})

    def run(params, batch):
        nets = BoundNets(modules, params)
        mel, lengths = batch["mel"], batch["mel_lengths"]
        cells = []
        if what == "all":
            mel, where = alter_time(fold_name(RNG, "time"), mel, lengths, rate=0.3, span=4)
            cells.append(where)
        if what in ("all", "frequency"):
            mel, where = alter_frequency(fold_name(RNG, "frequency"), mel, lengths)
            cells.append(where)
        if what in ("all", "magnitude"):
            mel, where = alter_magnitude(fold_name(RNG, "magnitude"), mel, lengths, rate=0.5)
        predicted = nets("tera_head", nets("speech", mel, lengths).tokens)
        return objective.loss(nets, batch, None, RNG), cells, where, predicted

    loss, cells, last, predicted = jax.jit(run)(params, batch)
    real = np.arange(batch["mel"].shape[1]) < batch["mel_lengths"][:, None]
    real = np.broadcast_to(real[..., None], batch["mel"].shape)
    where = np.any([np.asarray(c) for c in cells], axis=0) if cells else real
    expected, count = loop(batch, np.asarray(predicted), where)
    np.testing.assert_allclose(loss.value, expected, rtol=1e-5)
    metrics = {k: float(total / count) for k, (total, count) in loss.metrics.items()}
    assert metrics["altered_share"] == pytest.approx(count / real.sum(), rel=1e-5)
    assert metrics["mean_error"] == pytest.approx(np.abs(batch["mel"][where]).mean(), rel=1e-5)
    noisy = np.asarray(last).sum() if what in ("all", "magnitude") else 0
    assert metrics["noisy_share"] == pytest.approx(noisy / real.sum(), rel=1e-5)
    if what == "all":  # every alteration took place in this draw, and not everywhere
        assert 0 < noisy < real.sum()
        assert 0 < np.asarray(cells[0]).sum() < where.sum() < real.sum()


def test_with_time_only_it_is_mockingjay():
    modules, tera, params, *_ = cases.built("tera")
    batch = cases.load("tera").batch
    tera = dataclasses.replace(tera, **OFF | {"rate": 0.3})
    other = Mockingjay(source="stream", head="tera_head", rate=0.3, span=4)

    def run(params):
        nets = BoundNets(modules, params)
        return [o.loss(nets, batch, None, RNG).value for o in (tera, other)]

    values = jax.jit(run)(params)
    assert values[0] == values[1] != 0


def test_one_draw_for_the_whole_batch():
    objective = dataclasses.replace(cases.built("tera")[1], **OFF | {"noise_rate": 0.5})
    batch = cases.load("tera").batch

    def shares(**fields):
        chosen = dataclasses.replace(objective, **fields)
        run = jax.jit(lambda key: chosen.alter(*batch.values(), key)[2].any((1, 2)).mean())
        return [float(run(key)) for key in jax.random.split(RNG, 20)]

    assert set(shares(whole_batch=True)) == {0.0, 1.0}
    assert len(set(shares())) > 2


def test_errors_say_what_is_wrong():
    objective = cases.built("tera")[1]
    with pytest.raises(UserError, match="nothing would be altered"):
        dataclasses.replace(objective, **OFF)
