"""Runs from folders of the Hugging Face layout, and back.

    RUN/config.json, checkpoints/0/      networks, objectives that can train them, and the weights
    RUN/hf/config.json, tensors.json     what the folder said, and its tensors' names and types
    RUN/hf/*                             its tokeniser and processor, unread

Such a run can be evaluated, and other runs can start from it (`config.restore`). Ids of tokens are
those of its own vocabulary, which no tokeniser of this project reads.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from taichu_jax.config import build, choices, differences, spec
from taichu_jax.errors import UserError
from taichu_jax.interop import tensors as files
from taichu_jax.interop.architecture import Architecture, Specs
from taichu_jax.interop.architectures import ARCHITECTURES
from taichu_jax.interop.rules import Table, to_ours, to_theirs, unscanned
from taichu_jax.interop.settings import Settings
from taichu_jax.training.checkpoint import Checkpoints, load_params
from taichu_jax.training.directory import RunDirectory, load_config
from taichu_jax.training.experiment import Experiment, defaults
from taichu_jax.training.files import writing
from taichu_jax.training.nets import InitNets, merge
from taichu_jax.training.optim import AdamW, Rule, paths

PyTree = Any
CONFIG, PROCESSOR, NAMES = "config.json", "preprocessor_config.json", "tensors.json"
KEPT = "hf"
SIDE_FILES = ("*.json", "*.txt", "*.model")  # vocabularies and such
DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
# Change no output of trained weights, the last one only for pictures of another size.
FREE = ("dropout", "stack", "gradient_scale", "initial", "interpolation")


@dataclasses.dataclass(frozen=True)
class Model:
    """A folder of the Hugging Face layout, read.

    Attributes:
      networks: specs by name.
      params: network -> parameters, float32.
      anew: paths of parameters that are not in the files and have fresh values, as a head has that a
        file of the encoder alone lacks.
      types: name of every tensor in the files -> its type.
      left_out: how many tensors there are for which there is no network, by the pattern of their names.
    """

    architecture: Architecture
    settings: Settings
    table: Table
    networks: dict[str, ConfigDict]
    params: PyTree
    anew: list[str]
    types: dict[str, str]
    left_out: dict[str, int]


def read_model(folder: str | Path, skip: str = "") -> Model:
    """Reads config.json and safetensors.

    Args:
      skip: a pattern of tensors that are left out though no rule knows them.

    Raises:
      UserError: it is of an architecture or has a setting that is not supported, or names every weight
        that is missing, unexpected or of another shape.
    """
    folder = Path(folder)
    settings = Settings(files.read_json(folder / CONFIG), str(folder / CONFIG))
    architecture = _known(settings("model_type"), str(folder / CONFIG))
    processor = {}
    if (folder / PROCESSOR).is_file():
        processor = files.read_json(folder / PROCESSOR)
    tensors = files.read_tensors(folder)
    try:
        table = architecture.table(settings)
        parts = table.present(table.canonical(tensors).values())
        networks = architecture.networks(settings, parts, processor)
        shapes = jax.eval_shape(_creation(architecture, networks))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{settings.where}: its values do not fit: {reason}") from error
    params = to_ours(table, tensors, shapes, where=str(folder), skip=skip)
    anew = sorted(set(paths(shapes)) - set(paths(params)))
    if anew:
        create = _creation(architecture, networks)
        fresh = jax.jit(lambda: {path: paths(create())[path] for path in anew})()
        params = merge(params, traverse_util.unflatten_dict(fresh, sep="/"))
    types = {name: tensor.dtype.name for name, tensor in tensors.items()}
    left_out = {
        pattern: sum(bool(re.search(pattern, name)) for name in tensors)
        for pattern in table.left_out
    }
    return Model(architecture, settings, table, networks, params, anew, types, left_out)


def _creation(architecture: Architecture, networks: Specs) -> Callable[[], PyTree]:
    """Creates all parameters of the networks."""
    modules = {name: build(network, name) for name, network in networks.items()}

    def create():
        nets = InitNets(modules, jax.random.key(0), owner="conversion", teacher_names=())
        architecture.touch(nets, networks)
        return nets.trained

    return create


def to_run(folder: str | Path, run_dir: str | Path, skip: str = "", name: str = "") -> list[str]:
    """Makes a run of a folder; returns what there is to tell.

    Args:
      name: the run's `config.name`; by default the folder's.

    Raises:
      UserError: see `read_model`; or `run_dir` is not empty.
    """
    folder, run_dir = Path(folder), Path(run_dir)
    model = read_model(folder, skip)
    streams, objectives, more = model.architecture.training(model.settings, model.networks)
    config = defaults()
    config.name = name or folder.resolve().name
    config.streams, config.objectives = ConfigDict(streams), ConfigDict(objectives)
    config.networks = ConfigDict({**more, **model.networks})
    config.evaluations = ConfigDict(model.architecture.evaluations(streams))
    config.optimizer = spec(AdamW, learning_rate=1e-4)
    still = [
        spec(Rule, pattern=f"^{name}/", rate=0.0, decay=0.0)
        for name in model.architecture.still(model.networks)
    ]
    config.optimizer.rules = (*still, *config.optimizer.rules)
    experiment = Experiment.from_config(config, jax.devices()[:1])
    state = experiment.init()
    params = merge(model.params, state.params)  # of two leaves on one path the first counts
    teachers = {
        name: {
            network: _copy_of(params.get(network, tree), tree) for network, tree in trees.items()
        }
        for name, trees in state.teachers.items()
    }
    params = jax.tree.map(jnp.asarray, params)
    state = dataclasses.replace(state, params=params, teachers=teachers)
    with RunDirectory(run_dir, config, resume=False):
        checkpoints = Checkpoints(run_dir)
        checkpoints.save(state, 0, {"from": "hf"})
        checkpoints.wait()
        _keep(folder, run_dir / KEPT, model)
    anew = sorted({*model.anew, *(set(paths(params)) - set(paths(model.params)))})
    notes = [
        f"no network here, left out: {count} tensors {pattern}"
        for pattern, count in model.left_out.items()
        if count
    ]
    return notes + [f"not in {folder}, initialised anew: {path}" for path in anew]


def to_folder(
    run_dir: str | Path,
    folder: str | Path,
    *,
    step: int | None = None,
    architecture: str = "",
    dtype: str = "",
    shard_bytes: int = files.SHARD_BYTES,
) -> list[str]:
    """Writes a run's weights as config.json and safetensors; returns what there is to tell.

    Args:
      step: which checkpoint; None for the newest.
      architecture: a model_type; by default that of the folder the run was made of, or else the one
        whose settings can say what the run's networks are.
      dtype: of all tensors; by default that of the tensors that the run was made of, or float32.

    Raises:
      UserError: the networks are of no architecture, or `folder` is not empty.
    """
    run_dir, folder = Path(run_dir), Path(folder)
    if dtype and dtype not in DTYPES:
        raise UserError(f"--dtype={dtype}; {choices(dtype, DTYPES)}")
    if architecture:
        _known(architecture, "--architecture")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty")
    config = load_config(run_dir)
    step, params = load_params(run_dir, step)
    params = jax.tree.map(np.asarray, unscanned(params))
    kept = run_dir / KEPT
    values, processor, types = None, {}, {}
    if (kept / CONFIG).is_file():
        values = files.read_json(kept / CONFIG)
        if architecture not in ("", values.get("model_type")):
            values = None
    if values is not None:
        found = _known(values.get("model_type", ""), str(kept / CONFIG))
        types = files.read_json(kept / NAMES)
    else:
        found, values = _described(config.networks, params, architecture, str(run_dir))
        processor = found.processor(config.networks)
    table = found.table(Settings(values, str(run_dir)))
    canonical, left = to_theirs(table, params, where=str(run_dir))
    tensors, rounded = _typed(table, canonical, types, dtype)
    if dtype or ("dtype" not in values and not types):
        values = {k: v for k, v in values.items() if k != "torch_dtype"}
        values["dtype"] = dtype or "float32"
    files.write_tensors(folder, tensors, shard_bytes)
    files.write_json(folder / CONFIG, values)
    if processor:
        files.write_json(folder / PROCESSOR, processor)
    if types:
        _copy(kept, folder, but=(CONFIG, NAMES))
    notes = [f"no place in {found.model_type}, left out: {path}" for path in left]
    lost = sum(bool(re.search(p, name)) for name in types for p in table.left_out)
    if lost:
        notes.append(f"not in {run_dir}, missing now: {lost} tensors for which it has no network")
    return notes + [f"rounded to {tensors[name].dtype.name}: {name}" for name in rounded]


def _known(model_type: Any, where: str) -> Architecture:
    if str(model_type) not in ARCHITECTURES:
        wrong = f"{where}: model_type={model_type!r}"
        raise UserError(f"{wrong}; {choices(str(model_type), ARCHITECTURES)}")
    return ARCHITECTURES[model_type]


def _copy_of(tree: PyTree, like: PyTree) -> PyTree:
    """The part of `tree` that has the paths of `like`."""
    if not isinstance(like, Mapping):
        return jnp.array(tree, copy=True)
    return {key: _copy_of(tree[key], like[key]) for key in like}


def _keep(source: Path, kept: Path, model: Model) -> None:
    with writing(kept):
        kept.mkdir()
        _copy(source, kept, but=(CONFIG, files.INDEX, NAMES))
        files.write_json(kept / CONFIG, model.settings.values)
        files.write_json(kept / NAMES, model.types)


def _copy(source: Path, target: Path, but: tuple[str, ...]) -> None:
    for pattern in SIDE_FILES:
        for path in sorted(source.glob(pattern)):
            if path.is_file() and path.name not in but:
                with writing(target / path.name):
                    shutil.copyfile(path, target / path.name)


def _described(
    networks: ConfigDict, params: PyTree, wanted: str, where: str
) -> tuple[Architecture, dict[str, Any]]:
    """The architecture whose settings say what most of these networks are, and these settings.

    Of several the first one: CLIP has networks that alone are a ViT, but more than these.
    """
    reasons, fitting = {}, []
    for name, architecture in ARCHITECTURES.items():
        if wanted in ("", name):
            values, described, reason = _settings_of(architecture, networks, params)
            if reason:
                reasons[name] = reason
            else:
                fitting.append((described, architecture, values))
    if fitting:
        _, architecture, values = max(fitting, key=lambda fit: fit[0])
        return architecture, values
    raise UserError(
        f"{where}: its networks are of no known architecture: "
        + "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    )


def _settings_of(
    architecture: Architecture, networks: ConfigDict, params: PyTree
) -> tuple[dict[str, Any], int, str]:
    """(settings, how many networks they describe, '') or ({}, 0, why these are none)."""
    try:
        table = architecture.table(Settings(architecture.settings(networks, ()), "run"))
        parts = table.held(paths(params))
        values = architecture.settings(networks, parts)
        again = architecture.networks(
            Settings(values, "run"), parts, architecture.processor(networks)
        )
    except KeyError as error:
        return {}, 0, f"needs a network {error.args[0]}"
    except (AttributeError, TypeError, StopIteration) as error:
        return {}, 0, f"has networks of another kind ({str(error).splitlines()[0]})"
    except UserError as error:
        return {}, 0, str(error)
    for name, network in again.items():
        if name not in networks:
            return {}, 0, f"needs a network {name!r}"
        lines = differences(_fixed(networks[name]), _fixed(network))
        if lines:
            return {}, 0, f"{name}.{lines[0]}"
    return values, len(again), ""


def _fixed(network: ConfigDict) -> ConfigDict:
    return ConfigDict({k: v for k, v in network.items() if k not in FREE})


def _typed(
    table: Table, canonical: Mapping[str, np.ndarray], types: Mapping[str, str], dtype: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """(tensors under the names and in the types of the files they came from, which lost digits)."""
    names = {new: (old, types[old]) for old, new in table.canonical(types).items()}
    found = dict(canonical)
    for repeated, original in table.tied.items():
        if repeated in names:
            found[repeated] = canonical[original]
            if original not in names:
                found.pop(original, None)
    tensors, rounded = {}, []
    for new, tensor in found.items():
        old, kind = names.get(new, (new, "float32"))
        tensors[old] = tensor.astype(DTYPES[dtype or kind])
        if not np.array_equal(tensors[old].astype(np.float32), tensor):
            rounded.append(old)
    return tensors, rounded
