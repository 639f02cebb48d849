"""Checkpoints: saved by Orbax while training goes on, sealed by our own sha256 manifests.

    RUN/checkpoints/500/                   written by Orbax under another name, then renamed
    RUN/checkpoints/_integrity/500.json    {file: [bytes, sha256]}, written last

Orbax finds torn files but not a flipped bit among the weights, so a checkpoint counts only if every
file has the size and hash that its manifest says. A checkpoint is data, nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from taichu_jax.errors import UserError
from taichu_jax.training.files import write_whole
from taichu_jax.training.optim import paths
from taichu_jax.training.state import TrainState

PyTree = Any
FOLDER = "checkpoints"
_SEALS = "_integrity"


class Checkpoints:
    """The checkpoints of one run.

    Args:
      run_dir: the run's folder.
      keep: how many of the newest stay.

    Raises:
      UserError: the folder cannot be written.
    """

    def __init__(self, run_dir: str | Path, keep: int = 2):
        self.folder = Path(run_dir).absolute() / FOLDER
        self._keep = keep
        self._saving: threading.Thread | None = None
        self._error: Exception | None = None
        if jax.process_index() == 0:
            try:
                (self.folder / _SEALS).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _cannot_write(self.folder, error) from error
            for unfinished in self.folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(unfinished, ignore_errors=True)

    def save(self, state: TrainState, step: int, metadata: Mapping[str, Any]) -> None:
        """Starts to save; returns as soon as the state may be overwritten.

        Args:
          state: the state after `step` updates.
          metadata: JSON values that are stored along.

        Raises:
          UserError: this one or the one before could not be written.
        """
        self.wait()
        try:
            if jax.process_index() == 0:
                _remove(self._seal(step))
                if not (self.folder / str(step)).is_dir():
                    _remove(self.folder / str(step))
            response = ocp.save_checkpointables_async(
                self.folder / str(step), _split(state), overwrite=True, custom_metadata=metadata
            )
        except Exception as error:  # TensorStore's and Orbax's are of many kinds
            raise _cannot_write(self.folder, error) from error
        self._saving = threading.Thread(target=self._finish, args=(step, response), daemon=True)
        self._saving.start()

    def wait(self) -> None:
        """Returns when the last save is complete and sealed.

        Raises:
          UserError: it could not be written.
        """
        if self._saving is not None:
            self._saving.join()
            self._saving = None
        self.check()

    def check(self) -> None:
        """Like `wait`, of what is known by now; does not wait."""
        if self._error is not None:
            error, self._error = self._error, None
            raise _cannot_write(self.folder, error) from error

    def restore(self, like: TrainState) -> tuple[TrainState | None, int, list[str]]:
        """The newest state that is whole: (state, step, what was passed over and why).

        Args:
          like: shapes, types and shardings (`Experiment.abstract_state`), of any mesh.

        Returns:
          (None, 0, ...) where no save was ever completed.

        Raises:
          UserError: there were complete checkpoints, but all are damaged; or it does not fit `like`.
        """
        step = -1
        skipped: list[str] = []
        if jax.process_index() == 0:
            step, skipped = newest(self.folder)
            for later in steps(self.folder):
                if step >= 0 and later > step:  # damaged: it must not count among the newest
                    _remove(self._seal(later))
        if jax.process_count() > 1:  # one process decides, so that all read the same step
            step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
        if step < 0:
            return None, 0, skipped
        where = self.folder / str(step)
        _check_params(where, like.params)
        try:
            saved = ocp.load_checkpointables(where, _split(like))
        except Exception as error:  # Orbax raises many kinds for a tree that differs
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(f"{where}: does not fit this config: {reason}") from error
        return TrainState(params=saved["params"], **saved["rest"]), step, skipped

    def _finish(self, step: int, response: Any) -> None:
        try:
            response.result()
            if jax.process_index() == 0:
                seal(self.folder, step)
                self._prune()
        except Exception as error:
            self._error = error

    def _prune(self) -> None:
        """Deletes all but the newest sealed ones. The seal goes first: what has one is complete."""
        sealed = [step for step in steps(self.folder) if self._seal(step).is_file()]
        for step in steps(self.folder):
            if step < min(sealed[: self._keep]):
                _remove(self._seal(step))
                _remove(self.folder / str(step))

    def _seal(self, step: int) -> Path:
        return self.folder / _SEALS / f"{step}.json"


def load_params(run_dir: str | Path, step: int | None = None) -> tuple[int, PyTree]:
    """(step, parameters) of a run on one device, to evaluate or to start a teacher from.

    Args:
      step: which checkpoint; None for the newest that is whole.

    Raises:
      UserError: there is none.
    """
    folder = Path(run_dir).absolute() / FOLDER
    if step is None:
        step, skipped = newest(folder)
        if step < 0:
            why = f" ({'; '.join(skipped)})" if skipped else ""
            raise UserError(f"{run_dir}: holds no checkpoint{why}")
    elif reason := damage(folder, step):
        valid = ", ".join(map(str, steps(folder))) or "(none)"
        raise UserError(f"{run_dir}: checkpoint {step}: {reason}; there are: {valid}")
    where = folder / str(step)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), _saved_params(where)
    )
    return step, ocp.load_checkpointables(where, {"params": like})["params"]


def newest(folder: Path) -> tuple[int, list[str]]:
    """(newest checkpoint that is whole or -1, one line for each newer one that is not).

    Raises:
      UserError: every checkpoint that was once complete is damaged.
    """
    skipped: list[str] = []
    sealed = False
    for step in steps(folder):
        reason = damage(folder, step)
        if not reason:
            return step, skipped
        sealed |= (folder / _SEALS / f"{step}.json").exists()
        skipped.append(f"checkpoint {step} is passed over: {reason}")
    if sealed:
        raise UserError(f"{folder}: no checkpoint is whole: {'; '.join(skipped)}")
    return -1, skipped


def steps(folder: Path) -> list[int]:
    """The steps of finished checkpoints, sealed or not, newest first."""
    found = {p.name for p in folder.glob("[0-9]*")} if folder.is_dir() else set()
    found |= {p.stem for p in (folder / _SEALS).glob("[0-9]*.json")}
    return sorted((int(name) for name in found if name.isdigit()), reverse=True)


def seal(folder: Path, step: int) -> None:
    """Writes the manifest of a complete checkpoint."""
    root = folder / str(step)
    files = sorted(p for p in root.rglob("*") if p.is_file())
    content = {p.relative_to(root).as_posix(): [p.stat().st_size, _sha256(p)] for p in files}
    write_whole(folder / _SEALS / f"{step}.json", _manifest(content))


def damage(folder: Path, step: int) -> str:
    """What is wrong with a checkpoint; empty if every file is what its manifest says."""
    manifest = folder / _SEALS / f"{step}.json"
    if not manifest.exists():
        there = (folder / str(step)).is_dir()
        return (
            "its save was not completed (no manifest)" if there else "there is no such checkpoint"
        )
    try:
        text = manifest.read_text("utf8")
        files = json.loads(text)
        expected = [(folder / str(step) / name, *files[name]) for name in files]
        if not all(len(entry) == 3 and _is_inside(folder, entry[0]) for entry in expected):
            return "its manifest is damaged"
    except OSError as error:
        return f"its manifest cannot be read ({error.strerror})"
    except (ValueError, TypeError, AttributeError):
        return "its manifest is damaged"
    if not expected:
        return "its manifest is empty"
    if text != _manifest(files):  # it is read, but is not what `seal` writes
        return "its manifest is damaged"
    for path, size, digest in expected:
        name = path.relative_to(folder)
        try:
            if path.is_dir():
                return f"{name} is a folder"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes instead of {size}"
            if _sha256(path) != digest:
                return f"{name} has changed (sha256)"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def _is_inside(folder: Path, path: Path) -> bool:
    return path.is_relative_to(folder) and ".." not in path.parts


def _manifest(files: Mapping[str, Any]) -> str:
    return json.dumps(files, indent=1) + "\n"


def misfit(saved: PyTree, wanted: PyTree) -> str:
    """The first way in which saved parameters are not what is wanted; empty if they are."""
    saved, wanted = paths(saved), paths(wanted)
    for path in sorted(saved.keys() | wanted.keys()):
        if path not in saved:
            return f"lacks {path}"
        if path not in wanted:
            return f"has {path}, which the config does not"
        if tuple(saved[path].shape) != tuple(wanted[path].shape):
            return f"{path} is {tuple(saved[path].shape)}, not {tuple(wanted[path].shape)}"
    return ""


def _split(state: TrainState) -> dict[str, PyTree]:
    """Parameters apart from the rest, so that they can be read alone."""
    rest = {k: getattr(state, k) for k in ("step", "opt_state", "teachers", "memory")}
    if state.balance is not None:  # most have none, and keep the form that they always had
        rest["balance"] = state.balance
    return {"params": state.params, "rest": rest}


def _saved_params(where: Path) -> PyTree:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ocp.checkpointables_metadata(where).metadata["params"]


def _check_params(where: Path, wanted: PyTree) -> None:
    if reason := misfit(_saved_params(where), wanted):
        raise UserError(f"{where}: does not fit this config: {reason}")


def _remove(path: Path) -> None:
    """Whatever it is: what should be a file may have become a folder, and the other way round."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cannot_write(folder: Path, error: Exception) -> UserError:
    told = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    reason = told.splitlines()[0]
    return UserError(f"{folder}: cannot write a checkpoint: {reason}")
