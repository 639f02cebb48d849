"""Recurrent networks that read speech from left to right (APC, arXiv 1904.03240)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.codes import GroupQuantiser
from taichu_jax.models.layers import Dense, Dropout, Encoded
from taichu_jax.models.quantiser import Quantised
from taichu_jax.models.speech import FRAME_RATE
from taichu_jax.ops.lengths import within, zero_beyond


def check_cell(cell: str) -> None:
    if cell not in ("gru", "lstm"):
        raise ValueError(f"cell={cell!r}; valid: gru, lstm")


class Recurrence(nn.Module):
    """One layer of gated recurrent units or long short-term memory over x [B, T, C].

    gru:  r, z = sigmoid(x W + h U),  n = tanh(x W_n + r (h U_n + b)),  h = (1 - z) n + z h
    lstm: i, f, o = sigmoid(x W + h U),  g = tanh(x W_g + h U_g),  c = f c + i g,  h = o tanh(c)

    Gates are ordered (r, z, n) and (i, f, g, o), as in PyTorch and cuDNN. The products with the
    inputs of all steps are one product; the state is float32.

    Attributes:
      two_biases: h U has a bias for every gate too, as there; but for b it says the same twice.
    """

    width: int
    cell: str = "gru"
    two_biases: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gates = {"gru": 3, "lstm": 4}[self.cell]
        bound = self.width**-0.5

        def uniform(key, shape, dtype=jnp.float32):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        inputs = Dense(gates * self.width, kernel_init=uniform, name="input")(x)
        kernel = self.param("recurrent_kernel", uniform, (self.width, gates * self.width))
        kernel = kernel.astype(x.dtype)
        zeros = jnp.zeros((x.shape[0], self.width), jnp.float32)

        whole = jnp.zeros((), jnp.float32)
        if self.two_biases:
            shape = (gates * self.width,)
            whole = self.param("recurrent_bias", nn.initializers.zeros, shape).astype(jnp.float32)

        def product(h):
            return (h.astype(x.dtype) @ kernel).astype(jnp.float32) + whole

        # A split of the last axis would do, but in the backward pass of a scan XLA's partitioner gets
        # its gradient wrong on a data x fsdp x tensor mesh (jax 0.10.2); reshaping it gets right.
        def parts(a):
            a = a.astype(jnp.float32).reshape(a.shape[0], gates, self.width)
            return [a[:, i] for i in range(gates)]

        if self.cell == "gru":
            bias = jnp.zeros((), jnp.float32)  # in the product already, where there are two
            if not self.two_biases:
                bias = self.param("recurrent_bias", nn.initializers.zeros, (self.width,))
                bias = bias.astype(jnp.float32)

            def step(h, a):
                ar, az, an = parts(a)
                ur, uz, un = parts(product(h))
                reset, update = jax.nn.sigmoid(ar + ur), jax.nn.sigmoid(az + uz)
                new = jnp.tanh(an + reset * (un + bias))
                h = (1 - update) * new + update * h
                return h, h.astype(x.dtype)

            first: Any = zeros
        else:

            def step(state, a):
                h, c = state
                i, f, g, o = parts(a.astype(jnp.float32) + product(h))
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h.astype(x.dtype)

            first = (zeros, zeros)
        _, states = jax.lax.scan(step, first, jnp.moveaxis(inputs, 1, 0))
        return jnp.moveaxis(states, 0, 1)


class RecurrentEncoder(nn.Module):
    """Log-mel frames to hidden states, one per frame, each of which has seen the past only.

    Every layer after the first adds its input to its output. `Encoded.tokens` is the last sum, not
    normalised, and zero behind the end.

    Attributes:
      cell: 'gru' (the authors' code) or 'lstm' (the paper).
      dropout: on the output of every layer.
      two_biases: see `Recurrence`; for the weights of the authors' code.
    """

    width: int = 512
    depth: int = 3
    cell: str = "gru"
    dropout: float = 0.0
    two_biases: bool = False

    @nn.compact
    def __call__(self, mel: jax.Array, lengths: jax.Array) -> Encoded:
        """mel: [B, F, bands]; lengths: int32 [B], the real frames."""
        check_cell(self.cell)
        mask = within(lengths, mel.shape[1])
        x = zero_beyond(mel, mask)
        layers = [x]
        for i in range(self.depth):
            y = Recurrence(self.width, self.cell, self.two_biases, name=f"layer_{i}")(x)
            y = Dropout(self.dropout)(y)
            x = zero_beyond(y if i == 0 else x + y, mask)
            layers.append(x)
        return Encoded(tokens=x, mask=mask, layers=tuple(layers), rate=FRAME_RATE)


class QuantisedStates(NamedTuple):
    """What `VQRecurrentEncoder.quantise` returns.

    Attributes:
      encoded: the states of every layer, none of them quantised.
      output: [B, F, D], what predictions are made from: the codebook's entries when the quantiser
        stands behind the last layer, else the states of the last layer, which has seen the entries.
      codes: the quantiser's choices, whatever they are worth behind the end.
    """

    encoded: Encoded
    output: jax.Array
    codes: Quantised


class VQRecurrentEncoder(nn.Module):
    """`RecurrentEncoder` with a Gumbel quantiser behind one layer (VQ-APC, arXiv 2005.08392).

    The next layer, its residual sum included, sees the chosen entries only. `Encoded.layers` and
    `tokens` are the states before they are quantised, which is what the authors probe.

    Attributes:
      cell, dropout, two_biases: as in `RecurrentEncoder`.
      codes: entries of the codebook; 128 in the authors' README, 512 in s3prl.
      after: the layer behind which the quantiser stands, from 1; the last one in both.
    """

    width: int = 512
    depth: int = 3
    cell: str = "gru"
    dropout: float = 0.0
    codes: int = 128
    after: int = 3
    two_biases: bool = False

    def setup(self):
        check_cell(self.cell)
        if not 1 <= self.after <= self.depth:
            raise ValueError(f"after={self.after}: must be from 1 to depth {self.depth}")
        self.recurrences = [
            Recurrence(self.width, self.cell, self.two_biases) for _ in range(self.depth)
        ]
        self.quantiser = GroupQuantiser(codes=self.codes)
        self.drop = Dropout(self.dropout)

    def __call__(self, mel: jax.Array, lengths: jax.Array) -> Encoded:
        """The states, with the likeliest code wherever a layer behind the quantiser needs one."""
        return self.quantise(mel, lengths).encoded

    def quantise(
        self,
        mel: jax.Array,
        lengths: jax.Array,
        rng: jax.Array | None = None,
        temperature: jax.Array | float = 1.0,
    ) -> QuantisedStates:
        """mel: [B, F, bands]; lengths: int32 [B]; rng and temperature: of the Gumbel softmax."""
        mask = within(lengths, mel.shape[1])
        x = zero_beyond(mel, mask)
        layers, codes = [x], []
        for i, recurrence in enumerate(self.recurrences):
            y = self.drop(recurrence(x))
            x = zero_beyond(y if i == 0 else x + y, mask)
            layers.append(x)
            if i + 1 == self.after:
                codes.append(self.quantiser(x, rng, temperature))
                x = zero_beyond(codes[0].vectors, mask)
        encoded = Encoded(tokens=layers[-1], mask=mask, layers=tuple(layers), rate=FRAME_RATE)
        return QuantisedStates(encoded, x, codes[0])
