"""Several processes train what one trains: rows, losses, checkpoints, signals, and how they end.

The processes of the slow tests are real ones on this machine, with four CPU devices each.
"""

import json
import signal
import time

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from taichu_jax.data.items import Damaged
from taichu_jax.data.loader import Loader
from taichu_jax.data.records import Decoded
from taichu_jax.data.sentences import Sentences
from taichu_jax.data.streams import Triplets
from taichu_jax.data.tokenizer import BPETokenizer
from taichu_jax.errors import UserError
from taichu_jax.training import processes
from taichu_jax.training.checkpoint import newest
from taichu_jax.training.feed import Feed
from taichu_jax.training.loop import train
from taichu_jax.training.sharding import MeshShape, held_rows
from tests.data.conftest import sample_data_dir  # noqa: F401 (a fixture)
from tests.training import several_config, tiny
from tests.training.several import HEARTBEAT, Several, own_lines

CLOSE = 1e-6  # relative; sums over processes are added in another order (seen: 2e-7)
MESHES = [MeshShape(), MeshShape(data=2, fsdp=4), MeshShape(data=2, fsdp=2, tensor=2)]


# ------------------------------------------------------------------------------------- rows


def held_by(devices, mesh, size, monkeypatch):
    """`held_rows` of a process that has these devices only."""
    with monkeypatch.context() as patch:
        own = property(lambda self: frozenset(devices))
        patch.setattr(jax.sharding.NamedSharding, "addressable_devices", own)
        everything = jax.sharding.NamedSharding.devices_indices_map
        patch.setattr(
            jax.sharding.NamedSharding,
            "addressable_devices_indices_map",
            lambda self, shape: {d: i for d, i in everything(self, shape).items() if d in devices},
        )
        return held_rows(mesh, size)


@pytest.mark.parametrize("shape", MESHES)
@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_process_holds_the_rows_of_its_devices(shape, count, monkeypatch):
    mesh, size = shape.make(), 16
    where = jax.sharding.NamedSharding(mesh, P(("data", "fsdp"))).devices_indices_map((size,))
    for index in range(count):
        own = jax.devices()[index * 8 // count : (index + 1) * 8 // count]
        expected = sorted({row for d in own for row in range(size)[where[d][0]]})
        assert held_by(own, mesh, size, monkeypatch) == expected
    assert held_rows(mesh, size) == list(range(size))


def test_devices_in_any_order_and_processes_that_share_rows(monkeypatch):
    devices = jax.devices()
    mixed = MeshShape().make([devices[i] for i in (0, 4, 1, 5, 2, 6, 3, 7)])
    assert held_by(devices[:4], mixed, 16, monkeypatch) == [0, 1, 4, 5, 8, 9, 12, 13]
    across = MeshShape(data=1, tensor=8).make()
    assert held_by(devices[:4], across, 4, monkeypatch) == [0, 1, 2, 3]


def test_a_mesh_that_leaves_a_process_without_devices_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="uses 4 of 8 devices; with several processes all must"):
        MeshShape(data=4).make()


@pytest.fixture
def damaged(monkeypatch):
    """Every fifth picture cannot be decoded; those that were tried."""
    canvas, tried = Decoded.canvas, []

    def broken(self, row, side):
        if row % 5 == 0:
            tried.append(row)
            raise Damaged("broken on purpose")
        return canvas(self, row, side)

    monkeypatch.setattr(Decoded, "canvas", broken)
    return tried


@pytest.mark.parametrize("count", [1, 2, 4])
def test_rows_of_all_processes_are_the_batch_of_one(count, sample_data_dir, damaged):  # noqa: F811
    streams = {
        "triplets": Triplets(batch_size=8, image_size=16, seconds=0.5, same_language=True, views=2),
        "text": Sentences(batch_size=8, pack=True),
    }
    tokenizer = BPETokenizer(vocab_size=400, dropout=0.1)

    def batches(rows):
        with Loader(streams, sample_data_dir, tokenizer, seed=4, rows=rows) as loader:
            return [next(loader) for _ in range(2)]

    whole = batches(None)
    parts = [
        batches(lambda size, p=p: range(p * size // count, (p + 1) * size // count))
        for p in range(count)
    ]
    chosen = streams["triplets"].select(streams["triplets"].source(sample_data_dir))
    drawn = [chosen[i].row for batch in whole for i in batch["triplets"]["example"]]
    assert damaged and all(row % 5 for row in drawn)  # some were replaced
    for step in range(2):
        for stream, fields in whole[step].items():
            for name, values in fields.items():
                together = np.concatenate([part[step][stream][name] for part in parts])
                np.testing.assert_array_equal(together, values, err_msg=f"{stream}/{name}")


def test_the_feed_keeps_the_order_of_rows():
    rows = np.arange(16 * 3).reshape(16, 3).astype(np.float32)
    feed = Feed([{"rows": {"x": rows}}], MeshShape(data=2, fsdp=2, tensor=2).make())
    batch = feed.next(lambda: False)
    feed.close()
    np.testing.assert_array_equal(batch["rows"]["x"], rows)
    assert batch["rows"]["x"].sharding.spec[0][:2] == ("data", "fsdp")


# ------------------------------------------------------------------------- two real processes


def test_only_as_many_numbers_are_dropped_as_gloo_has_lost():
    whole = (
        "[Gloo] Rank 0 is connected to 1 peer ranks. Expected number of connected peer ranks is : 1"
    )
    torn = whole[:-1]
    assert own_lines(f"{whole}\na\n7\n") == ["a", "7"]
    assert own_lines(f"{torn}{whole}\n1\nb\n7\n") == ["b", "7"]
    _, tail = whole.split("Rank ")
    assert own_lines(f"a\n{tail}\nb\n") == ["a", "b"]


def test_two_processes_equal_one_through_kill_other_meshes_and_sigterm(tmp_path):
    run, seals = tmp_path / "run", tmp_path / "run/checkpoints/_integrity"
    other = tiny.finished_run()
    command = [
        f"--config=tests/training/several_config.py:{other}",
        "--config.steps=300",
        "--config.streams.rows.delay=0.05",
        "--exit_when_stopped=75",
        f"--run_dir={run}",
    ]

    def alone(steps, **mesh):  # all devices of this process
        config = several_config.get_config(str(other))
        config.steps, config.streams.rows.delay = steps, 0.05
        for axis, size in mesh.items():
            config.mesh[axis] = size
        return config

    with Several(4, [command, command], tmp_path / "killed") as started:
        started.until(seals / "3.json")
        started.send(1, signal.SIGKILL)
        codes = started.codes(HEARTBEAT + 30)
        said, _ = started.said()
    assert codes[0] not in (0, 75) and codes[1] == -signal.SIGKILL
    reasons = ("if another process died, that is why", "another task died; see the other task logs")
    # On CPUs, gloo's error now and then crashes XLA itself (jax 0.10.2), which leaves no line.
    crashed = codes[0] == -signal.SIGSEGV
    assert crashed or any(reason in line for line in said for reason in reasons), (codes, said)
    assert any("(new), 64 parameters, float32, 4 data x 2 fsdp" in line for line in said)

    first, notes = newest(run / "checkpoints")
    assert first >= 3 and notes == []
    train(alone(first + 2, data=2, fsdp=4), run)  # one process, another mesh
    train(alone(first + 4, data=1, fsdp=1), run)  # one device

    with Several(4, [command, command], tmp_path / "stopped") as started:
        started.until(seals / f"{first + 6 - first % 3}.json")
        started.send(1, signal.SIGTERM)
        assert started.codes() == [75, 75], started.said()
        said, quiet = started.said()
    last, notes = newest(run / "checkpoints")
    assert notes == [] and last > first + 4
    assert f"stopped and saved at step {last}; the same command goes on from there" in said[-1]
    assert any(f"(resumed at step {first + 4})" in line for line in said)
    assert all("SIGTERM" in line for line in quiet), quiet  # one process speaks

    whole = tmp_path / "whole"
    train(alone(last), whole)
    losses, expected = (tiny.losses(folder) for folder in (run, whole))
    assert [row["step"] for row in losses] == list(range(last))
    for row, wanted in zip(losses, expected, strict=True):
        assert row == pytest.approx(wanted, rel=CLOSE), row["step"]
    device = tmp_path / "device"
    train(alone(3, data=1, fsdp=1), device)
    for row, wanted in zip(tiny.losses(device), expected[:3], strict=True):
        assert row == pytest.approx(wanted, rel=CLOSE)


def test_an_error_in_one_process_ends_all_with_its_reason(tmp_path):
    config = ["--config=tests/training/tiny_config.py", f"--run_dir={tmp_path / 'run'}"]
    start = time.monotonic()
    with Several(2, [config, [*config, "--config.steps=13"]], tmp_path / "out") as started:
        assert started.codes() == [2, 2], started.said()
        (*_, first), (*_, second) = started.said()
    reason = f"{tmp_path / 'run/config.json'}: process 0 was started with another config; all need"
    assert first.startswith(f"error: process 1 failed, so this one ends: {reason}")
    assert second.startswith(f"error: process 1 of 2: {reason}")
    assert time.monotonic() - start < 60  # and not the 300 of JAX's own ending


# ---------------------------------------------------------------------------------- settings


def test_settings_come_from_the_environment():
    assert processes.settings({}) == {}
    several = {
        "JAX_COORDINATOR_ADDRESS": "taichu-0.taichu:1234",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "1",
    }
    assert processes.settings(several) == {
        "coordinator_address": "taichu-0.taichu:1234",
        "num_processes": 2,
        "process_id": 1,
    }
    for change, message in (
        ({"JAX_COORDINATOR_ADDRESS": "host"}, "JAX_COORDINATOR_ADDRESS=host: must be HOST:PORT"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES=two: must be a whole number"),
        ({"JAX_NUM_PROCESSES": "0"}, "JAX_NUM_PROCESSES=0: must be at least 1"),
        ({"JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID=2: must be below JAX_NUM_PROCESSES=2"),
        ({"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID=-1: must be a whole number"),
    ):
        with pytest.raises(UserError, match=message):
            processes.settings(several | change)


def test_programs_started_several_times_as_one_are_told_from_the_rest():
    assert processes.started_several({}) == ""
    assert processes.started_several({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}) == ""
    assert processes.started_several({"SLURM_STEP_NUM_TASKS": "4"}) == "SLURM_STEP_NUM_TASKS=4"
    assert processes.started_several({"JAX_NUM_PROCESSES": "2"}) == "JAX_NUM_PROCESSES=2"


class Service:
    """What processes share, for one that has no others."""

    def __init__(self, **values):
        self.values = values

    def key_value_set(self, key, value):
        self.values.setdefault(key, value)

    def key_value_try_get(self, key):
        if key not in self.values:
            raise jax.errors.JaxRuntimeError("NOT_FOUND")
        return self.values[key]


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def pretend(monkeypatch):
    """This process is the first of two."""
    service = Service()

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "_client", lambda: service)
    monkeypatch.setattr(processes, "_POLL", 0.001)
    monkeypatch.setattr(processes, "_exit", end)
    return service


def _raised_from(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("too\nlow"), 2, "error: process 0 of 2: too low"),
        (ValueError("odd"), 1, "error: process 0 of 2: ValueError: odd"),
        (
            jax.errors.JaxRuntimeError("peer closed"),
            1,
            "peer closed; if another process died, that is why: start all of them again",
        ),
        (
            _raised_from(UserError("cannot write"), jax.errors.JaxRuntimeError("peer closed")),
            1,
            "cannot write; if another process died, that is why: start all of them again",
        ),
        (KeyboardInterrupt(), 130, "error: process 0 of 2: interrupted"),
    ],
)
def test_the_first_error_is_everyones(pretend, capfd, error, code, line):
    with pytest.raises(Ended) as ended, processes.shared_fate():
        raise error
    assert ended.value.args == (code,)
    assert capfd.readouterr().err.splitlines()[-1].endswith(line)
    index, told_code, told = json.loads(pretend.values[processes._FAILED])
    assert (index, told_code) == (0, code) and told.endswith(line.partition("of 2: ")[2])


def test_alone_an_error_is_an_error():
    with pytest.raises(ValueError, match="odd"), processes.shared_fate(), processes.fatal_to_all():
        raise ValueError("odd")


def test_a_shared_file_must_be_the_same(pretend, monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "barrier", lambda name: None)
    monkeypatch.setattr(processes, "_SHOWN_LATE", 0.2)
    path = tmp_path / "config.json"
    processes.check_shared(path, "mine")  # the first process wrote it
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(UserError, match="is not there, though process 0 wrote it"):
        processes.check_shared(path, "mine")
    path.write_text("other")
    with pytest.raises(UserError, match="process 0 was started with another config"):
        processes.check_shared(path, "mine")
    path.write_text("mine")
    processes.check_shared(path, "mine")


def test_ctrl_c_in_one_of_several_stops_all(pretend, monkeypatch):
    from taichu_jax.training import runtime

    told = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: handler)
    monkeypatch.setattr(runtime.os, "kill", lambda process, number: told.append(number))
    with runtime.Interrupt() as interrupt:
        interrupt._handle(signal.SIGINT, None)
    assert told == [signal.SIGTERM]  # which JAX catches, and tells the others
