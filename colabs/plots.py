"""Plots that several notebooks draw."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot

from taichu_jax.data.audio import HOP, RATE
from taichu_jax.training.metrics import LOSSES, METRICS

BASELINE = {"linestyle": "--", "marker": "."}


def rows(run_dir: str | pathlib.Path, file: str = LOSSES) -> list[dict[str, Any]]:
    """The lines of a run's losses.jsonl or metrics.jsonl."""
    return [json.loads(line) for line in (pathlib.Path(run_dir) / file).open()]


def losses(*run_dirs: str | pathlib.Path) -> None:
    """The loss of every step of some runs."""
    _, axes = pyplot.subplots(figsize=(6, 2.6), layout="constrained")
    for run_dir in run_dirs:
        values = [np.nan if row["loss"] is None else row["loss"] for row in rows(run_dir)]
        axes.plot(1 + np.arange(len(values)), values, label=pathlib.Path(run_dir).name)
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    pyplot.show()


def metrics(run_dir: str | pathlib.Path, names: Sequence[str]) -> None:
    """Metrics of one run, each with its own axis: means over the steps between two lines of the log."""
    _, axes = pyplot.subplots(
        1, len(names), figsize=(3.2 * len(names), 2.4), layout="constrained", squeeze=False
    )
    logged = rows(run_dir, METRICS)
    for place, name in zip(axes[0], names, strict=True):
        place.plot([r["step"] for r in logged], [r[name] for r in logged], marker=".")
        place.set(title=name, xlabel="step")
    pyplot.show()


def pictures(grid: Sequence[Sequence[Any]], heads: Sequence[str], side: float = 1.2) -> None:
    """Rows of pictures below the heads of their columns.

    Args:
      grid: of arrays [H, W, 3] or of names of picture files.
      side: of a picture, in inches.
    """
    shape = len(grid), len(heads)
    _, axes = pyplot.subplots(
        *shape,
        figsize=(side * shape[1], side * shape[0] + 0.3),
        squeeze=False,
        layout="constrained",
    )
    for line, places in zip(grid, axes, strict=True):
        for picture, place in zip(line, places, strict=True):
            shown = picture if isinstance(picture, np.ndarray) else pyplot.imread(picture)
            place.imshow(shown)
            place.set(xticks=[], yticks=[])
    for head, place in zip(heads, axes[0], strict=True):
        place.set_title(head, fontsize=9)
    pyplot.show()


def spectrogram(axes: Any, mel: np.ndarray) -> None:
    """Log-mel frames [F, bands], low bands at the bottom."""
    extent = (0, len(mel) * HOP / RATE, 0, mel.shape[1])
    axes.imshow(mel.T, origin="lower", aspect="auto", extent=extent, cmap="magma")
    axes.set(xlabel="seconds", ylabel="mel band")


def layers(tasks: Mapping[str, Mapping[str, Any]], encoder: str) -> None:
    """What a linear map reads off every layer: development scores of a network's probes.

    Args:
      tasks: name -> result, see taichu_jax/probing/tasks/base.py.
      encoder: the network's name.
    """
    _, axes = pyplot.subplots(
        1, len(tasks), figsize=(4.2 * len(tasks), 3), layout="constrained", squeeze=False
    )
    for place, (name, found) in zip(axes[0], tasks.items(), strict=True):
        curves = {c["system"]: c for c in found["curves"][::-1]}  # of a system's heads the first
        names = curves[encoder]["layers"]
        for system, curve in reversed(curves.items()):
            style = {"marker": "o"} if system == encoder else BASELINE
            values = curve["values"] * (len(names) if len(curve["values"]) == 1 else 1)
            place.plot(names, values, label=system, **style)
        place.set(
            title=f"{name} ({curves[encoder]['head']})", ylabel=found["measure"].split(",")[0]
        )
        place.title.set_fontsize(10)
        place.yaxis.label.set_fontsize(8)
    axes[0, 0].legend(fontsize=8)
    pyplot.show()
