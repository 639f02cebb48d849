"""A step that is not finite stops the run, or leaves no trace but its number."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from taichu_jax.config import spec
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Teacher
from taichu_jax.training.balance.grad_norm import GradNorm
from taichu_jax.training.checkpoint import Checkpoints, newest
from taichu_jax.training.experiment import Experiment
from taichu_jax.training.loop import train
from taichu_jax.training.non_finite import NonFinite
from taichu_jax.training.optim import AdamW, Optimizer
from taichu_jax.training.state import init_state
from taichu_jax.training.step import make_step
from tests.training import tiny
from tests.training.toy import Linear, SquaredError

BAD = 2  # the step that is not finite


def plain(tree):
    return jax.tree.map(np.array, tree)


def assert_same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def skipping(case):
    config = tiny.on_one_device(non_finite="skip")
    if case == "micro-batches":
        config.accumulate = 4
    if case == "mesh":
        config.mesh.update(data=2, fsdp=2, tensor=2)
    if case == "balance":
        config.objectives.other = spec(tiny.Distance, source="rows", weight=0.5)
        config.balance = spec(GradNorm)
    return config


def batches():
    rows = tiny._Batches(tiny.Rows(), 0, slice(None))
    return [{"rows": rows[step]} for step in range(5)]


def broken(batch):
    """One number of one row is infinite, so that of four micro-batches three are finite."""
    x = batch["rows"]["x"].copy()
    x[5, 3] = np.inf
    return {"rows": batch["rows"] | {"x": x}}


@pytest.mark.parametrize("case", ["one device", "micro-batches", "mesh", "balance"])
def test_a_skipped_step_is_as_if_it_had_been_left_out(case):
    experiment = Experiment.from_config(skipping(case))
    step, inputs = experiment.train_step(), batches()
    state, reference = experiment.init(), experiment.init()
    for number, batch in enumerate(inputs):
        before = plain(state.replace(step=None))
        old = state
        state, metrics = step(state, broken(batch) if number == BAD else batch)
        assert old.params["mixer"]["kernel"].is_deleted()  # its buffers were given away
        assert state.step == number + 1
        assert float(metrics["skipped_steps"][0]) == (number == BAD)
        if number == BAD:
            assert not np.isfinite(metrics["loss"][0])
            assert_same(plain(state.replace(step=None)), before)
            where = reference.step.sharding
            reference = reference.replace(step=jax.device_put(jnp.int32(BAD + 1), where))
        else:
            assert np.abs(tiny.weights(state.params) - tiny.weights(before.params)).max() > 0
            reference, _ = step(reference, batch)
    assert_same(plain(state), plain(reference))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(plain(state)))


class Root(SquaredError):
    """A loss of which only the gradient breaks: the root of 0, where `flag` is 0."""

    def loss(self, nets, batch, memory, rng):
        value, metrics, memory = super().loss(nets, batch, memory, rng)
        return Loss(value + jnp.sqrt(batch["flag"].mean() * value), metrics, memory)


def test_a_gradient_that_is_not_finite_is_enough():
    objectives = {"fit": Root(source="data", teacher=Teacher(nets=("net",), decay=0.5))}
    rng = np.random.default_rng(0)
    rows = {"x": rng.normal(size=(4, 4)), "y": rng.normal(size=(4, 3)), "flag": np.ones(4)}
    good = {"data": {k: v.astype(np.float32) for k, v in rows.items()}}
    bad = {"data": good["data"] | {"flag": np.zeros(4, np.float32)}}
    nets, optimizer = {"net": Linear()}, Optimizer(AdamW(learning_rate=0.1))
    state = init_state(nets, objectives, good, optimizer, 0)
    step = jax.jit(make_step(nets, objectives, optimizer, skip_non_finite=True))
    state, _ = step(state, good)
    after, metrics = step(state, bad)
    assert np.isfinite(metrics["loss"][0]) and not np.isfinite(metrics["gradient_norm"][0])
    assert_same(plain(after.replace(step=state.step)), plain(state))
    plainly, metrics = jax.jit(make_step(nets, objectives, optimizer))(state, bad)
    assert "skipped_steps" not in metrics
    assert np.isnan(plainly.params["net"]["kernel"]).any()  # so it goes without
    assert np.isnan(optax.tree.norm(plainly.opt_state.mu))


def breaking(**changes):
    config = tiny.on_one_device(checkpoint_every=4, **changes)
    config.objectives.bad = spec(tiny.Distance, source="rows", breaks_at=7)
    return config


def examples(run_dir, step):
    return json.loads((run_dir / "non_finite" / f"{step}.json").read_text())


def test_skipped_steps_are_recorded_and_the_run_goes_on(tmp_path, capsys):
    config = breaking(non_finite="skip")
    config.objectives.bad.breaks_for = 2
    train(config, tmp_path)
    rows = tiny.losses(tmp_path)
    assert [row["step"] for row in rows] == list(range(12))
    assert [row["step"] for row in rows if row["bad/loss"] is None] == [7, 8]
    assert rows[7]["distance/loss"] is not None and rows[7]["gradient_norm"] is None
    means = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert {row["step"]: row["skipped_steps"] for row in means} == {
        2: 0, 4: 0, 6: 0, 8: 1, 10: 1, 12: 0
    }  # fmt: skip
    assert means[3]["loss"] == pytest.approx(rows[6]["loss"])  # step 7 is in no mean
    assert "1 steps skipped" in capsys.readouterr().out
    for step in (7, 8):
        told = examples(tmp_path, step)
        assert told["examples"] == {"rows": list(range(8 * step, 8 * step + 8))}
        assert told["values"]["bad/loss"] == "nan" and told["step"] == step
    assert sorted(p.name for p in (tmp_path / "non_finite").iterdir()) == ["7.json", "8.json"]


def test_many_skipped_steps_in_a_row_end_the_run(tmp_path):
    config = breaking(non_finite="skip", non_finite_limit=3)
    with pytest.raises(UserError, match=r"^step 9: .* bad is not finite, like 3 steps in a row"):
        train(config, tmp_path)
    assert newest(tmp_path / "checkpoints") == (8, [])
    assert [row["step"] for row in tiny.losses(tmp_path)] == list(range(10))
    state, *_ = Checkpoints(tmp_path).restore(Experiment.from_config(config).abstract_state())
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(plain(state)))
    assert state.step == 8 and state.opt_state.count == 7  # step 7 was no update


def test_a_run_that_stopped_goes_on_when_it_may_skip(tmp_path):
    with pytest.raises(UserError, match=r"step 7: the loss of objective bad is not finite \(nan\)"):
        train(breaking(), tmp_path)
    assert newest(tmp_path / "checkpoints") == (4, [])
    assert examples(tmp_path, 7)["examples"] == {"rows": list(range(56, 64))}
    train(breaking(non_finite="skip", non_finite_limit=100), tmp_path)
    assert newest(tmp_path / "checkpoints") == (12, [])


def test_what_comes_before_a_bad_step_is_kept_and_a_gap_begins_the_count_anew(tmp_path):
    rows = [{"step": 0, "loss": 1.0, "b/loss": 1.0}, {"step": 1, "loss": 2.0, "b/loss": 1.0}]
    bad = {"step": 2, "loss": float("inf"), "a/loss": 1.0, "b/loss": float("inf")}
    good, error = NonFinite(tmp_path, "stop", 1).look([*rows, bad, rows[0]])
    assert good == rows
    assert "step 2: the loss of objective b is not finite (inf)" in str(error)
    assert NonFinite(tmp_path, "stop", 1).look(rows) == (rows, None)
    _, error = NonFinite(tmp_path, "stop", 1).look([{"step": 0, "gradient_norm": float("nan")}])
    assert str(error).startswith("step 0: gradient_norm is not finite (nan)")

    watch = NonFinite(tmp_path, "skip", 3)
    assert watch.look([bad, bad, rows[0], bad])[1] is None
    good, error = watch.look([bad, bad | {"step": 8}, bad])
    assert good == [{"step": s, "loss": None, "a/loss": 1.0, "b/loss": None} for s in (2, 8)]
    assert str(error).startswith("step 8: the loss of objective b is not finite, like 3 steps")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"non_finite": "skp"},
            r"config.non_finite='skp'; did you mean 'skip'\? valid: skip, stop",
        ),
        ({"non_finite_limit": 0}, "config.non_finite_limit=0: must be at least 1"),
    ],
)
def test_wrong_settings_are_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        Experiment.from_config(tiny.on_one_device(**changes))
