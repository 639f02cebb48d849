"""Encoders of a run and of a folder of the Hugging Face layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from taichu_jax.config import build, choices
from taichu_jax.data.audio import RATE, AudioAugment
from taichu_jax.data.parts import AudioPart
from taichu_jax.errors import UserError
from taichu_jax.interop import tensors as files
from taichu_jax.interop.convert import KEPT, PROCESSOR, read_model
from taichu_jax.probing.encoder import Encoder, keeps_contract, of_network
from taichu_jax.probing.readers import (
    PictureReader,
    Reader,
    TextReader,
    WaveReader,
    our_encode,
)
from taichu_jax.probing.vocabulary import their_encode
from taichu_jax.training.run import Run

LONGEST = 128  # ids of a text, where nothing else says


def of_run(run: Run, network: str = "") -> list[Encoder]:
    """The encoders among the networks of a run, each reading what it was trained on.

    Raises:
      UserError: there is no such network, or it is no encoder.
    """
    modules = run.experiment.networks
    if network and network not in run.params:
        raise UserError(f"--network {network}: no such network; {choices(network, run.params)}")
    found = []
    for name in [network] if network else sorted(run.params):
        for modality, reader in _readers(run, modules[name]):
            if keeps_contract(modules[name], run.params[name], reader):
                params, seed = run.params[name], run.config.seed
                found.append(of_network(name, modality, reader, modules[name], params, seed))
                break
    return _checked(found, network, str(run.path))


def of_folder(folder: str | Path, network: str = "", seconds: float = 4.0) -> list[Encoder]:
    """The encoders of a folder of the Hugging Face layout.

    Args:
      seconds: of a recording that are heard.

    Raises:
      UserError: its architecture, a weight or its vocabulary is missing or not supported.
    """
    folder = Path(folder)
    model = read_model(folder)
    modules = {name: build(found, name) for name, found in model.networks.items()}
    if network and network not in modules:
        raise UserError(f"--network {network}: no such network; {choices(network, modules)}")
    normalise = True
    if (folder / PROCESSOR).is_file():
        normalise = bool(files.read_json(folder / PROCESSOR).get("do_normalize", True))
    found = []
    for name in [network] if network else sorted(modules):
        module = modules[name]
        readers: list[tuple[str, Reader]] = [
            ("speech", WaveReader(_wave(seconds, normalise))),
            ("image", PictureReader(getattr(module, "size", 224))),
        ]
        if isinstance(getattr(module, "vocab_size", None), int):
            encode = their_encode(folder, module.vocab_size)
            length = min(getattr(module, "length", LONGEST), LONGEST)
            readers = [("text", TextReader(encode, length))]
        for modality, reader in readers:
            if keeps_contract(module, model.params[name], reader):
                found.append(of_network(name, modality, reader, module, model.params[name], 0))
                break
    return _checked(found, network, str(folder))


def _checked(found: Sequence[Encoder], network: str, where: str) -> list[Encoder]:
    if not found:
        which = f"network {network!r} is no encoder" if network else "has no encoder"
        raise UserError(f"{where}: {which} of speech, pictures or text alone")
    return list(found)


def _readers(run: Run, module: Any) -> Iterator[tuple[str, Reader]]:
    """What the streams of a run give, and thus its networks may read."""
    streams = list(run.experiment.streams.values())
    for stream in streams:
        if hasattr(stream, "audio") and hasattr(stream, "parts"):
            parts = [p for p in stream.parts(run.tokenizer) if isinstance(p, AudioPart)]
            for part in parts:
                yield "speech", WaveReader(part)
    for size in sorted({s.image_size for s in streams if hasattr(s, "image_size")}):
        yield "image", PictureReader(size)
    if not isinstance(getattr(module, "vocab_size", None), int):
        return
    if (run.path / KEPT).is_dir():  # made of a folder, whose ids are its own
        encode = their_encode(run.path / KEPT, module.vocab_size)
    elif run.tokenizer is not None:
        encode = our_encode(run.tokenizer)
    else:
        return
    lengths = {s.text_length for s in streams if hasattr(s, "text_length")}
    most = getattr(module, "length", LONGEST)
    yield "text", TextReader(encode, min(most, max(lengths, default=LONGEST)))


def _wave(seconds: float, normalise: bool) -> AudioPart:
    return AudioPart(
        form="waveform",
        samples=round(seconds * RATE),
        bands=80,
        views=1,
        normalise=normalise,
        trim=False,
        augment=AudioAugment(),
    )
