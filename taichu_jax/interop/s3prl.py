"""s3prl's checkpoints (.ckpt, by torch.save) as folders of config.json and safetensors, and back.

    APC, VQ-APC, NPC   {"model": tensors, "config": {"model": {"paras": ...}, ...}, ...}
    Mockingjay, TERA,  {"Transformer": tensors, "SpecHead": tensors,
    Audio ALBERT        "Config" or "Upstream_Config": {"transformer": ..., "task": ...}, ...}

PyTorch is needed for both. It reads with weights_only=True, which runs no code of the file: tensors,
numbers, texts, lists and dictionaries, and the argparse.Namespace of the arguments that s3prl keeps
beside. What trained it (optimiser, step, arguments) is left behind.

NPC's folder has the weights that it computes with: those of its masked convolutions at hidden offsets,
which its `conv_mask` multiplies with zero, are zero there, and stay so on the way back; the masks follow
from the settings. How many batches its batch norms have seen, which changes no result, is in config.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from taichu_jax.errors import UserError
from taichu_jax.interop.tensors import read_json, read_tensors, write_json, write_tensors
from taichu_jax.training.files import PARTIAL, writing

APC, NPC, TRANSFORMER = "s3prl_apc", "s3prl_npc", "s3prl_transformer"
_NAMES = ("Transformer", "SpecHead")
_COUNT = "num_batches_tracked"


def to_folder(checkpoint: str | Path, folder: str | Path) -> None:
    """Writes config.json and model.safetensors of a checkpoint.

    Raises:
      UserError: PyTorch is not here, the file is damaged or would run code, or it is of another kind.
    """
    values, tensors = _described(_loaded(Path(checkpoint)), str(checkpoint))
    write_tensors(folder, tensors)
    write_json(Path(folder) / "config.json", values)


def to_checkpoint(folder: str | Path, checkpoint: str | Path) -> None:
    """Writes what `to_folder` reads.

    Raises:
      UserError: PyTorch is not here, the folder is of another kind, or the file exists.
    """
    torch, folder, checkpoint = _torch(checkpoint), Path(folder), Path(checkpoint)
    values = read_json(folder / "config.json")
    kind = values.pop("model_type", None)
    if kind not in (APC, NPC, TRANSFORMER):
        valid = f"{APC}, {NPC}, {TRANSFORMER}"
        raise UserError(f"s3prl:{checkpoint}: model_type={kind!r}; valid: {valid}")
    if checkpoint.exists():
        raise UserError(f"s3prl:{checkpoint}: exists")
    tensors = {
        name: torch.from_numpy(np.array(x, np.float32)) for name, x in read_tensors(folder).items()
    }
    states: dict[str, Any]
    if kind != TRANSFORMER:
        kept = values.pop("config", {})
        counts = values.pop(_COUNT, {})
        tensors |= {name: torch.tensor(count) for name, count in counts.items()}
        if kind == NPC:
            tensors |= {
                f"{name}.conv_mask": torch.from_numpy(mask)
                for name, mask in _masks(values, tensors).items()
            }
        for key in ("input_size", "dtype", "torch_dtype"):
            values.pop(key, None)
        states = {"model": tensors, "config": {**kept, "model": {"paras": values}}}
    else:
        kept = values.pop("config", {})
        task = {**kept.get("task", {}), "sequence_length": values.pop("sequence_length", 0)}
        states = {"Config": {**kept, "transformer": values, "task": task}}
        for part in _NAMES:
            found = {
                name.removeprefix(f"{part}."): x
                for name, x in tensors.items()
                if name.startswith(f"{part}.")
            }
            if found:
                states[part] = found
    partial = checkpoint.with_name(checkpoint.name + PARTIAL)
    with writing(checkpoint):
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.save(states, partial)
        partial.replace(checkpoint)


def _torch(checkpoint: str | Path):
    try:
        import torch
    except ImportError as error:
        raise UserError(f"s3prl:{checkpoint}: needs PyTorch: pip install torch") from error
    return torch


def _loaded(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise UserError(f"s3prl:{path}: no such file")
    torch = _torch(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: no zip file, not a pickle, a pickle that runs code
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"s3prl:{path}: cannot be read safely: {reason}") from error
    if not isinstance(found, Mapping):
        raise UserError(f"s3prl:{path}: holds no dictionary")
    return found


def _described(
    states: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(values for config.json, tensors)."""
    try:
        if "model" in states and "config" in states:
            return _predictive(states, where)
        if "Transformer" in states:
            return _transformer(states)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"s3prl:{where}: lacks {error}") from error
    known = "model and config (APC, VQ-APC, NPC), or Transformer (Mockingjay, TERA, Audio ALBERT)"
    raise UserError(f"s3prl:{where}: holds {', '.join(map(str, states))}; valid: {known}")


def _predictive(states, where):
    tensors = _arrays(states["model"])
    recurrent, masked = (
        any(name.startswith(f"{part}.") for name in tensors)
        for part in ("rnn_layers", "masked_convs")
    )
    if not (recurrent or masked):
        wrong = "has no recurrent layers and no masked convolutions"
        raise UserError(f"s3prl:{where}: {wrong}; valid: APC, VQ-APC and NPC")
    config = _plain(states["config"])
    bands = len(tensors["postnet.bias"])
    kept = {key: value for key, value in config.items() if key != "model"}
    values = {**config["model"]["paras"], "input_size": bands, "config": kept}
    if recurrent:
        return values | {"model_type": APC}, tensors
    for name, mask in _masks(values, tensors).items():
        if not np.array_equal(tensors.pop(f"{name}.conv_mask", mask), mask):
            wrong = f"{name}.conv_mask is not that of kernel_size={values['kernel_size']}"
            raise UserError(f"s3prl:{where}: {wrong} and mask_size={values['mask_size']}")
        weight = tensors[f"{name}.conv.weight"]
        tensors[f"{name}.conv.weight"] = np.where(mask > 0, weight, np.zeros_like(weight))
    counts = {name: int(tensors.pop(name)) for name in sorted(tensors) if name.endswith(_COUNT)}
    return values | {"model_type": NPC, _COUNT: counts}, tensors


def _masks(values: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The masks of NPC's masked convolutions: 0 at mask_size + 2 i offsets in block i = 1, 2, ..."""
    size, masks = values["kernel_size"], {}
    for i in range(values["n_blocks"]):
        name = f"masked_convs.{i}"
        if f"{name}.conv.weight" in tensors:
            mask = np.ones(tuple(tensors[f"{name}.conv.weight"].shape), np.float32)
            hidden = values["mask_size"] + 2 * (i + 1)
            first = (size - hidden) // 2
            mask[:, :, first : first + hidden] = 0
            masks[name] = mask
    return masks


def _transformer(states):
    config = states.get("Config", {})
    if "transformer" not in config:
        config = states["Upstream_Config"]
    config = _plain(config)
    tensors = {}
    for part in _NAMES:
        tensors |= {f"{part}.{k}": v for k, v in _arrays(states.get(part, {})).items()}
    front = tensors["Transformer.input_representations.spec_transform.weight"]
    values = dict(config["transformer"])
    values |= {
        "model_type": TRANSFORMER,
        "input_dim": front.shape[1],
        "sequence_length": config.get("task", {}).get("sequence_length", 0),
        "config": {key: value for key, value in config.items() if key != "transformer"},
    }
    if "SpecHead.output.bias" in tensors:
        values["output_dim"] = len(tensors["SpecHead.output.bias"])
    # kept as texts or numbers there, by whoever wrote the YAML
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        values[key] = int(values[key])
    for key in ("share_layer", "pre_layer_norm"):
        values[key] = bool(values.get(key, False))
    values["layer_norm_eps"] = float(values["layer_norm_eps"])
    return values, tensors


def _arrays(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A state dictionary in NumPy; of several GPUs' names without their 'module.'."""
    return {
        name.removeprefix("module."): tensor.detach().cpu().numpy()
        for name, tensor in state.items()
    }


def _plain(value: Any) -> Any:
    """What JSON can say; anything else as its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
