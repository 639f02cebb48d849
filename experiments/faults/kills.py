"""One run that is killed again and again, with SIGKILL, at random and at chosen instants."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import random
import struct
import threading
import time
from collections.abc import Callable

from experiments.faults import children
from taichu_jax.training import checkpoint, metrics
from taichu_jax.training.loop import train
from tests.training import killed, tiny

CHECKPOINT_EVERY, LOG_EVERY = 20, 5
STEPS_A_KILL = 80  # of the whole run, so that it is not done before the last kill
STEP_SECONDS = 0.02  # how long a batch takes: a kill falls into a step, not only between them
PATIENCE = 60.0  # seconds for an aimed kill to come about
SOON = 0.5  # seconds after the first step, for one that comes about before it or not at all


@dataclasses.dataclass(frozen=True)
class Kind:
    """When a start is killed.

    Attributes:
      share: of 50 kills.
      aim: installs what kills from inside; None: the parent kills.
      early: it comes about before the first step, or not at all.
    """

    share: int
    aim: Callable[[random.Random], None] | None = None
    early: bool = False


def around_save(rng: random.Random) -> None:
    """Up to 0.3 seconds after a save has begun: Orbax writes and renames, our seal, the pruning."""
    save, delay = checkpoint.Checkpoints.save, rng.uniform(0, 0.3)

    def dying(self, state, step, metadata):
        timer = threading.Timer(delay, killed.die)
        timer.daemon = True
        timer.start()
        save(self, state, step, metadata)

    checkpoint.Checkpoints.save = dying


def at(name: str, most: int = 0) -> Callable[[random.Random], None]:
    """An instant of tests/training/killed.py."""
    return lambda rng: getattr(killed, name)(rng.randint(0, most))


ANY, STEPPING = "at any time", "between and within steps"
KINDS = {
    ANY: Kind(12),
    STEPPING: Kind(12),
    "within 0.3 s of a save": Kind(6, around_save),
    "while Orbax writes": Kind(3, at("in_save")),
    "between Orbax's rename and the seal": Kind(3, at("before_seal")),
    "while the seal is written": Kind(3, at("in_seal")),
    "while an old checkpoint is deleted": Kind(3, at("in_prune")),
    "while a line of losses.jsonl is written": Kind(2, at("torn_line")),
    "while losses.jsonl is cut on a resume": Kind(2, at("in_compaction"), early=True),
    "while the step is compiled": Kind(2, at("in_compile", 600), early=True),
    "while a checkpoint is read": Kind(1, at("in_restore"), early=True),
    "while config.json is written": Kind(1, at("in_config"), early=True),
}


def soak(folder: pathlib.Path, kills: int, seed: int, say: Callable[[str], None]) -> dict:
    """Kills a run `kills` times, lets it end, and compares it with one that was left alone."""
    steps = STEPS_A_KILL * kills
    alone, run, trace = folder / "alone", folder / "killed", folder / "steps"
    log = folder / "log.txt"
    began = time.monotonic()
    plain = children.start(lambda: _train(alone, steps, 0.0, folder / "alone_steps"), log)
    if children.end(plain) != 0:
        raise SystemExit(f"the run that is left alone failed: {log}")
    first = children.start(
        lambda: _train(folder / "first", steps, 0.0, folder / "first_steps"), log
    )
    start_up = _until_grown(folder / "first_steps", 0, first) or 3.0  # everything is compiled
    children.kill(first, after=0)
    say(f"left alone: {steps} steps, a start takes {start_up:.1f} s")

    rng = random.Random(seed)
    plan = [kind for kind, settings in KINDS.items() for _ in range(settings.share)]
    plan = [plan[i % len(plan)] for i in range(kills)] if kills >= len(plan) else plan
    rng.shuffle(plan)
    done: collections.Counter[str] = collections.Counter()
    missed, losses, starts = 0, [], []
    for number, kind in enumerate(plan[:kills], start=1):
        before, sealed = _size(trace), _sealed(run)
        draws = random.Random(rng.random())
        aim = KINDS[kind].aim

        def life(aim=aim, draws=draws):
            if aim:
                aim(draws)
            _train(run, steps, STEP_SECONDS, trace)

        child = children.start(life, log)
        fired = _let_die(child, kind, trace, before, start_up, draws)
        if child.code != -9:
            raise SystemExit(f"start {number} ended with {child.code} instead of a kill: {log}")
        if KINDS[kind].aim and not fired:
            missed, kind = missed + 1, ANY
        done[kind] += 1
        lived = _steps(trace)[before // 8 :]
        if lived:
            starts.append((lived[0], sealed))
            losses.append(lived[-1] + 1 - _sealed(run))
        left = (time.monotonic() - began) / number * (len(plan[:kills]) - number)
        say(f"kill {number}/{kills}, {kind}, at step {_reached(trace)}, {left:.0f} s left")
    last = children.start(lambda: _train(run, steps, 0.0, trace, same=STEP_SECONDS), log)
    code = children.end(last)
    executed = _steps(trace)
    recorded = [row["step"] for row in tiny.losses(run)]
    return {
        "kills": kills,
        "by instant": dict(done.most_common()),
        "aimed kills that did not come about and fell at another time": missed,
        "steps of the run": steps,
        "checkpoint every": CHECKPOINT_EVERY,
        "last start ended with": code,
        "losses.jsonl is that of the run left alone, byte for byte": (
            (run / metrics.LOSSES).read_bytes() == (alone / metrics.LOSSES).read_bytes()
        ),
        "steps missing in it": len(set(range(steps)) - set(recorded)),
        "steps twice in it": len(recorded) - len(set(recorded)),
        "weights are those of the run left alone, bit for bit": (
            children.end(children.start(lambda: _same_weights(run, alone), log)) == 0
        ),
        "steps computed": len(executed),
        "of them repeated": len(executed) - len(set(executed)),
        "most repeated after one kill": max(losses, default=0),
        "starts that did not begin at the newest complete checkpoint": sum(
            first != sealed for first, sealed in starts
        ),
        "checkpoints passed over because their save was not completed": log.read_text("utf8").count(
            "is passed over: its save was not completed"
        ),
        "seconds": round(time.monotonic() - began),
    }


def failures(result: dict) -> list[str]:
    """What a soak must not show."""
    bad = []
    for key, value in result.items():
        if (key.startswith(("losses.jsonl", "weights")) and not value) or (
            key.startswith(("steps missing", "steps twice", "starts that", "last start")) and value
        ):
            bad.append(f"{key}: {value}")
    # A save in flight does not count, and the next one waits for it.
    if result["most repeated after one kill"] > 2 * CHECKPOINT_EVERY + metrics.MOST_IN_FLIGHT:
        bad.append(f"most repeated after one kill: {result['most repeated after one kill']}")
    return bad


def _let_die(child, kind, trace, before, start_up, rng) -> bool:
    """Waits for the death of a start, or brings it about; whether it came from inside."""
    settings = KINDS[kind]
    if kind == ANY:
        return not children.kill(child, after=rng.uniform(0, 1.5 * start_up))
    if _until_grown(trace, before, child) is None:
        return True  # dead before its first step
    if settings.aim is None:
        return not children.kill(child, after=rng.uniform(0, 1.5))
    return not children.kill(child, after=SOON if settings.early else PATIENCE)


def _train(run_dir, steps, delay, trace, same=None) -> None:
    """Trains, and notes every step as it is given to the device."""
    add = metrics.Meter.add
    file = os.open(trace, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def noting(self, step, values):
        os.write(file, struct.pack("<q", step))
        add(self, step, values)

    metrics.Meter.add = noting
    config = tiny.on_one_device(steps=steps)
    config.checkpoint_every, config.log_every = CHECKPOINT_EVERY, LOG_EVERY
    config.streams.rows.delay = delay if same is None else same
    if same is not None:  # the config of a run may not change, but nobody has to wait any more
        tiny.time.sleep = lambda seconds: None
    train(config, run_dir)


def _same_weights(one: pathlib.Path, other: pathlib.Path) -> None:
    left, right = (checkpoint.load_params(run)[1] for run in (one, other))
    if tiny.weights(left).tobytes() != tiny.weights(right).tobytes():
        raise AssertionError("other weights")


def _until_grown(trace: pathlib.Path, size: int, child) -> float | None:
    """Seconds until a start has made its first step; None if it died before."""
    began = time.monotonic()
    while _size(trace) <= size:
        if not children.alive(child):
            return None
        time.sleep(0.002)
    return time.monotonic() - began


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _steps(trace: pathlib.Path) -> list[int]:
    content = trace.read_bytes() if trace.exists() else b""
    return [step for (step,) in struct.iter_unpack("<q", content)]


def _reached(trace: pathlib.Path) -> int:
    return max(_steps(trace), default=-1) + 1


def _sealed(run: pathlib.Path) -> int:
    """The newest complete checkpoint, by its manifest alone; 0 for none."""
    manifests = (run / "checkpoints" / "_integrity").glob("*.json")
    return max((int(p.stem) for p in manifests if json.loads(p.read_text("utf8"))), default=0)
