"""What is written down is exact, whole and says where a run broke."""

import json
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.training import metrics
from taichu_jax.training.feed import Feed
from taichu_jax.training.files import JsonLines
from taichu_jax.training.metrics import Clock, Journal, Meter
from taichu_jax.training.progress import ProgressLine
from taichu_jax.training.sharding import MeshShape


def measured(loss, right=0.0, count=0.0):
    return {
        "loss": (jnp.float32(loss), jnp.ones(())),
        "a/loss": (jnp.float32(2 * loss), jnp.float32(2)),
        "a/accuracy": (jnp.float32(right), jnp.float32(count)),
        "a/never": (jnp.float32(0), jnp.float32(0)),
    }


def test_losses_are_exact_and_means_are_weighted_by_count():
    meter = Meter()
    values = [(0.1, 3, 4), (0.7, 0, 0), (1 / 3, 1, 16)]
    for step, row in enumerate(values, start=5):
        meter.add(step, measured(*row))
    losses, means = meter.take()
    exact = [float(np.float32(value)) for value, *_ in values]
    assert losses == [{"step": 5 + i, "a/loss": v, "loss": v} for i, v in enumerate(exact)]
    assert means["a/accuracy"] == 4 / 20
    assert means["loss"] == sum(exact) / 3
    assert "a/never" not in means
    meter.add(8, measured(9.0, 1, 1))
    losses, means = meter.take()
    assert losses == [{"step": 8, "a/loss": 9.0, "loss": 9.0}]
    assert means == {"a/accuracy": 1.0, "a/loss": 9.0, "loss": 9.0}


def test_waits_only_for_the_oldest_of_three_steps(monkeypatch):
    waited = []

    class Packed:
        def __init__(self, step):
            self.step, self.ready = step, False

        def copy_to_host_async(self):
            pass

        def block_until_ready(self):
            waited.append(self.step)

        def is_ready(self):
            return self.ready

    made = []
    monkeypatch.setattr(metrics, "_pack", lambda m: made.append(Packed(m["step"])) or made[-1])
    meter = Meter()
    assert meter.idle()
    for step in range(5):
        meter.add(step, {"step": step})
    assert waited == [0, 1, 2]
    assert not meter.idle()
    made[-1].ready = True
    assert meter.idle()


def test_lines_beyond_the_checkpoint_and_torn_ones_are_cut_off(tmp_path):
    path = tmp_path / "lines"
    path.write_text('{"step": 0}\n{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    lines = JsonLines(path, lambda step: step < 9)
    assert lines.rows == 3
    lines.append([{"step": 3}])
    lines.close()
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    lines = JsonLines(path, lambda step: step < 2)
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n'
    lines.close()
    path.write_text('{"step": 0}\n{"step": 1}')  # whole, but perhaps of a longer number
    JsonLines(path, lambda step: True).close()
    assert path.read_text() == '{"step": 0}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["lines"]


@pytest.mark.parametrize(
    "line", [b'{"step": 2', b"\xff\xfe", b"[2]", b'{"loss": 2}', b'{"step": "2"}']
)
def test_a_damaged_line_costs_no_other(tmp_path, line):
    path = tmp_path / metrics.LOSSES
    path.write_bytes(b'{"step": 0}\n{"step": 1}\n' + line + b'\n{"step": 3}\n{"step": 4}\n')
    journal = Journal(tmp_path, 4)
    journal.close()
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n{"step": 3}\n'
    assert journal.notes == [
        "losses.jsonl: 1 damaged lines are dropped",
        "1 of the 4 steps so far lack their records",
    ]


def test_an_interval_without_means_leaves_its_losses(tmp_path):
    journal = Journal(tmp_path, 0)
    journal.write([{"step": 0, "loss": None}], None)
    journal.close()
    assert (tmp_path / metrics.LOSSES).read_text() == '{"step": 0, "loss": null}\n'
    assert (tmp_path / metrics.METRICS).read_text() == ""


def test_skipped_steps_are_counted_and_in_no_mean():
    meter = Meter()
    for step, (loss, skipped) in enumerate([(1.0, 0.0), (float("nan"), 1.0), (3.0, 0.0)]):
        told = {"loss": loss, "skipped_steps": skipped}
        meter.add(step, {k: (jnp.float32(v), jnp.ones(())) for k, v in told.items()})
    losses, means = meter.take()
    assert means == {"loss": 2.0, "skipped_steps": 1}
    assert [row["step"] for row in losses] == [0, 1, 2] and np.isnan(losses[1]["loss"])
    meter.add(
        3,
        {k: (jnp.float32(v), jnp.ones(())) for k, v in told.items()}
        | {
            "loss": (jnp.float32("inf"), jnp.ones(())),
            "skipped_steps": (jnp.ones(()), jnp.ones(())),
        },
    )
    assert meter.take()[1] == {"skipped_steps": 1}


def test_a_journal_goes_on_where_the_checkpoint_is(tmp_path):
    def interval(step):
        return [{"step": step - 2, "loss": 1.0}, {"step": step - 1, "loss": 1.0}], {
            "step": step,
            "time": 1.0,
            "rate": 2.0,
            "loss": 1.0,
        }

    journal = Journal(tmp_path, 0)
    for step in (2, 4, 6):
        journal.write(*interval(step))
    journal.close()
    journal = Journal(tmp_path, 4)
    assert journal.missing == 0
    journal.write(*interval(6))
    journal.close()
    steps = [json.loads(line)["step"] for line in (tmp_path / metrics.LOSSES).open()]
    assert steps == list(range(6))
    steps = [json.loads(line)["step"] for line in (tmp_path / metrics.METRICS).open()]
    assert steps == [2, 4, 6]
    assert len(list((tmp_path / metrics.TENSORBOARD).iterdir())) >= 1
    (tmp_path / metrics.LOSSES).unlink()
    journal = Journal(tmp_path, 6)
    assert journal.missing == 6
    journal.close()


def test_the_clock_counts_steps_and_the_share_that_was_lost():
    clock = Clock()
    clock.restart(10, 3.0)
    time.sleep(0.1)
    numbers = clock.take(15, 3.05)
    assert 0 < numbers["rate"] < 50
    assert 0 < numbers["loader_wait"] <= 0.5
    assert clock.take(15, 3.05) == {"loader_wait": 0}


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_a_clock_that_stands_still_or_goes_back_gives_no_rate(monkeypatch, seconds):
    now = iter([100.0, 100.0, 100.0 + seconds, 200.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(now, 300.0))
    clock = Clock()
    clock.restart(10, 5.0)
    assert clock.take(20, 3.0) == {"loader_wait": 0}  # nor a negative wait
    assert clock.take(20, 4.0)["loader_wait"] >= 0


def test_only_time_in_which_the_device_is_idle_is_lost():
    gate = threading.Semaphore(0)

    def batches():
        for i in range(4):
            gate.acquire()
            yield {"s": {"x": np.full((2, 3), i, np.float32)}}

    def after(seconds):
        threading.Timer(seconds, gate.release).start()

    feed = Feed(batches(), MeshShape(data=2, fsdp=1, tensor=1).make(jax.devices()[:2]))
    after(0.2)
    assert float(feed.next(lambda: False)["s"]["x"][0, 0]) == 0  # the device was busy all along
    assert feed.lost == 0
    after(0.2)
    batch = feed.next(lambda: True)
    assert feed.lost > 0.15
    assert float(batch["s"]["x"][1, 2]) == 1
    assert len(batch["s"]["x"].sharding.device_set) == 2
    after(0.5)
    start, lost = time.monotonic(), feed.lost
    feed.next(lambda: time.monotonic() - start > 0.3)  # the device finishes meanwhile
    waited = time.monotonic() - start
    assert 0.1 < feed.lost - lost < waited - 0.29
    gate.release()
    time.sleep(0.3)
    lost = feed.lost
    feed.next(lambda: True)  # it was there
    assert feed.lost - lost < 0.1
    with pytest.raises(UserError, match="ended before"):
        feed.next(lambda: True)
    feed.close()


def test_an_error_of_the_loader_reaches_the_loop():
    def broken():
        yield {"s": {"x": np.zeros((2, 3), np.float32)}}
        raise UserError("broken data")

    feed = Feed(broken(), MeshShape(data=1).make())
    feed.next(lambda: True)
    with pytest.raises(UserError, match="broken data"):
        feed.next(lambda: True)
    feed.close()


def test_plain_lines_where_there_is_no_terminal(capsys):
    line = ProgressLine(100, 0, ("loss", "a/loss"))
    line.advance(20)
    line.log(20, {"loss": 1.23456, "a/loss": 2, "other": 1, "rate": 4.0, "loader_wait": 0.5})
    line.log(21, {"loss": 1.0, "loader_wait": 0.0})
    line.log(22, {"loss": 1.0, "rate": 0.0005, "loader_wait": 0.0, "skipped_steps": 3})
    line.log(23, {"loss": 1.0, "rate": 1e-300, "loader_wait": 0.0, "skipped_steps": 0})
    line.say("[x] said")
    line.close()
    assert capsys.readouterr().out == (
        "step 20/100, loss 1.235, a/loss 2, waits for data 50%, 4 steps/s, 0:00:20 left\n"
        "step 21/100, loss 1, compiled\n"
        "step 22/100, loss 1, 3 steps skipped, 0.0005 steps/s, 1 day, 19:20:00 left\n"
        "step 23/100, loss 1, 1e-300 steps/s, 9999 days, 0:00:00 left\n"
        "[x] said\n"
    )
    names = ("loss", *"abcdef")
    many = ProgressLine(100, 0, names)
    for number in (1.0, 0.0):
        values = dict(zip("abcdef", [1, 2 * number, 6, 5, 4, 3], strict=True))
        many.log(20, values | {"loss": 9, "rate": 1, "loader_wait": 0})
    for line in capsys.readouterr().out.splitlines():
        assert "loss 9, c 6, d 5, e 4, f 3, 1 steps/s" in line
    quiet = ProgressLine(100, 0, ("loss",), quiet=True)
    quiet.log(20, {"loss": 1, "rate": 1, "loader_wait": 0})
    quiet.say("nothing")
    assert capsys.readouterr().out == ""
