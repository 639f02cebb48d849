"""Pictures as grids of discrete codes, and back: convolutional encoder, codebook and decoder.

`VQTokeniser` takes the nearest entry of a codebook (VQ-VAE, arXiv 1711.00937; VQGAN, arXiv 2012.09841),
`GumbelTokeniser` the likeliest one (the dVAE of DALL-E, arXiv 2102.12092). Both have the methods

    encode(images [B, H, W, 3] in [0, 1]) -> float [B, h, w, ...]
    codes(images) -> int32 [B, h, w]
    decode(codes) -> images in [0, 1]

and the fields `entries` and `shrink`, so whatever works on codes can take either of them by name.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.ops.codebooks import nearest
from taichu_jax.ops.logit_laplace import expected
from taichu_jax.ops.patches import centred, uncentred

LAST = 3  # side of the last convolution's kernel


class ResidualBlock(nn.Module):
    """x + two convolutions, each after a group norm and a swish (the blocks of VQGAN)."""

    groups: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, y = x.shape[-1], x
        for i in (1, 2):
            y = nn.swish(nn.GroupNorm(self.groups, name=f"norm_{i}")(y))
            y = nn.Conv(width, (3, 3), name=f"conv_{i}")(y)
        return x + y


class PictureEncoder(nn.Module):
    """Pictures to a grid: a convolution of 4 x 4 with stride 2 for each width, then residual blocks.

    As in DeepMind's example for VQ-VAE the blocks work on the coarsest grid only; VQGAN has some on
    every grid. The norm of the blocks is VQGAN's; the example has none.
    """

    widths: tuple[int, ...]
    blocks: int
    groups: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H / 2^n, W / 2^n, widths[-1]] of images [B, H, W, 3] in [0, 1], for n widths."""
        shrink = 2 ** len(self.widths)
        if images.shape[1] % shrink or images.shape[2] % shrink:
            raise ValueError(f"images of {images.shape[1:3]} pixels do not shrink by {shrink}")
        x = centred(images)
        for i, width in enumerate(self.widths):
            x = nn.swish(nn.Conv(width, (4, 4), (2, 2), name=f"shrink_{i}")(x))
        for i in range(self.blocks):
            x = ResidualBlock(self.groups, name=f"block_{i}")(x)
        return nn.swish(nn.GroupNorm(self.groups, name="norm")(x))


class PictureDecoder(nn.Module):
    """A grid to pictures: residual blocks, then doublings (nearest neighbour, and a convolution)."""

    widths: tuple[int, ...]
    blocks: int
    groups: int
    outputs: int = 3

    @nn.compact
    def __call__(self, grid: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(features, outputs), where outputs [B, H, W, outputs] = convolution of features."""
        x = nn.Conv(self.widths[-1], (3, 3), name="first")(grid)
        for i in range(self.blocks):
            x = ResidualBlock(self.groups, name=f"block_{i}")(x)
        x = nn.swish(nn.GroupNorm(self.groups, name="norm")(x))
        for i, width in enumerate((*self.widths[-2::-1], self.widths[0])):
            x = x.repeat(2, axis=1).repeat(2, axis=2)
            x = nn.swish(nn.Conv(width, (3, 3), name=f"grow_{i}")(x))
        return x, nn.Conv(self.outputs, (LAST, LAST), name="last")(x)


class Tokenised(NamedTuple):
    """What a VQTokeniser makes of pictures.

    Attributes:
      latents: z [B, h, w, dim].
      codes: int32 [B, h, w], the nearest entries' numbers.
      nearest: e [B, h, w, dim], those entries; differentiable in the codebook only.
      features: [B, H, W, C], what the decoder's last convolution read.
      pixels: [B, H, W, 3], the reconstruction on the scale of `centred` images, not limited to it. Its
        gradient reaches the encoder straight through the quantiser, and no codebook.
    """

    latents: jax.Array
    codes: jax.Array
    nearest: jax.Array
    features: jax.Array
    pixels: jax.Array


class VQTokeniser(nn.Module):
    """Tokeniser by the nearest entry of a codebook.

    Attributes:
      entries: V, of the codebook.
      dim: width of an entry.
      widths: channels after each halving; their number n gives `shrink` = 2^n pixels per code.
      blocks: residual blocks of encoder and decoder each.
      groups: of the group norms; divides the last width.
    """

    entries: int = 512
    dim: int = 64
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 2
    groups: int = 8

    @property
    def shrink(self) -> int:
        return 2 ** len(self.widths)

    def setup(self):
        self.encoder = PictureEncoder(self.widths, self.blocks, self.groups)
        self.latent = nn.Conv(self.dim, (1, 1))
        self.decoder = PictureDecoder(self.widths, self.blocks, self.groups)
        bound = 1.0 / self.entries  # as in the authors' codes
        self.code_embedding = self.param(
            "code_embedding",
            lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound),
            (self.entries, self.dim),
        )

    def __call__(self, images: jax.Array) -> Tokenised:
        """The whole way, for training."""
        still = jax.lax.stop_gradient
        latents = self.encode(images)
        codes = nearest(still(latents), still(self.code_embedding))
        entries = self.code_embedding[codes].astype(latents.dtype)
        # Exactly the entry, with the gradient of the latent.
        features, pixels = self.decoder(still(entries) + (latents - still(latents)))
        return Tokenised(latents, codes, entries, features, pixels)

    def encode(self, images: jax.Array) -> jax.Array:
        """Latents z [B, h, w, dim]."""
        return self.latent(self.encoder(images))

    def codebook(self) -> jax.Array:
        """[entries, dim]."""
        return self.code_embedding

    def codes(self, images: jax.Array) -> jax.Array:
        """int32 [B, h, w]."""
        return nearest(self.encode(images), self.code_embedding)

    def decode(self, codes: jax.Array) -> jax.Array:
        """Pictures [B, H, W, 3] in [0, 1] of codes int [B, h, w]."""
        _, pixels = self.decoder(self.code_embedding[codes])
        return jnp.clip(uncentred(pixels.astype(jnp.float32)), 0.0, 1.0)


class GumbelTokeniser(nn.Module):
    """Tokeniser by the likeliest entry, trained with a mixture of entries.

    Attributes:
      entries, dim, widths, blocks, groups: as in VQTokeniser.
      scales: the decoder says how sure it is too: its outputs are mu and ln b of a logit-Laplace
        distribution (ops/logit_laplace.py) instead of pixels.
    """

    entries: int = 512
    dim: int = 64
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 2
    groups: int = 8
    scales: bool = True

    @property
    def shrink(self) -> int:
        return 2 ** len(self.widths)

    def setup(self):
        self.encoder = PictureEncoder(self.widths, self.blocks, self.groups)
        self.scores = nn.Conv(self.entries, (1, 1))
        self.decoder = PictureDecoder(
            self.widths, self.blocks, self.groups, 6 if self.scales else 3
        )
        self.code_embedding = self.param(
            "code_embedding", nn.initializers.normal(1.0), (self.entries, self.dim)
        )

    def __call__(
        self, images: jax.Array, rng: jax.Array, temperature: jax.Array | float
    ) -> tuple[jax.Array, jax.Array]:
        """(logits float32 [B, h, w, entries], outputs [B, H, W, 6 or 3]), for training.

        The decoder reads sum_v y_v e_v with y = softmax((logits + Gumbel noise) / temperature).

        Args:
          rng: key of the noise.
          temperature: may be traced.
        """
        logits = self.encode(images)
        noisy = logits + jax.random.gumbel(rng, logits.shape)
        relaxed = jax.nn.softmax(noisy / jnp.asarray(temperature, jnp.float32))
        dtype = self.code_embedding.dtype
        return logits, self.decoder(relaxed.astype(dtype) @ self.code_embedding)[1]

    def encode(self, images: jax.Array) -> jax.Array:
        """Logits of the entries, float32 [B, h, w, entries]."""
        return self.scores(self.encoder(images)).astype(jnp.float32)

    def codes(self, images: jax.Array) -> jax.Array:
        """int32 [B, h, w]."""
        return self.encode(images).argmax(-1).astype(jnp.int32)

    def decode(self, codes: jax.Array) -> jax.Array:
        """Pictures [B, H, W, 3] in [0, 1] of codes int [B, h, w]."""
        _, outputs = self.decoder(self.code_embedding[codes])
        outputs = outputs[..., :3].astype(jnp.float32)
        return expected(outputs) if self.scales else jnp.clip(uncentred(outputs), 0.0, 1.0)
