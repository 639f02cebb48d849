"""What masked models draw: hidden patches of pictures, hidden stretches of spectrograms.

Only for looking: the input, what the model was shown, what it drew, and the mean squared error of the
hidden parts beside that of the simplest guess. The guess is the mean of the visible parts; for an
objective with `norm_pixels`, which takes mean and deviation of each hidden patch from the truth, it is
that mean.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.evals.features import collect, thinned
from taichu_jax.evals.media import Folder, Originals
from taichu_jax.ops.frames import stack_frames


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureReconstructions:
    """Masked pictures filled in by an objective's `reconstruct(nets, images, rng)`.

    Attributes:
      stream: a stream with the field `image`; its split is replaced.
      objective: the objective's name in the config, for example a MaskedAutoencoder.
      examples: pictures that are shown, evenly spread.
    """

    stream: Any
    objective: str
    split: str = "test"
    examples: int = 9

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        objective = _named(run, self.objective)
        rng = jax.random.key(run.config.seed)

        def draw(nets, batch):
            masked, drawn = objective.reconstruct(nets, batch["image"], rng)
            return {"shown": masked, "drawn": drawn}

        stream = dataclasses.replace(self.stream, split=self.split)
        fields, pictures = collect(run, thinned(stream, self.examples), draw, ("image",))
        true, shown, drawn = fields["image"], pictures["shown"], pictures["drawn"]
        hidden = np.abs(shown - true).max(-1, keepdims=True) > 1e-6
        if getattr(objective, "norm_pixels", False):
            guess = _flat_patches(true, objective.patch)
        else:
            visible = np.where(hidden, 0, true).sum((1, 2)) / np.maximum((~hidden).sum((1, 2)), 1)
            guess = visible[:, None, None]
        folder = Folder(out_dir)
        return {
            "error": _masked_error(drawn, true, hidden),
            "guess": _masked_error(guess, true, hidden),
            "given": "mean and deviation of every hidden patch"
            if getattr(objective, "norm_pixels", False)
            else "",
            "examples": [
                {
                    "input": folder.picture(true[i], exact=True),
                    "shown": folder.picture(shown[i], exact=True),
                    "drawn": folder.picture(drawn[i], exact=True),
                }
                for i in range(len(true))
            ],
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectrogramReconstructions:
    """Hidden stretches of speech drawn by OPT's token level, with words and picture in view.

    Attributes:
      stream: a `Triplets` stream; its split is replaced.
      objective: an OPTTokenLevel's name in the config.
      rate: share of the frames that is hidden; more than in training, so that there is something
        to see.
      examples: recordings that are shown, evenly spread.
    """

    stream: Any
    objective: str
    split: str = "test"
    rate: float = 0.3
    examples: int = 6
    languages: tuple[str, ...] = ("fr", "ro", "ru", "bg", "ca", "es")

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        objective = dataclasses.replace(
            _named(run, self.objective), rate=self.rate, share=1.0, whole_modality=0.0
        )
        rng = jax.random.key(run.config.seed)

        def draw(nets, batch):
            seen = objective.look(nets, batch, rng)
            drawn = nets(objective.audio_head, seen["states"]["audio"]).astype(jnp.float32)
            true = stack_frames(batch["mel"], batch["mel_lengths"], objective.stride)
            hidden = seen["hidden"]["audio"]
            values = jnp.where(hidden[..., None], drawn, true)
            return {"drawn": values, "true": true, "hidden": hidden}

        stream = dataclasses.replace(self.stream, split=self.split, languages=self.languages)
        stream = thinned(stream, self.examples)
        fields, found = collect(run, stream, draw, ("mel", "mel_lengths", "example"))
        bands = fields["mel"].shape[-1]
        hidden = np.repeat(found["hidden"], objective.stride, axis=1)
        frames = hidden.shape[1]
        drawn, true = (found[k].reshape(len(hidden), frames, bands) for k in ("drawn", "true"))
        real = np.arange(frames) < fields["mel_lengths"][:, None]
        counted = (hidden & real)[..., None]
        seen = (~hidden & real)[..., None]
        mean = (true * seen).sum(1) / np.maximum(seen.sum(1), 1)
        folder, originals, shown = Folder(out_dir), Originals(run, stream), []
        for i, length in enumerate(fields["mel_lengths"]):
            low, high = np.percentile(true[i, :length], [2, 99.5])
            covered = np.where(hidden[i][:, None], low, true[i])
            paint = lambda mel, a=low, b=high, n=length: folder.spectrogram(mel[:n], a, b)  # noqa: E731
            shown.append(
                {
                    "words": originals.text(fields["example"][i]),
                    "audio": folder.clip(originals.wave(fields["example"][i])),
                    "input": paint(true[i]),
                    "shown": paint(covered),
                    "drawn": paint(drawn[i]),
                }
            )
        return {
            "error": _masked_error(drawn, true, counted),
            "guess": _masked_error(mean[:, None], true, counted),
            "rate": self.rate,
            "examples": shown,
        }


def _named(run, name: str):
    objectives = run.experiment.objectives
    if name not in objectives:
        raise UserError(f"objective={name!r}: no such objective; {choices(name, objectives)}")
    return objectives[name]


def _flat_patches(images: np.ndarray, patch: int) -> np.ndarray:
    """Every patch in its mean over all values: [B, H, W, 1], what standardised zeros stand for."""
    count, height, width, _ = images.shape
    grid = images.reshape(count, height // patch, patch, width // patch, patch, -1)
    return np.broadcast_to(grid.mean((2, 4, 5), keepdims=True), (*grid.shape[:5], 1)).reshape(
        count, height, width, 1
    )


def _masked_error(guess: np.ndarray, true: np.ndarray, where: np.ndarray) -> float:
    """Mean squared error over the values where `where` is true."""
    where = np.broadcast_to(where, true.shape)
    return float(np.square(guess - true)[where].mean()) if where.any() else float("nan")
