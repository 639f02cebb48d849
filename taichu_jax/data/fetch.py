"""Gets the Tux Paint stamp collection: a given folder, the Debian package, or the shipped sample.

The package (161 MB, GPL-2+) comes through `apt-get download`, which needs no root, works with
private state folders and goes on where it was interrupted. The archive's hash is compared with the
signed index's before anything of it is used. Nothing is installed.
"""

import dataclasses
import hashlib
import re
import shutil
import subprocess
import time
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from taichu_jax.data.archive import unpack_deb
from taichu_jax.errors import UserError

PACKAGE = "tuxpaint-stamps-default"
INSIDE = Path("usr/share/tuxpaint/stamps")
SAMPLE = Path(__file__).resolve().parents[2] / "sample"


class _Unavailable(Exception):
    """The package cannot be had here. The message says why."""


@dataclasses.dataclass(frozen=True)
class Collection:
    """Where the stamps are, which data they are, and a line that says so."""

    path: Path  # the folder that holds the category folders
    kind: str  # 'package', 'source' or 'sample'
    message: str


def collection(data_dir: str | Path, source: str | Path | None = None) -> Collection:
    """The stamp collection; downloaded once into `data_dir/downloads`, then reused.

    Args:
      data_dir: where data live.
      source: a collection that is already here: the stamps folder, or a root that contains
        usr/share/tuxpaint/stamps.

    Raises:
      UserError: `source` holds no stamps. A wrong source never falls back to other data.
    """
    if source is not None:
        path = _stamps_in(Path(source))
        return Collection(path, "source", f"data: the stamps in {path} (source)")
    try:
        path = _package(Path(data_dir) / "downloads" / PACKAGE)
    except _Unavailable as error:
        path = _stamps_in(SAMPLE)
        return Collection(path, "sample", f"data: only the small shipped sample, because {error}")
    return Collection(path, "package", f"data: the Debian package {PACKAGE} (package)")


def _stamps_in(root: Path) -> Path:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    path = root / INSIDE if (root / INSIDE).is_dir() else root
    if not any(folder.is_dir() and any(folder.rglob("*.txt")) for folder in path.iterdir()):
        raise UserError(f"{root}: holds no stamps (looked for CATEGORY/**/NAME.txt)")
    return path


def _package(work: Path) -> Path:
    """The unpacked package below `work`; a finished folder is recognised by its name."""
    unpacked = work / "unpacked"
    if not unpacked.is_dir():
        partial = work / "unpacked.partial"
        shutil.rmtree(partial, ignore_errors=True)
        for skipped in unpack_deb(_download(work), partial):
            print(f"left out of the package: {skipped.path}: {skipped.reason}", flush=True)
        partial.rename(unpacked)
    return _stamps_in(unpacked)


def _apt(work: Path, *command: str) -> list[str]:
    state = {
        "Dir::State::Lists": work / "lists",
        "Dir::Cache": work / "cache",
        "Acquire::Retries": 1,
        "Acquire::http::Timeout": 30,
    }
    return ["apt-get", "-q", *(f"-o{key}={value}" for key, value in state.items()), *command]


def _run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise _Unavailable(f"apt-get failed ({reason})")
    return done.stdout


def _download(work: Path) -> Path:
    """Downloads the .deb into `work` (or finds it there complete) and returns its path."""
    if shutil.which("apt-get") is None:
        raise _Unavailable("this machine has no apt-get")
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    _run(_apt(work, "update"), work)
    name, size, kind, digest = _announced(
        _run(_apt(work, "--print-uris", "download", PACKAGE), work)
    )
    deb = work / name
    columns = ("[progress.description]{task.description}", BarColumn(), DownloadColumn())
    with Progress(*columns, TimeRemainingColumn(), transient=True) as progress:
        task = progress.add_task(f"downloading {PACKAGE}", total=size)
        # apt-get itself finds a complete file of the right hash and downloads nothing.
        with open(work / "download.log", "w+") as log:
            apt = subprocess.Popen(
                _apt(work, "download", PACKAGE), cwd=work, stdout=log, stderr=subprocess.STDOUT
            )
            while apt.poll() is None:
                progress.update(task, completed=sum(f.stat().st_size for f in work.glob("*.deb")))
                time.sleep(0.2)
            log.seek(0)
            lines = log.read().strip().splitlines()
    if apt.returncode or not deb.is_file() or deb.stat().st_size != size:
        raise _Unavailable(f"apt-get failed ({lines[-1] if lines else 'no reason given'})")
    with open(deb, "rb") as file:
        found = hashlib.file_digest(file, kind.lower()).hexdigest()
    if found != digest:
        deb.unlink()
        raise UserError(f"{deb}: {kind} is {found}, the index says {digest}; deleted, run it again")
    return deb


def _announced(line: str) -> tuple[str, int, str, str]:
    """(name, bytes, kind of hash, hash) of the package: 'ADDRESS' NAME.deb BYTES SHA256:..."""
    name = rf"{re.escape(PACKAGE)}[\w.+~%-]*\.deb"
    match = re.search(rf"\s({name}) (\d+) (SHA256|SHA512):([0-9a-f]{{64,128}})\b", line)
    if match is None:
        raise _Unavailable(f"apt-get names no package {PACKAGE} with a hash")
    return match[1], int(match[2]), match[3], match[4]
