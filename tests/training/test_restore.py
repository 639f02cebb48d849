"""Networks that start from another run: copied once, with their teachers, or one line of error."""

import dataclasses
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.config import spec
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Teacher
from taichu_jax.training.checkpoint import Checkpoints, load_params
from taichu_jax.training.experiment import Experiment
from taichu_jax.training.loop import train
from taichu_jax.training.optim import AdamW
from taichu_jax.training.restore import restore_networks, run_and_name
from tests.training import tiny


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(tiny.finished_run(), tmp_path / "run")


def config_from(run, **changes):
    """A config whose only network starts from `run` and, with a rate of 0, stays as it is."""
    config = tiny.on_one_device(seed=1, **changes)
    config.restore = {"mixer": str(run)}
    config.optimizer = spec(AdamW, learning_rate=0.0)
    return config


def state_of(config, run_dir):
    return Checkpoints(run_dir).restore(Experiment.from_config(config).abstract_state())[0]


def test_a_network_and_the_teacher_that_copies_it_start_from_the_run(run, tmp_path):
    config = config_from(run, steps=2)
    train(config, tmp_path / "new")
    state, expected = state_of(config, tmp_path / "new"), tiny.weights(load_params(run)[1])
    np.testing.assert_array_equal(tiny.weights(state.params), expected)
    np.testing.assert_array_equal(tiny.weights(state.teachers["distance"]), expected)
    assert state.step == 2  # the count and the optimiser are new


def test_going_on_does_not_restore_again(run, tmp_path):
    config = config_from(run, steps=1)
    train(config, tmp_path / "new")
    before = tiny.weights(state_of(config, tmp_path / "new").params)
    shutil.rmtree(run)  # it is not looked at any more
    config.steps = 2
    train(config, tmp_path / "new")
    state = state_of(config, tmp_path / "new")
    assert state.step == 2
    np.testing.assert_array_equal(tiny.weights(state.params), before)
    config.restore = {"mixer": ""}
    with pytest.raises(UserError, match=r"another config: restore.mixer"):
        train(config, tmp_path / "new")


def test_empty_means_from_nothing(tmp_path):
    config = config_from("", steps=1)
    train(config, tmp_path / "new")
    fresh = tiny.weights(Experiment.from_config(config).init().params)
    np.testing.assert_array_equal(tiny.weights(state_of(config, tmp_path / "new").params), fresh)


def test_a_teacher_with_a_run_of_its_own_keeps_it(run, tmp_path):
    config = config_from(run, steps=1)
    other = train(tiny.on_one_device(steps=1, seed=5), tmp_path / "other")
    teacher = Teacher(nets=("mixer",), restore=str(other))
    config.objectives.distance = spec(tiny.Distance, source="rows", teacher=teacher)
    train(config, tmp_path / "new")
    state = state_of(config, tmp_path / "new")
    taught, trained = tiny.weights(state.teachers["distance"]), tiny.weights(state.params)
    np.testing.assert_array_equal(taught, tiny.weights(load_params(other)[1]))
    np.testing.assert_array_equal(trained, tiny.weights(load_params(run)[1]))


def test_what_is_taken_and_what_is_left_is_told(run):
    experiment = Experiment.from_config(tiny.on_one_device())
    _, notes = restore_networks({"mixer": str(run)}, experiment.objectives, experiment.init())
    assert notes == [f"network 'mixer' starts from {run}, step 12"]


def test_a_network_may_have_another_name_there(run):
    experiment = Experiment.from_config(tiny.on_one_device(seed=1))
    state = experiment.init()
    renamed = dataclasses.replace(state, params={"other": state.params["mixer"]}, teachers={})
    new, _ = restore_networks({"other": f"{run}:mixer"}, experiment.objectives, renamed)
    np.testing.assert_array_equal(
        tiny.weights({"mixer": new.params["other"]}), tiny.weights(load_params(run)[1])
    )
    with pytest.raises(UserError, match=r"^config.restore.other=.*run: has no network 'mixr'; did"):
        restore_networks({"other": f"{run}:mixr"}, experiment.objectives, renamed)
    assert run_and_name("runs/a:b/c", "net") == ("runs/a:b/c", "net")  # a folder with a colon


def test_mistakes_are_one_line(run, tmp_path):
    with pytest.raises(UserError, match=r"^config.restore.mixr: no such network; did you mean"):
        Experiment.from_config(tiny.on_one_device(restore={"mixr": str(run)}))
    config = config_from(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"^config.restore.mixer: .*nothing: holds no checkpoint$"):
        train(config, tmp_path / "new")

    experiment = Experiment.from_config(tiny.on_one_device())
    state, objectives = experiment.init(), experiment.objectives
    named = dataclasses.replace(state, params={"other": state.params["mixer"]})
    with pytest.raises(UserError, match=r"run: has no network 'other'; valid: mixer"):
        restore_networks({"other": str(run)}, objectives, named)
    with pytest.raises(UserError, match=r"restore.mixer: no objective trains this network"):
        restore_networks({"mixer": str(run)}, objectives, named)
    deeper = dataclasses.replace(state, params={"mixer": {"block": jnp.zeros(3)}})
    with pytest.raises(UserError, match=r"network 'mixer' has no parameter block"):
        restore_networks({"mixer": str(run)}, objectives, deeper)
    wider = dataclasses.replace(state, params={"mixer": {"kernel": jnp.zeros((8, 9))}})
    with pytest.raises(UserError, match=r"parameter mixer/kernel is \(8, 8\), not \(8, 9\)"):
        restore_networks({"mixer": str(run)}, objectives, wider)
