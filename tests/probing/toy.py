"""Examples in memory, and encoders that are written down instead of trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from taichu_jax.data.items import Damaged
from taichu_jax.models.layers import Encoded
from taichu_jax.probing.encoder import Encoder, means
from taichu_jax.probing.examples import Harm, Row
from taichu_jax.probing.readers import PictureReader
from taichu_jax.probing.tasks.base import Study

SIZE, PATCH = 8, 4


class Toy:
    """Rows and contents: pictures uint8 [S, S, 4], texts, or (words, tags). A None is damaged."""

    own, name = True, "toy"

    def __init__(self, modality: str, rows: list[Row], contents: list):
        self.modality, self.rows, self.contents, self.notes = modality, rows, contents, []

    def canvas(self, i: int, side: int) -> np.ndarray:
        if self.contents[i] is None:
            raise Damaged("planted damage")
        repeats = side // len(self.contents[i])
        return np.kron(self.contents[i], np.ones((repeats, repeats, 1), np.uint8))

    def text(self, i: int) -> str:
        return self.contents[i]

    def words(self, i: int):
        return self.contents[i]


def rows_of(labels: list[dict[str, str]], splits: list[str], groups: list[str]) -> list[Row]:
    return [
        Row(key=f"example {i}", split=split, group=group, labels=found)
        for i, (found, split, group) in enumerate(zip(labels, splits, groups, strict=True))
    ]


def picture(colour: tuple[int, int, int], where: np.ndarray | None = None) -> np.ndarray:
    """A plain square on a grid of 2 x 2 patches, transparent outside of `where` bool [2, 2]."""
    grid = np.ones((2, 2), np.uint8) if where is None else where.astype(np.uint8)
    opaque = np.broadcast_to(np.array([*colour, 255], np.uint8), (2, 2, 4))
    return opaque * grid[..., None]


def seeing(layers: Callable, name: str = "planted") -> Encoder:
    """An encoder of pictures.

    Args:
      layers: from patches [B, 4, 48] to the states of every layer.
    """

    def hidden_states(params, inputs):
        del params
        from taichu_jax.ops.patches import patchify

        *inner, last = layers(patchify(inputs[0], PATCH))
        mask = jnp.ones(last.shape[:2], bool)
        return Encoded(tokens=last, mask=mask, layers=tuple(inner), rate=SIZE / PATCH)

    return Encoder(name, "image", PictureReader(SIZE), hidden_states, {}, dict, means)


def study(encoder: Encoder, examples: Toy, **more) -> Study:
    return dataclasses.replace(Study(encoder, examples, Harm(examples)), **more)


def scores(result: dict, system: str) -> dict[str, float]:
    return next(row for row in result["rows"] if row["system"] == system)["scores"]
