"""Pictures and sounds written as codes: a causal transformer that attends over an encoder's states.

For OPT's vision decoder (arXiv 2107.00249, eq. 10) and, with several codes a step, for residual audio
codes as in MusicGen (arXiv 2306.05284); ops/delay.py says which code is written at which step.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.errors import UserError
from taichu_jax.models.cache import Cache
from taichu_jax.models.decoder import room, told, write
from taichu_jax.models.layers import Dropout
from taichu_jax.models.transformer import Stack, Transformer
from taichu_jax.ops.delay import Delayed, delay, undelay


class CodeDecoder(nn.Module):
    """Writes `stages` codes at every step, given those of all steps before and a memory.

    Ids are 0 to `entries` - 1 for codes, then `end_id` if there is an end, then `start_id`, which is read
    and never written: it stands before the first step and wherever a stage has nothing.

    Attributes:
      entries: codes of each stage.
      length: the most steps, among them the end and those by which stages are delayed.
      stages: codes written at once; each stage has its own table of ids. Fewer than a residual tokeniser
        has are its first ones.
      ends: the first stage has an end.
      grid: (h, w) for codes that are a picture's, row by row: a position is a row's embedding and a
        column's. None for a sequence.
      languages: number of languages; their embedding tells which one to speak. 0: it is not told.
      stack: how the blocks are made (models/stack.py).
    """

    entries: int
    length: int
    stages: int = 1
    ends: bool = False
    grid: tuple[int, int] | None = None
    width: int = 128
    depth: int = 2
    heads: int = 4
    expansion: float = 4.0
    dropout: float = 0.0
    languages: int = 0
    stack: Stack = Stack()

    @property
    def choices(self) -> int:
        """V, how many ids can be written: the codes, and the end where there is one."""
        return self.entries + self.ends

    @property
    def end_id(self) -> int | None:
        """Written by the first stage at the step behind the last; None without an end."""
        return self.entries if self.ends else None

    @property
    def start_id(self) -> int:
        """Read before the first step, and in a stage that has nothing at a step."""
        return self.choices

    @nn.nowrap
    def start(self, batch: int, length: int) -> Cache:
        """A cache for `batch` rows of up to `length` steps."""
        self._check(length)
        return room(self, batch, length, cross=True)

    @nn.nowrap
    def possible(self) -> jax.Array:
        """bool [stages, V]: the ids that a stage can write."""
        first = jnp.arange(self.stages) == 0
        return (jnp.arange(self.choices) < self.entries) | first[:, None]

    @nn.nowrap
    def delayed(self, codes: jax.Array, lengths: jax.Array | None = None) -> Delayed:
        """What is written at each step for codes [B, N, S] of which `lengths` [B] are real.

        Of S > `stages` codes of a residual tokeniser the further ones are left out.
        """
        return delay(codes[..., : self.stages], lengths, nothing=self.start_id, end=self.end_id)

    @nn.nowrap
    def undelayed(self, written: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(codes int32 [B, N, stages], lengths int32 [B]) of what was written, [B, L, stages]."""
        return undelay(written, self.end_id)

    @nn.nowrap
    def read(self, written: jax.Array) -> jax.Array:
        """What is read while `written` [B, L, stages] is written: the start, then all but the last."""
        first = jnp.full_like(written[:, :1], self.start_id)
        return jnp.concatenate([first, written[:, :-1]], axis=1)

    @nn.compact
    def __call__(
        self,
        codes: jax.Array,
        mask: jax.Array | None,
        memory: jax.Array | None,
        memory_mask: jax.Array,
        language: jax.Array | None = None,
        cache: Cache | None = None,
        at: jax.Array | int = 0,
    ) -> Any:
        """Logits [B, L, stages, V] of what is written at each step, given memory [B, M, D].

        An id that is not `possible` has the least logit that there is.

        Args:
          codes: int32 [B, L, stages], what was written at the step before each, see `read`.
          mask: bool [B, L], true where a step is real.
          memory_mask: bool [B, M].
          language: int32 [B], needed when `languages` is not 0.
          cache: of the steps before `at`, from `start` or an earlier call; `codes` are then those from
            `at` on, `mask` is None, memory is needed in the first call only, and the result is the
            pair (logits, new cache).
        """
        steps = codes.shape[1]
        self._check(steps)
        if codes.shape[2] != self.stages:
            raise UserError(f"stages={self.stages}: the codes have {codes.shape[2]} stages")
        normal = nn.initializers.normal(0.02)
        ids = (self.stages, self.choices + 1, self.width)
        embedding = self.param("token_embedding", normal, ids)
        where = self._positions(normal)
        first = 0 if cache is None else at
        where = jax.lax.dynamic_slice_in_dim(where, first, steps)
        x = sum((embedding[s][codes[..., s]] for s in range(self.stages)), start=where)
        x = told(self, x, language, self.languages)
        x = Dropout(self.dropout)(x)
        transformer = Transformer(
            self.depth,
            self.heads,
            self.expansion,
            self.dropout,
            causal=True,
            cross=True,
            stack=self.stack,
            name="transformer",
        )
        x, cache = write(transformer, x, mask, memory, memory_mask, cache, at)
        bias = self.param("head_bias", nn.initializers.zeros, (self.stages, self.choices))
        heads = embedding[:, : self.choices].astype(x.dtype)
        logits = jnp.einsum("bld,svd->blsv", x, heads) + bias.astype(x.dtype)
        if self.ends:
            logits = jnp.where(self.possible(), logits, jnp.finfo(logits.dtype).min)
        return logits if cache is None else (logits, cache)

    @nn.nowrap
    def _check(self, steps: int) -> None:
        if steps > self.length:
            raise UserError(f"length={self.length}: cannot write {steps} steps")
        if self.grid is not None and self.grid[0] * self.grid[1] != self.length:
            raise UserError(f"grid={tuple(self.grid)}: does not have length={self.length} places")

    def _positions(self, start) -> jax.Array:
        """The embedding of every step, [length, width]."""
        if self.grid is None:
            return self.param("position", start, (self.length, self.width))
        rows, columns = self.grid
        row = self.param("row_position", start, (rows, self.width))
        column = self.param("column_position", start, (columns, self.width))
        return (row[:, None] + column).reshape(self.length, self.width)
