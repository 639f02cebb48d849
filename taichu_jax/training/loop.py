"""A run from its config to its last checkpoint."""

from __future__ import annotations

import contextlib
import functools
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from taichu_jax.config import to_json
from taichu_jax.data.loader import Loader
from taichu_jax.training.checkpoint import Checkpoints
from taichu_jax.training.datasets import prepare_data
from taichu_jax.training.directory import CONFIG, RunDirectory
from taichu_jax.training.experiment import Experiment
from taichu_jax.training.feed import Feed
from taichu_jax.training.metrics import Clock, Journal, Meter
from taichu_jax.training.non_finite import NonFinite
from taichu_jax.training.optim import paths
from taichu_jax.training.processes import check_shared, fatal_to_all, shared_fate
from taichu_jax.training.progress import ProgressLine
from taichu_jax.training.restore import restore_networks
from taichu_jax.training.runtime import Interrupt
from taichu_jax.training.sharding import held_rows
from taichu_jax.training.state import TrainState
from taichu_jax.training.teachers import restore_teachers


@shared_fate()
def train(config: ConfigDict, run_dir: str | Path, *, resume: bool = True) -> Path:
    """Trains to `config.steps`, from where the folder's newest good checkpoint left off.

    SIGTERM or Ctrl-C: the current step is finished and saved, and the function returns. With several
    processes, an error in one ends all; see processes.py.

    Args:
      run_dir: where all that the run leaves goes; see directory.py.
      resume: False refuses a folder that is not empty.

    Raises:
      UserError: see `Experiment.from_config`, `RunDirectory`, `Checkpoints`, `Journal`, `NonFinite`.
    """
    experiment = Experiment.from_config(config)
    with RunDirectory(run_dir, config, resume) as directory, contextlib.ExitStack() as closing:
        check_shared(directory.path / CONFIG, to_json(config))
        prepare_data(experiment.streams, config.data)
        tokenizer = directory.tokenizer(experiment.tokenizer)
        checkpoints = Checkpoints(directory.path, config.checkpoints_kept)
        closing.callback(checkpoints.wait)  # a save that has begun is finished, whatever happens
        state, start, notes = _first_state(experiment, checkpoints)
        progress = _progress(experiment, start)
        closing.callback(progress.close)
        for note in notes:
            progress.say(note)
        progress.say(_description(experiment, state, start, directory.path))
        journal = None
        if jax.process_index() == 0:
            journal = Journal(directory.path, start)
            closing.callback(journal.close)
            for note in journal.notes:
                progress.say(note)
        loader = Loader(
            experiment.streams,
            config.data.dir,
            tokenizer,
            seed=config.seed,
            start_step=start,
            rows=functools.partial(held_rows, experiment.mesh),
            threads=config.data.threads,
            workers=config.data.workers,
            damaged_share=config.data.damaged_share,
        )
        closing.callback(loader.close)
        feed = Feed(loader, experiment.mesh)
        closing.callback(feed.close)
        with Interrupt() as interrupt, fatal_to_all():
            watch = NonFinite(directory.path, config.non_finite, config.non_finite_limit)
            done = _steps(
                experiment, state, start, feed, journal, watch, checkpoints, progress, interrupt
            )
        if done < config.steps:
            progress.say(f"stopped and saved at step {done}; the same command goes on from there")
        else:
            progress.say(f"done: {config.steps} steps, {directory.path}")
    return directory.path


def _steps(
    experiment: Experiment,
    state: TrainState,
    start: int,
    feed: Feed,
    journal: Journal | None,
    watch: NonFinite,
    checkpoints: Checkpoints,
    progress: ProgressLine,
    interrupt: Interrupt,
) -> int:
    """Runs the steps from `start` on; returns how many are done and saved."""
    config = experiment.config
    metadata = {"config": to_json(config)}
    train_step, meter, clock = experiment.train_step(), Meter(), Clock()
    done = start
    while done < config.steps:
        batch = feed.next(meter.idle)
        if journal and done == 0:
            journal.show(batch)
        state, metrics = train_step(state, batch)
        meter.add(done, metrics)
        watch.add(done, batch)
        done += 1
        progress.advance(done)
        if done == start + 1:
            clock.restart(done, feed.lost)  # rates are without compilation
        last = interrupt.wanted(done) or done == config.steps
        save = last or done % config.checkpoint_every == 0
        if save or done % config.log_every == 0:
            losses, means = meter.take()
            means = {"step": done, "time": time.time()} | clock.take(done, feed.lost) | means
            rows, error = watch.look(losses)
            if journal:
                journal.write(rows, None if error else means)
            if error:
                raise error
            checkpoints.check()
            if last or done % config.log_every == 0:
                progress.log(done, means)
        if save:  # after the losses: what a checkpoint follows is on the disk, and finite
            next_step = {"data": {"next_step": done}}
            checkpoints.save(state, done, metadata | next_step)
        if last:
            break
    checkpoints.wait()
    return done


def _first_state(
    experiment: Experiment, checkpoints: Checkpoints
) -> tuple[TrainState, int, list[str]]:
    """(state, updates done, what to tell): of the newest good checkpoint, or new."""
    state, start, notes = checkpoints.restore(experiment.abstract_state())
    if state is None:
        restore, objectives = experiment.config.get("restore", {}), experiment.objectives
        state, taken = restore_networks(restore, objectives, experiment.init())
        state, notes = restore_teachers(objectives, state), notes + taken
    return state, start, notes


def _progress(experiment: Experiment, start: int) -> ProgressLine:
    names = ("loss", *(f"{name}/loss" for name in sorted(experiment.objectives)))
    if len(experiment.objectives) == 1:
        names = names[:1]
    return ProgressLine(experiment.config.steps, start, names, quiet=jax.process_index() != 0)


def _description(experiment: Experiment, state: TrainState, start: int, path: Path) -> str:
    count = sum(int(np.prod(x.shape)) for x in paths(state.params).values())
    mesh = " x ".join(f"{n} {axis}" for axis, n in experiment.mesh.shape.items() if n > 1)
    where = mesh or experiment.mesh.devices.flat[0].device_kind
    precision: Any = experiment.compute_dtype or "float32"
    begin = f"resumed at step {start}" if start else "new"
    return f"run: {path} ({begin}), {count:,} parameters, {precision}, {where}"
