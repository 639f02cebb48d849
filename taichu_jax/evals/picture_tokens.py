"""How well discrete codes keep held-out pictures, and how many of the codes they need."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.evals.features import collect
from taichu_jax.evals.media import Folder
from taichu_jax.ops.picture_quality import psnr, ssim


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureTokens:
    """Pictures through a tokeniser's codes and back.

    PSNR in dB and SSIM are means over pictures, the error is the mean square of [0, 1]. The baseline is
    every picture as blocks of one colour, one block for a code's place: three numbers instead of one
    code, chosen best for the squared error, but without any shape.

    Attributes:
      stream: a stream with the field `image`; its split is replaced.
      tokeniser: the network's name, with the methods `codes` and `decode`
        (models/image_tokeniser.py).
      examples: pictures that are shown, evenly spread.
    """

    stream: Any
    tokeniser: str = "image_tokeniser"
    split: str = "test"
    examples: int = 9

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        networks = run.experiment.networks
        if self.tokeniser not in networks:
            wrong = f"tokeniser={self.tokeniser!r}: no such network"
            raise UserError(f"{wrong}; {choices(self.tokeniser, networks)}")

        def draw(nets, batch):
            images = batch["image"].astype(jnp.float32)
            codes = nets(self.tokeniser, images, method="codes")
            drawn = nets(self.tokeniser, codes, method="decode")
            flat = _blocks(images, images.shape[1] // codes.shape[1])
            return {
                "codes": codes,
                "drawn": drawn,
                **{
                    f"{name}_{kind}": measure(images, made)
                    for name, made in (("model", drawn), ("blocks", flat))
                    for kind, measure in MEASURES.items()
                },
            }

        stream = dataclasses.replace(self.stream, split=self.split)
        fields, found = collect(run, stream, draw, ("image",))
        if not fields:
            raise UserError(f"split={self.split!r}: the stream has no pictures there")
        count, entries = len(fields["image"]), networks[self.tokeniser].entries
        uses = np.bincount(found["codes"].reshape(-1), minlength=entries)
        shares = uses / uses.sum()
        entropy = -(shares[uses > 0] * np.log(shares[uses > 0])).sum()
        folder = Folder(out_dir)
        shown = np.linspace(0, count - 1, min(self.examples, count)).astype(int)
        rows = [
            {
                "from": label,
                **{kind: float(found[f"{name}_{kind}"].mean()) for kind in MEASURES},
            }
            for name, label in (("model", "codes"), ("blocks", "blocks of one colour"))
        ]
        return {
            "split": self.split,
            "pictures": count,
            "rows": rows,
            "codes": {
                "entries": int(entries),
                "per_picture": int(found["codes"][0].size),
                "used": int((uses > 0).sum()),
                "perplexity": float(np.exp(entropy)),
                "commonest_share": float(shares.max()),
            },
            "examples": [
                {
                    "input": folder.picture(fields["image"][i], exact=True),
                    "drawn": folder.picture(found["drawn"][i], exact=True),
                }
                for i in shown
            ],
        }


def _error(images: jax.Array, others: jax.Array) -> jax.Array:
    return jnp.square(images - others).mean((1, 2, 3))


MEASURES = {"PSNR": psnr, "SSIM": ssim, "error": _error}


def _blocks(images: jax.Array, side: int) -> jax.Array:
    """Pictures [B, H, W, C] whose blocks of `side` x `side` pixels have their mean colour."""
    batch, height, width, colours = images.shape
    grid = images.reshape(batch, height // side, side, width // side, side, colours)
    means = grid.mean((2, 4), keepdims=True)
    return jnp.broadcast_to(means, grid.shape).reshape(images.shape)
