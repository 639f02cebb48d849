"""Full disks, folders that cannot be written, clocks that go back: one line, and nothing is lost."""

import contextlib
import gc
import json
import os
import resource
import shutil
import types

import jax
import pytest

from taichu_jax.config import spec
from taichu_jax.errors import UserError
from taichu_jax.training import board, checkpoint, directory, loop, metrics
from taichu_jax.training.checkpoint import Checkpoints, newest
from taichu_jax.training.directory import RunDirectory
from taichu_jax.training.files import JsonLines
from taichu_jax.training.loop import train
from tests.training import tiny

LONGER = 16


@pytest.fixture
def run(tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(tiny.finished_run(), tmp_path / "run")


@pytest.fixture(scope="module")
def longer_run(tmp_path_factory):
    """The finished run, gone on with."""
    run = shutil.copytree(tiny.finished_run(), tmp_path_factory.mktemp("longer") / "run")
    return train(tiny.on_one_device(steps=LONGER), run)


@contextlib.contextmanager
def full_disk(free=10):
    """No file can grow beyond `free` bytes: the kernel refuses, also what C++ writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def full_during(patch, owner, name, free=10):
    """The disk is full whenever this function runs."""
    original = getattr(owner, name)

    def limited(*arguments, **keywords):
        with full_disk(free):
            return original(*arguments, **keywords)

    patch.setattr(owner, name, limited)


def save_at_once(self, *arguments):
    SAVE(self, *arguments)
    self._saving.join()


SAVE = Checkpoints.save
FILLS = {
    "config.json": (directory, "write_whole", 10, r"run: cannot be used: File too large"),
    "Orbax, at the start": (Checkpoints, "save", 10, r"cannot write a checkpoint: "),
    "Orbax, the weights": (Checkpoints, "save", 700, r"cannot write a checkpoint: "),
    "seal": (checkpoint, "seal", 10, r"cannot write a checkpoint: File too large"),
    "losses.jsonl": (JsonLines, "append", None, r"losses.jsonl: cannot be written: File too large"),
    "tensorboard": (board.Board, "flush", 10, r"tensorboard: cannot be written: File too large"),
}


@pytest.mark.parametrize("where", FILLS)
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_space(
    run, longer_run, monkeypatch, capsys, where
):
    owner, name, free, message = FILLS[where]
    config = tiny.on_one_device(steps=LONGER)
    if free is None:  # enough for a part of a line
        free = (run / "losses.jsonl").stat().st_size + 20
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_at_once)
        full_during(patch, owner, name, free)
        with pytest.raises(UserError, match=message) as error:
            train(config, run)
    assert "\n" not in str(error.value)
    assert newest(run / "checkpoints")[0] == 12  # as it was
    train(config, run)
    assert "resumed at step 12" in capsys.readouterr().out
    assert tiny.losses(run) == tiny.losses(longer_run)
    assert newest(run / "checkpoints") == (LONGER, [])
    assert not list(run.rglob("*tmp*")) and not list(run.rglob("*.partial"))


def test_a_save_that_failed_is_told_at_the_next_interval(tmp_path, monkeypatch):
    """Not only when the next checkpoint is due."""
    config = tiny.on_one_device(log_every=1, checkpoint_every=4)
    monkeypatch.setattr(Checkpoints, "save", save_at_once)
    full_during(monkeypatch, checkpoint, "seal")
    with pytest.raises(UserError, match="cannot write a checkpoint"):
        train(config, tmp_path)
    assert len(tiny.losses(tmp_path)) == 5


def test_closing_after_a_failed_write_says_nothing_more(tmp_path):
    """The error that tells of the full disk must not be hidden by a second one."""
    lines, shown = JsonLines(tmp_path / "lines", bool), board.Board(tmp_path / "board")
    with full_disk():
        with pytest.raises(UserError, match=r"lines: cannot be written: File too large"):
            lines.append([{"step": 1, "loss": 0.123456789}])
        shown.add_scalar("loss", 1.0, 1, 1.0)
        with pytest.raises(UserError, match=r"board: cannot be written: File too large"):
            shown.flush()
        lines.close()
        shown.close()


def test_examples_that_cannot_be_written_down_are_one_line(tmp_path):
    config = tiny.on_one_device(non_finite="skip")
    config.objectives.distance = spec(tiny.Distance, source="rows", breaks_at=1)
    (tmp_path / "run").mkdir()
    with RunDirectory(tmp_path / "run", config):
        (tmp_path / "run" / "non_finite").touch()
    with pytest.raises(UserError, match=r"non_finite/1.json: cannot be written: File exists"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lock", "run: cannot be used: Is a directory"),
        ("config.json.partial", "run: cannot be used: Is a directory"),
        ("config.json", "config.json: cannot be read: .* Is a directory"),
        ("checkpoints", "checkpoints: cannot write a checkpoint: (File exists|Not a directory)"),
        ("losses.jsonl", "losses.jsonl: cannot be written: Is a directory"),
        ("metrics.jsonl", "metrics.jsonl: cannot be written: Is a directory"),
        ("tensorboard", "tensorboard: cannot be written: File exists"),
    ],
)
def test_what_is_in_the_way_is_named(run, name, message):
    """(File modes would not stop a root user, a folder or a file in the way does.)"""
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.touch() if name in ("checkpoints", "tensorboard") else path.mkdir()
    with pytest.raises(UserError, match=message) as error:
        train(tiny.on_one_device(steps=LONGER), run)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"x"', '{"kind": 5}', "\udcff"])
def test_a_damaged_config_is_one_line(run, text):
    (run / "config.json").write_bytes(text.encode("utf8", "surrogateescape"))
    before = (run / "losses.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"config.json: cannot be read|another config|kind=5") as e:
        train(tiny.on_one_device(), run)
    assert "\n" not in str(e.value)
    assert (run / "losses.jsonl").read_bytes() == before


def test_a_clock_that_goes_back_breaks_nothing(tmp_path, monkeypatch, capsys):
    seconds = iter(range(10**6, 0, -7))
    clock = types.SimpleNamespace(monotonic=lambda: next(seconds), time=lambda: next(seconds))
    monkeypatch.setattr(metrics, "time", clock)
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr("taichu_jax.training.feed.time", clock)
    train(tiny.on_one_device(), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert len(rows) == 8  # every second step is logged, every third saved
    assert all(row.get("rate", 1.0) > 0 and 0 <= row["loader_wait"] <= 1 for row in rows)
    said = capsys.readouterr().out
    assert "step 12/12" in said and "nan" not in said and "-" not in said.split("run: ")[0]
    assert tiny.losses(tmp_path) == tiny.losses(tiny.finished_run())


COMPILED = "/jax/core/compile/backend_compile_duration"


def test_nothing_is_compiled_or_left_open_after_warming_up(tmp_path, monkeypatch):
    warm, steps = 100, 400
    compiled, handles, threads = [], {}, {}
    add = metrics.Meter.add

    def measuring(self, step, values):
        add(self, step, values)
        if step % 50 == 25:
            gc.collect()
            handles[step] = len(os.listdir("/proc/self/fd"))
            threads[step] = len(os.listdir("/proc/self/task"))
        if step == warm:
            jax.monitoring.register_event_duration_secs_listener(listen)

    def listen(event, seconds, **_):
        if event == COMPILED:
            compiled.append(event)

    monkeypatch.setattr(metrics.Meter, "add", measuring)
    monkeypatch.setattr(Checkpoints, "save", save_at_once)  # so that none is under way
    config = tiny.on_one_device(steps=steps, log_every=10, checkpoint_every=50, non_finite="skip")
    try:
        train(config, tmp_path)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []
    late = [step for step in handles if step > warm]
    assert len(late) == 6
    assert {handles[step] for step in late} == {handles[late[0]]}
    grown = max(threads[step] for step in late) - threads[late[0]]
    assert grown < len(late) - 1, threads  # pools come and go; not one thread a save
