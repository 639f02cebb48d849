"""A run that is killed, stopped, damaged or moved ends as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from taichu_jax.config import differences, from_json, spec
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Teacher
from taichu_jax.training.checkpoint import Checkpoints, load_params, newest
from taichu_jax.training.directory import RunDirectory
from taichu_jax.training.experiment import Experiment
from taichu_jax.training.loop import train
from taichu_jax.training.metrics import Meter
from taichu_jax.training.runtime import Interrupt
from tests.conftest import ROOT
from tests.training import tiny

INSTANTS = (
    "after_step:1",
    "before_seal:3",
    "in_save:3",
    "torn_line:5",
    "in_seal:6",
    "in_prune:0",
)


@pytest.fixture
def run(tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(tiny.finished_run(), tmp_path / "run")


def test_killed_at_any_instant_and_started_again_it_leaves_the_same_losses(tmp_path):
    command = [sys.executable, "-m", "tests.training.killed", str(tmp_path / "run"), *INSTANTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tiny.losses(tmp_path / "run") == tiny.losses(tiny.finished_run())
    assert [row["step"] for row in tiny.losses(tmp_path / "run")] == list(range(12))
    # Nothing was complete before the fourth start; what came later depends on how fast it was saved.
    begins = [line.partition("(")[2] for line in done.stdout.splitlines() if "run: " in line]
    assert len(begins) == len(INSTANTS) + 1
    assert all(line.startswith("new") for line in begins[:4])
    assert begins[-1].startswith("resumed at step")
    assert "checkpoint 3 is passed over: its save was not completed" in done.stdout
    saved, expected = (load_params(r)[1] for r in (tmp_path / "run", tiny.finished_run()))
    np.testing.assert_array_equal(tiny.weights(saved), tiny.weights(expected))


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(run, capsys):
    (data,) = (run / "checkpoints/12/params/ocdbt.process_0/d").iterdir()  # the weights
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    train(tiny.on_one_device(), run)
    said = capsys.readouterr().out
    assert f"checkpoint 12 is passed over: {data.relative_to(run / 'checkpoints')}" in said
    assert "resumed at step 9" in said
    assert tiny.losses(run) == tiny.losses(tiny.finished_run())
    assert newest(run / "checkpoints") == (12, [])  # saved anew


def test_a_finished_run_is_left_alone(run, capsys):
    train(tiny.on_one_device(), run)
    assert "resumed at step 12" in capsys.readouterr().out
    assert tiny.losses(run) == tiny.losses(tiny.finished_run())


def test_goes_on_on_another_mesh(run):
    config = tiny.on_one_device(steps=15)
    longer = shutil.copytree(run, run.parent / "longer")
    train(config, longer)
    config.mesh.update(data=2, fsdp=2, tensor=2)
    train(config, run)
    for here, there in zip(tiny.losses(run), tiny.losses(longer), strict=True):
        assert here["step"] == there["step"]
        np.testing.assert_allclose(here["loss"], there["loss"], rtol=1e-5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends(tmp_path, monkeypatch, capsys, number):
    add = Meter.add

    def signalling(self, step, metrics):
        if step == 3:
            os.kill(os.getpid(), number)
        add(self, step, metrics)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Meter, "add", signalling)
        train(tiny.on_one_device(), tmp_path)
    assert "stopped and saved at step 4; the same command goes on" in capsys.readouterr().out
    assert newest(tmp_path / "checkpoints") == (4, [])
    assert signal.getsignal(number) is before
    train(tiny.on_one_device(), tmp_path)
    assert tiny.losses(tmp_path) == tiny.losses(tiny.finished_run())


def test_a_second_signal_ends_the_process_at_once(monkeypatch):
    sent, before = [], signal.getsignal(signal.SIGINT)  # ignored where tests run in the background
    with Interrupt() as interrupt:
        handler = signal.getsignal(signal.SIGINT)
        assert not interrupt.wanted(1)
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.wanted(1)
        monkeypatch.setattr(os, "kill", lambda *arguments: sent.append(arguments))
        handler(signal.SIGINT, None)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert sent == [(os.getpid(), signal.SIGINT)]
    assert signal.getsignal(signal.SIGINT) is before


def test_another_config_is_refused_with_what_differs(run):
    config = tiny.on_one_device()
    config.optimizer.learning_rate = 0.5
    with pytest.raises(UserError, match=r"another config: optimizer.learning_rate: 0.01 -> 0.5$"):
        train(config, run)


def test_what_may_change_may_change(run):
    config = tiny.on_one_device(log_every=5, checkpoint_every=7, checkpoints_kept=1)
    config.data.threads = 1
    train(config, run)
    stored = from_json((run / "config.json").read_text())
    assert not differences(stored, config)


def test_a_second_program_in_the_folder_is_refused(run):
    with RunDirectory(run, tiny.on_one_device()), pytest.raises(UserError, match="another program"):
        train(tiny.on_one_device(), run)


def test_folders_that_cannot_be_used(run, tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json.partial").write_text("{")  # killed at its very start
    with RunDirectory(tmp_path / "begun", tiny.on_one_device()):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/run: cannot be used: Not a directory"):
        train(tiny.on_one_device(), tmp_path / "file" / "run")
    with pytest.raises(UserError, match="is not empty, and no run is in it"):
        train(tiny.on_one_device(), tmp_path)
    with pytest.raises(UserError, match="is not empty; name another run_dir"):
        train(tiny.on_one_device(), run, resume=False)
    assert tiny.losses(run) == tiny.losses(tiny.finished_run())


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    config = tiny.on_one_device(checkpoint_every=4)
    config.objectives.bad = spec(tiny.Distance, source="rows", breaks_at=7)
    with pytest.raises(UserError, match="step 7: the loss of objective bad is not finite"):
        train(config, tmp_path)
    assert newest(tmp_path / "checkpoints") == (4, [])
    assert [row["step"] for row in tiny.losses(tmp_path)] == list(range(7))


def test_a_teacher_starts_from_another_run(run, tmp_path):
    config = tiny.on_one_device(steps=1, seed=1)
    teacher = Teacher(nets=("mixer",), restore=str(run))
    config.objectives.distance = spec(tiny.Distance, source="rows", teacher=teacher)
    train(config, tmp_path / "student")
    like = Experiment.from_config(config).abstract_state()
    state, *_ = Checkpoints(tmp_path / "student").restore(like)
    taught, trained = tiny.weights(state.teachers["distance"]), tiny.weights(state.params)
    np.testing.assert_array_equal(taught, tiny.weights(load_params(run)[1]))
    assert np.abs(taught - trained).max() > 0.05

    config.objectives.distance.net = "other"
    config.objectives.distance.teacher.nets = ("other",)
    config.networks.other = spec(tiny.Mixer)
    with pytest.raises(UserError, match=r"teacher.restore=.*run: has no network 'other'"):
        train(config, tmp_path / "second")
    config.objectives.distance.teacher.restore = str(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"teacher.restore: .*nothing: holds no checkpoint"):
        train(config, tmp_path / "third")


def test_time_lost_to_the_loader_is_measured(tmp_path):
    config = tiny.on_one_device(steps=6, log_every=6, checkpoint_every=6)
    config.data.threads = 1
    config.streams.rows.delay = 0.2
    train(config, tmp_path)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert 0.5 < json.loads(line)["loader_wait"] <= 1
