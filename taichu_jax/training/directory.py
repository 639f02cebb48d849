"""The folder of one run, held by one program at a time.

config.json         the config, as it is now
tokenizer.json      the vocabulary, where the tokenizer has one
checkpoints/        see checkpoint.py
non_finite/         see non_finite.py
losses.jsonl, metrics.jsonl, tensorboard/    see metrics.py
"""

from __future__ import annotations

import dataclasses
import fcntl
import shutil
from pathlib import Path
from typing import Any, TextIO

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from taichu_jax.config import completed, differences, from_json, to_json
from taichu_jax.errors import UserError
from taichu_jax.training.experiment import defaults
from taichu_jax.training.files import PARTIAL, write_whole, writing

CONFIG, TOKENIZER, LOCK = "config.json", "tokenizer.json", "lock"

# What may differ between two starts of one run. All else would make it another experiment.
MAY_CHANGE = (
    "steps",
    "log_every",
    "checkpoint_every",
    "checkpoints_kept",
    "mesh",
    "data.threads",
    "data.workers",
    "data.dir",
    "data.source",
    "data.damaged_share",
    "evaluations",
    "non_finite",
    "non_finite_limit",
)
_MOST_SHOWN = 5


class RunDirectory:
    """Creates or takes up a run's folder; use it with `with`.

    Args:
      path: the folder.
      config: of the run.
      resume: False refuses a folder that holds a run.

    Raises:
      UserError: it cannot be written, another program has it, or it holds another run.
    """

    def __init__(self, path: str | Path, config: ConfigDict, resume: bool = True):
        if "://" in str(path):
            raise UserError(
                f"run_dir={path}: must be a folder of a file system; mount the storage "
                "(docs/scaling.md)"
            )
        self.path = Path(path)
        self._config, self._resume = config, resume
        self._lock: TextIO | None = None

    def __enter__(self) -> RunDirectory:
        if jax.process_index() != 0:  # the first process does all this for the others
            return self
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            found = sorted(p.name for p in self.path.iterdir() if not _left_over(p))
            self._lock = open(self.path / LOCK, "a")
            self._take(self._lock)
            if found and not self._resume:
                raise UserError(f"{self.path}: is not empty; name another run_dir, or resume")
            if (self.path / CONFIG).exists():
                self._check_same()
            elif found:
                raise UserError(f"{self.path}: is not empty, and no run is in it ({found[0]})")
            write_whole(self.path / CONFIG, to_json(self._config))
        except OSError as error:
            self.__exit__()
            raise UserError(f"{self.path}: cannot be used: {error.strerror}") from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def tokenizer(self, settings: Any) -> Any:
        """The run's tokenizer: the stored vocabulary, or else a trained one that is stored now."""
        if jax.process_index() == 0:
            ready_tokenizer(self.path, settings, self._config.data.dir)
        if jax.process_count() > 1:  # the others find it stored
            multihost_utils.sync_global_devices("tokenizer")
        return ready_tokenizer(self.path, settings, self._config.data.dir)

    def _take(self, lock: TextIO) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{self.path}: another program is running in it") from error

    def _check_same(self) -> None:
        old = load_config(self.path)
        lines = [line for line in differences(old, self._config) if not _may_change(line)]
        if lines:
            more = f"; and {len(lines) - _MOST_SHOWN} more" if len(lines) > _MOST_SHOWN else ""
            shown = "; ".join(lines[:_MOST_SHOWN])
            raise UserError(f"{self.path}: holds a run with another config: {shown}{more}")


def load_config(run_dir: str | Path) -> ConfigDict:
    """The config that a run was started with; keys and fields that came later have their defaults.

    Raises:
      UserError: there is none.
    """
    path = Path(run_dir) / CONFIG
    try:
        config = completed(from_json(path.read_text("utf8")))
    except FileNotFoundError as error:
        raise UserError(f"{run_dir}: holds no run (no {CONFIG})") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    for key, default in defaults().items():
        if key not in config:
            config[key] = default
    for key, default in defaults().data.items():
        if key not in config.data:
            config.data[key] = default
    return config


def ready_tokenizer(run_dir: str | Path, settings: Any, data_dir: str | Path | None = None) -> Any:
    """A tokenizer with its vocabulary, which lies in the run's folder.

    Args:
      settings: `Experiment.tokenizer`.
      data_dir: what a vocabulary that is not there yet is learnt from; None: it must be there.

    Raises:
      UserError: it is not there, or cannot be written.
    """
    fields = {f.name for f in dataclasses.fields(settings)} if settings is not None else set()
    if "file" not in fields:  # none, or one without a vocabulary
        return settings
    stored = Path(run_dir) / TOKENIZER
    if not stored.is_file():
        if data_dir is None:
            raise UserError(f"{run_dir}: holds no {TOKENIZER}")
        trained = settings.load(data_dir)
        partial = stored.with_name(stored.name + PARTIAL)
        with writing(stored):
            shutil.copyfile(trained.file, partial)
            partial.replace(stored)
    return dataclasses.replace(settings, file=str(stored)).load(data_dir)


def _left_over(path: Path) -> bool:
    """What a program may leave that ended before there was a run."""
    return path.name == LOCK or path.suffix == PARTIAL


def _may_change(line: str) -> bool:
    key = line.partition(":")[0]
    return any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)
