"""Images: a vision transformer and the light decoder of a masked autoencoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.models.grid_position import Grid
from taichu_jax.models.layers import Dense, Dropout, Encoded, LayerNorm, sinusoid_2d
from taichu_jax.models.style import Style
from taichu_jax.models.transformer import Stack, Transformer
from taichu_jax.ops.patches import patchify
from taichu_jax.ops.resample import resampled

POSITIONS = ("sinusoid", "learned")
INTERPOLATIONS = ("antialiased", "cubic")


class ViT(nn.Module):
    """Vision transformer (arXiv 2010.11929) over square patches.

    Pixels come in [0, 1] and are scaled inside, by default to [-1, 1]. Only the mean over the patches
    or a class token knows the whole picture.

    Attributes:
      patch: side of a patch, in pixels.
      size: side of the usual image, in pixels. Other sizes are read too: the positions of the usual
        grid are resized to theirs (small crops of DINO, fine-tuning at a higher resolution).
      cls: a learned token goes before the patches.
      position: 'sinusoid' is fixed (MAE, MoCo v3), 'learned' is trained (ViT), 'none' leaves it to the
        relative positions (BEiT).
      stack: how the blocks are made (models/stack.py).
      style: what a block computes (models/style.py).
      cls_position: the class token has a learned position too (ViT).
      patch_bias: whether the patch product has one (CLIP: no).
      mean, deviation: of red, green and blue; pixels are (x - mean) / deviation inside.
      registers: learned tokens between the class token and the patches, of which nobody sees the last
        states (arXiv 2309.16588; DINOv2).
      relative_position: 'none'; 'grid' or 'grid_per_block' (BEiT; models/grid_position.py).
      interpolation: how positions get to another size: 'antialiased', or 'cubic' as PyTorch has it
        without a filter (DINO, DINOv2 without registers).
    """

    width: int = 128
    depth: int = 2
    heads: int = 4
    patch: int = 8
    size: int = 64
    expansion: float = 4.0
    dropout: float = 0.0
    cls: bool = False
    position: str = "sinusoid"
    stack: Stack = Stack()
    style: Style = Style()
    cls_position: bool = False
    patch_bias: bool = True
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    deviation: tuple[float, ...] = (0.5, 0.5, 0.5)
    registers: int = 0
    relative_position: str = "none"
    interpolation: str = "antialiased"

    def __post_init__(self):
        for key, valid in (
            ("relative_position", ("none", "grid", "grid_per_block")),
            ("interpolation", INTERPOLATIONS),
        ):
            value = getattr(self, key)
            if value not in valid:
                raise UserError(f"ViT.{key}={value!r}; {choices(value, valid)}")
        if self.registers and self.relative_position != "none":
            raise UserError(
                f"ViT.registers={self.registers}: have no place; with relative_position="
                f"{self.relative_position!r} must be 0"
            )
        if self.cls_position and self.position == "none":
            raise UserError("ViT.cls_position=True: with position='none' must be False")
        super().__post_init__()

    def setup(self):
        if self.cls_position and not self.cls:
            raise ValueError("cls_position=True: there is no class token, cls=False")
        if self.size % self.patch:
            raise ValueError(f"size={self.size} is not a multiple of patch={self.patch}")
        if self.position not in (*POSITIONS, "none"):
            raise ValueError(f"position={self.position!r}; valid: {', '.join(POSITIONS)}, none")
        side = self.size // self.patch
        if self.width % 4:
            raise ValueError(f"width={self.width} is not a multiple of 4")
        normal = nn.initializers.normal(0.02)
        # The scale of a dense layer, not of a small embedding: pixels must not drown in positions.
        self.patches = Dense(
            self.width, self.patch_bias, kernel_init=nn.initializers.xavier_uniform()
        )
        self.mask_token = self.param("mask_token", normal, (self.width,))
        if self.cls:
            self.cls_token = self.param("cls_token", normal, (self.width,))
        if self.cls_position:
            self.cls_place = self.param("cls_position", normal, (self.width,))
        if self.position == "learned":
            # Flax reserves the field's name for the field, so the parameter has another one.
            self.grid = self.param("patch_position", normal, (side**2, self.width))
        elif self.position == "sinusoid":
            self.grid = sinusoid_2d(side, side, self.width)
        if self.registers:
            self.register_token = self.param("register_token", normal, (self.registers, self.width))
        self.drop = Dropout(self.dropout)
        if self.style.first_norm:
            self.first_norm = LayerNorm(self.style.epsilon)
        self.transformer = Transformer(
            self.depth,
            self.heads,
            self.expansion,
            self.dropout,
            relative_position=self.relative_position,
            stack=self.stack,
            style=self.style,
        )

    def __call__(
        self, images: jax.Array, mask: jax.Array | None = None, keep: jax.Array | None = None
    ) -> Encoded:
        """Encodes pictures; `rate` of the result is the number of patch rows.

        Args:
          images: float [B, H, W, 3] in [0, 1]; H and W are multiples of `patch`.
          mask: bool [B, N]; patches where it is true are replaced by the mask token (BEiT, SimMIM).
          keep: int32 [B, K]; only these patches are encoded, in this order (MAE).
        """
        if keep is not None and self.relative_position != "none":
            raise UserError(
                f"ViT.relative_position={self.relative_position!r}: is for whole pictures; an objective"
                " that leaves patches out needs 'none'"
            )
        rows, columns = (length // self.patch for length in images.shape[1:3])
        x = self.patches(patchify(self._scaled(images), self.patch))
        if mask is not None:
            x = jnp.where(mask[..., None], self.mask_token.astype(x.dtype), x)
        if self.position != "none":
            x += self._positions(rows, columns).astype(x.dtype)
        if keep is not None:
            x = jnp.take_along_axis(x, keep[..., None], axis=1)
        if self.registers:
            x = jnp.concatenate([self._repeated(self.register_token, x), x], axis=1)
        if self.cls:
            token = self.cls_token + self.cls_place if self.cls_position else self.cls_token
            x = jnp.concatenate([self._repeated(token[None], x), x], axis=1)
        everywhere = jnp.ones(x.shape[:2], bool)
        x = self.drop(self.first_norm(x) if self.style.first_norm else x)
        grid = None
        if self.relative_position != "none":
            side = self.size // self.patch
            grid = Grid((side, side), (rows, columns), self.cls)
        tokens, layers = self.transformer(x, everywhere, grid=grid)
        tokens, *states = (self._without_registers(x) for x in (tokens, *layers))
        mask = everywhere[:, : tokens.shape[1]]
        return Encoded(tokens=tokens, mask=mask, layers=tuple(states), rate=float(rows))

    @nn.nowrap
    def _repeated(self, tokens: jax.Array, x: jax.Array) -> jax.Array:
        """Tokens [K, D] for every example of x."""
        return jnp.broadcast_to(tokens.astype(x.dtype), (len(x), *tokens.shape))

    @nn.nowrap
    def _without_registers(self, x: jax.Array) -> jax.Array:
        first = int(self.cls)
        if not self.registers:
            return x
        return jnp.concatenate([x[:, :first], x[:, first + self.registers :]], axis=1)

    def _scaled(self, images: jax.Array) -> jax.Array:
        mean, deviation = (jnp.array(x, images.dtype) for x in (self.mean, self.deviation))
        return (images - mean) / deviation

    def _positions(self, rows: int, columns: int) -> jax.Array:
        side = self.size // self.patch
        if (rows, columns) == (side, side):
            return self.grid
        grid = self.grid.astype(jnp.float32).reshape(side, side, self.width)
        if self.interpolation == "cubic":
            return resampled(grid, rows, columns, "cubic").reshape(-1, self.width)
        resized = jax.image.resize(grid, (rows, columns, self.width), "bicubic")
        return resized.reshape(rows * columns, self.width)


class MAEDecoder(nn.Module):
    """Decoder of a masked autoencoder (arXiv 2111.06377, section 3): kept tokens to all pixels.

    Attributes:
      patch: side of a patch, in pixels.
      patches: number of patches of a (square) picture, kept or not.
      cls: the encoder's tokens begin with a class token, which takes part but predicts nothing.
      stack: how the blocks are made (models/stack.py).
      style: what a block computes (models/style.py).
      position: 'sinusoid' is fixed, 'learned' is trained, with one for the class token.
    """

    width: int = 64
    depth: int = 1
    heads: int = 4
    patch: int = 8
    patches: int = 64
    expansion: float = 4.0
    dropout: float = 0.0
    cls: bool = False
    stack: Stack = Stack()
    style: Style = Style()
    position: str = "sinusoid"

    @nn.compact
    def __call__(self, tokens: jax.Array, keep: jax.Array) -> jax.Array:
        """Predicts patches [B, patches, patch * patch * 3], normalised or not as it was trained.

        Args:
          tokens: [B, K, D], or [B, 1 + K, D] with a class token.
          keep: int32 [B, K], the places that the tokens come from.
        """
        side = round(self.patches**0.5)
        if side**2 != self.patches:
            raise ValueError(f"patches={self.patches} do not make a square picture")
        if tokens.shape[1] != keep.shape[1] + self.cls:
            raise ValueError(
                f"{tokens.shape[1]} tokens for {keep.shape[1]} kept patches, but cls={self.cls}"
            )
        if self.position not in POSITIONS:
            raise ValueError(f"position={self.position!r}; valid: {', '.join(POSITIONS)}")
        normal = nn.initializers.normal(0.02)
        mask_token = self.param("mask_token", normal, (self.width,))
        x = Dense(self.width, name="embed")(tokens)
        first, x = x[:, : int(self.cls)], x[:, int(self.cls) :]
        from_where = keep[:, :, None] == jnp.arange(self.patches)  # [B, K, N]
        source = from_where.argmax(1)[..., None]
        x = jnp.take_along_axis(x, source, axis=1)
        x = jnp.where(from_where.any(1)[..., None], x, mask_token.astype(x.dtype))
        if self.position == "learned":
            where = self.param("patch_position", normal, (self.patches, self.width))
            if self.cls:
                first += self.param("cls_position", normal, (self.width,)).astype(x.dtype)
        else:
            where = sinusoid_2d(side, side, self.width)
        x = jnp.concatenate([first, x + where.astype(x.dtype)], axis=1)
        everywhere = jnp.ones(x.shape[:2], bool)
        transformer = Transformer(
            self.depth,
            self.heads,
            self.expansion,
            self.dropout,
            stack=self.stack,
            style=self.style,
            name="transformer",
        )
        x = Dropout(self.dropout)(x)
        if self.style.first_norm:
            x = LayerNorm(self.style.epsilon, name="first_norm")(x)
        x, _ = transformer(x, everywhere)
        return Dense(3 * self.patch**2, name="pixels")(x[:, int(self.cls) :])
