"""Several processes, one program: how they find each other, and how they end together.

JAX alone bounds how long a process waits for a dead one (the heartbeat), but a process that ends with an
error of its own first waits five minutes for the others, and then dies of that instead: its exit code and
its reason are lost. `shared_fate` ends all processes at once, each with the reason and the exit code of
the one that failed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
from jax._src import distributed  # the client of the service through which processes meet
from jax.experimental import multihost_utils

from taichu_jax.errors import UserError

HEARTBEAT = 60  # seconds without a sign of life after which a process counts as dead; JAX has 100
HEARTBEAT_VARIABLE = "TAICHU_HEARTBEAT_SECONDS"  # changes it
JOINING = 300  # seconds in which all processes must have started
_PATIENCE = 30  # seconds without the others before this is said
_POLL = 1.0  # seconds between two looks at whether another process has failed
_FAILED = "taichu_jax/failed"  # where the process that fails first writes why
_SETTINGS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_SHOWN_LATE = 10  # seconds after which a file that another host wrote must be visible here


def join() -> None:
    """Makes this one of several processes; waits for the others.

    JAX finds them through Slurm, the TPU's metadata, Open MPI, or the variables JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID; what is set counts. Where all three are set, nothing is guessed.

    Raises:
      UserError: the variables make no sense, or nothing says where the others are.
    """
    given = settings(os.environ)
    heartbeat = _number(HEARTBEAT_VARIABLE, os.environ.get(HEARTBEAT_VARIABLE, str(HEARTBEAT)))
    timer = threading.Timer(_PATIENCE, _say_waiting)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **given,
            cluster_detection_method="deactivate" if len(given) == len(_SETTINGS) else None,
            initialization_timeout=JOINING,
            heartbeat_timeout_seconds=heartbeat,
        )
    except ValueError as error:
        raise UserError(
            f"--distributed true: {error} Set {', '.join(_SETTINGS)}, or start it with Slurm's srun "
            "or on every host of a TPU pod"
        ) from error
    finally:
        timer.cancel()


def settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """What the variables say, as arguments of `jax.distributed.initialize`.

    Raises:
      UserError: a number is none, or they contradict each other.
    """
    address, count, index = (environment.get(name, "") for name in _SETTINGS)
    found: dict[str, Any] = {}
    if address:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise UserError(f"{_SETTINGS[0]}={address}: must be HOST:PORT")
        found["coordinator_address"] = address
    for name, value, key in (
        (_SETTINGS[1], count, "num_processes"),
        (_SETTINGS[2], index, "process_id"),
    ):
        if value:
            found[key] = _number(name, value)
    if found.get("num_processes") == 0:
        raise UserError(f"{_SETTINGS[1]}=0: must be at least 1")
    if found.get("process_id", 0) >= found.get("num_processes", math.inf):
        raise UserError(f"{_SETTINGS[2]}={index}: must be below {_SETTINGS[1]}={count}")
    return found


def _number(name: str, text: str) -> int:
    if not text.isdigit():
        raise UserError(f"{name}={text}: must be a whole number")
    return int(text)


def started_several(environment: Mapping[str, str]) -> str:
    """The variable that says that this program was started several times as one; empty: none does."""
    for name in ("JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS"):
        value = environment.get(name, "")
        if value.isdigit() and int(value) > 1:
            return f"{name}={value}"
    return ""


def barrier(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def check_shared(path: Path, text: str) -> None:
    """Every process sees the same file, which the first one has written.

    Raises:
      UserError: a process does not see it, or would have written something else.
    """
    barrier(f"wrote {path.name}")
    if jax.process_index() == 0:
        return
    late = time.monotonic() + _SHOWN_LATE  # network file systems show for a while what was before
    while (found := _text(path)) != text and time.monotonic() < late:
        time.sleep(0.1)
    if found is None:
        raise UserError(
            f"{path}: is not there, though process 0 wrote it; all processes need the same --run_dir on "
            "a file system that all hosts share"
        )
    if found != text:
        raise UserError(f"{path}: process 0 was started with another config; all need the same")


@contextlib.contextmanager
def shared_fate() -> Iterator[None]:
    """Whatever ends one of several processes inside ends all of them, with one line and one exit code.

    2 after a UserError, as in every launcher; 1 after anything else.
    """
    if jax.process_count() == 1:
        yield
        return
    with fatal_to_all(), _watching():
        yield


@contextlib.contextmanager
def fatal_to_all() -> Iterator[None]:
    """An error that leaves this block ends all processes, before anything can wait for the dead."""
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        _fail(error)


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf8")
    except OSError:
        return None


def _fail(error: BaseException) -> NoReturn:
    code, told = 1, " ".join(str(error).split())
    of_jax = _from_jax(error)
    if isinstance(error, UserError):
        code = 1 if of_jax else 2  # a save that another's death broke is no wrong setting
    elif isinstance(error, KeyboardInterrupt):
        code, told = 130, "interrupted"
    else:
        traceback.print_exception(error)
        told = f"{type(error).__name__}: {told[:300]}"
    if of_jax:
        told += "; if another process died, that is why: start all of them again"
    who = f"process {jax.process_index()} of {jax.process_count()}"
    print(f"error: {who}: {told}", file=sys.stderr, flush=True)
    with contextlib.suppress(Exception):  # another one was first, or the service is gone
        _client().key_value_set(_FAILED, json.dumps([jax.process_index(), code, told]))
    _leave(code)


def _from_jax(error: BaseException | None) -> bool:
    """Whether JAX's runtime raised it, or what it was raised from."""
    while error is not None and not isinstance(error, jax.errors.JaxRuntimeError):
        error = error.__cause__
    return error is not None


@contextlib.contextmanager
def _watching() -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(done,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _watch(done: threading.Event) -> None:
    while not done.wait(_POLL):
        try:
            index, code, told = json.loads(_client().key_value_try_get(_FAILED))
        except jax.errors.JaxRuntimeError:  # nobody has failed
            continue
        if index != jax.process_index():
            print(f"error: process {index} failed, so this one ends: {told}", file=sys.stderr)
            _leave(code)


def _leave(code: int) -> NoReturn:
    """Ends this process when the others have read why.

    Process 0 has the service through which they read it, and without which JAX kills them: it goes last.
    """
    time.sleep((2 if jax.process_index() else 4) * _POLL)
    _exit(code)


def _client() -> Any:
    return distributed.global_state.client


def _exit(code: int) -> NoReturn:
    """Without JAX's own ending, which waits for every process."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _say_waiting() -> None:
    print(f"waiting for the other processes, {JOINING} s at most ...", file=sys.stderr, flush=True)
