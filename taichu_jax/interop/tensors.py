"""Folders of safetensors files: one file, or several with an index. Pickles are never read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from taichu_jax.errors import UserError
from taichu_jax.training.files import PARTIAL, write_whole, writing

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9  # the largest file, as transformers writes them


def read_tensors(folder: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a folder, by name, in the types of the files (bfloat16 too).

    Raises:
      UserError: there are none, or a file is damaged or missing.
    """
    folder = Path(folder)
    if not (folder / INDEX).is_file():
        if not (folder / ONE).is_file():
            other = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".h5"))
            hint = f"; {other[0]} is a pickle or such, which is never read" if other else ""
            raise UserError(f"{folder}: holds neither {ONE} nor {INDEX}{hint}")
        return _read(folder / ONE)
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f"{folder / INDEX}: has no weight_map")
    tensors: dict[str, np.ndarray] = {}
    for file in sorted(set(places.values()), key=str):
        if not isinstance(file, str) or Path(file).name != file:
            raise UserError(f"{folder / INDEX}: {file!r} is not a file of this folder")
        here = _read(folder / file)
        for name in (name for name, place in places.items() if place == file):
            if name not in here:
                raise UserError(f"{folder / file}: lacks {name}, which {INDEX} places there")
            tensors[name] = here[name]
    return tensors


def write_tensors(
    folder: str | Path, tensors: Mapping[str, np.ndarray], shard_bytes: int = SHARD_BYTES
) -> list[Path]:
    """Writes one file, or where that is larger than `shard_bytes` several and their index.

    Raises:
      UserError: they cannot be written.
    """
    folder, size = Path(folder), 0
    shards: list[dict[str, np.ndarray]] = [{}]
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name]).reshape(tensors[name].shape)
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if len(shards) == 1:
            return [_write(folder / ONE, shards[0])]
        files: list[Path] = []
        places: dict[str, str] = {}
        for i, shard in enumerate(shards, start=1):
            file = folder / f"model-{i:05}-of-{len(shards):05}.safetensors"
            files.append(_write(file, shard))
            places |= dict.fromkeys(shard, file.name)
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_json(folder / INDEX, index)
        return files


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      UserError: there is no such file, or it holds something else.
    """
    try:
        found = json.loads(path.read_text("utf8"))
    except FileNotFoundError as error:
        raise UserError(f"{path.parent}: holds no {path.name}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: is not a JSON object")
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object with sorted keys."""
    with writing(path):
        write_whole(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path.parent}: holds no {path.name}") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as safetensors: {error}") from error


def _write(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    partial = path.with_name(path.name + PARTIAL)
    try:
        save_file(tensors, partial, metadata={"format": "pt"})  # transformers refuses files without
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be written: {error}") from error
    partial.replace(path)
    return path
