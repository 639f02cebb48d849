"""Text: a bidirectional (or causal) encoder and a decoder that attends over an encoder's states."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.cache import Cache, past
from taichu_jax.models.decoder import room, told, write
from taichu_jax.models.layers import ACTIVATIONS, Dense, Dropout, Encoded, LayerNorm, product
from taichu_jax.models.style import Style
from taichu_jax.models.transformer import Stack, Transformer


class TextEncoder(nn.Module):
    """Token and position embeddings, then a transformer; logits through the tied embedding.

    Attributes:
      vocab_size: number of token ids.
      length: the longest input, in tokens.
      causal: true for a language model that reads left to right (GPT), false for BERT.
      stack: how the blocks are made (models/stack.py).
      style: what a block computes (models/style.py).
      token_types: number of kinds of tokens (BERT's sentences A and B), each with an embedding; 0 for
        no such thing.
      position_scheme: 'index' counts the places of a row, 'real' its tokens only (RoBERTa); padding
        then has the position `position_offset` - 1.
      position_offset: the position of the first token (RoBERTa: 2).
      head_kind: 'transform' is BERT's, a dense layer, a norm and a bias; 'untied' the same with a matrix
        of its own in place of the embedding (FLAVA); 'tied' the embedding alone.
    """

    vocab_size: int
    width: int = 128
    depth: int = 2
    heads: int = 4
    length: int = 64
    expansion: float = 4.0
    dropout: float = 0.0
    causal: bool = False
    stack: Stack = Stack()
    style: Style = Style()
    token_types: int = 0
    position_scheme: str = "index"
    position_offset: int = 0
    head_kind: str = "transform"

    def setup(self):
        if self.position_scheme not in ("index", "real"):
            raise ValueError(f"position_scheme={self.position_scheme!r}; valid: index, real")
        if self.position_scheme == "real" and self.position_offset < 1:
            raise ValueError(f"position_offset={self.position_offset}: padding has the one before")
        if self.head_kind not in ("transform", "untied", "tied"):
            raise ValueError(f"head_kind={self.head_kind!r}; valid: tied, transform, untied")
        normal = nn.initializers.normal(0.02)
        self.token_embedding = self.param("token_embedding", normal, (self.vocab_size, self.width))
        places = self.length + self.position_offset
        self.position = self.param("position", normal, (places, self.width))
        if self.token_types:
            self.kinds = self.param("type_embedding", normal, (self.token_types, self.width))
        if self.style.first_norm:
            self.first_norm = LayerNorm(self.style.epsilon)
        self.drop = Dropout(self.dropout)
        self.transformer = Transformer(
            self.depth,
            self.heads,
            self.expansion,
            self.dropout,
            causal=self.causal,
            stack=self.stack,
            style=self.style,
        )
        if self.head_kind != "tied":
            self.head = Dense(self.width)
            self.head_norm = LayerNorm(self.style.epsilon)
            self.head_bias = self.param("head_bias", nn.initializers.zeros, (self.vocab_size,))
        if self.head_kind == "untied":
            shape = (self.width, self.vocab_size)
            self.head_kernel = self.param("head_kernel", nn.initializers.lecun_normal(), shape)

    def __call__(
        self,
        tokens: jax.Array,
        mask: jax.Array,
        positions: jax.Array | None = None,
        segments: jax.Array | None = None,
        types: jax.Array | None = None,
    ) -> Encoded:
        """Encodes token ids.

        Args:
          tokens: int32 [B, L], L <= length.
          mask: bool [B, L], true where there is a token.
          positions: int32 [B, L], position within its own sentence, for packed rows.
          segments: int32 [B, L]; tokens see only tokens of their own segment, for packed rows.
          types: int32 [B, L], each below `token_types`; by default all are 0.
        """
        if tokens.shape[1] > self.length:
            raise ValueError(f"text of {tokens.shape[1]} tokens, but length={self.length}")
        x = self.token_embedding[tokens] + self._places(mask, positions)
        if self.token_types:
            x += self.kinds[0] if types is None else self.kinds[types]
        elif types is not None:
            raise ValueError("this encoder knows no types of tokens: token_types=0")
        x = self.drop(self.first_norm(x) if self.style.first_norm else x)
        see = mask
        if segments is not None:
            see = mask[:, None, :] & (segments[:, :, None] == segments[:, None, :])
        x, layers = self.transformer(x, see, real=mask)
        return Encoded(tokens=x, mask=mask, layers=layers)

    @nn.nowrap
    def start(self, batch: int, length: int) -> Cache:
        """A cache for `batch` rows of up to `length` tokens, for `further`."""
        return _room(self, batch, length, cross=False)

    def further(self, tokens: jax.Array, at: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """States [B, N, D] of the tokens at positions `at`, `at` + 1, ..., and the new cache.

        For a causal encoder, whose states they then are in a call with all tokens up to there.
        """
        if not self.causal:
            raise ValueError("causal=False: a state depends on later tokens; valid: True")
        if self.position_scheme != "index":
            raise ValueError(f"position_scheme={self.position_scheme!r} has no cache; valid: index")
        first = at + self.position_offset
        x = self.token_embedding[tokens]
        x += jax.lax.dynamic_slice_in_dim(self.position, first, tokens.shape[1])
        if self.token_types:
            x += self.kinds[0]
        x = self.first_norm(x) if self.style.first_norm else x
        x, _, cache = self.transformer(
            x, past(cache, len(tokens), tokens.shape[1], at), cache=cache, at=at
        )
        return x, cache

    def logits(self, states: jax.Array) -> jax.Array:
        """Vocabulary scores [..., V] of states [..., D]: transform, norm, tied embedding (BERT)."""
        untied = self.head_kind == "untied"
        matrix = self.head_kernel if untied else self.token_embedding.T
        if self.head_kind != "tied":
            states = self.head_norm(ACTIVATIONS[self.style.activation](self.head(states)))
        scores = product(states, matrix)
        if self.head_kind != "tied":
            scores += self.head_bias.astype(states.dtype)
        return scores

    def _places(self, mask, positions):
        """The embedding of every token's position, [L, D] or [B, L, D]."""
        first = self.position_offset
        if positions is None and self.position_scheme == "index":
            return self.position[first : first + mask.shape[1]]
        if positions is None:
            positions = jnp.where(mask, jnp.cumsum(mask, axis=1) - 1, -1)
        return self.position[positions + first]


class TextDecoder(nn.Module):
    """A causal transformer that attends over an encoder's states (OPT eq. 9).

    Attributes:
      vocab_size: number of token ids.
      length: the longest output, in tokens.
      languages: number of languages; their embedding tells which one to write in (XLM, arXiv
        1901.07291). 0 for a decoder that is not told.
      stack: how the blocks are made (models/stack.py).
      style: what a block computes (models/style.py).
      position_offset: the position of the first token.
    """

    vocab_size: int
    width: int = 128
    depth: int = 2
    heads: int = 4
    length: int = 64
    expansion: float = 4.0
    dropout: float = 0.0
    languages: int = 0
    stack: Stack = Stack()
    style: Style = Style()
    position_offset: int = 0

    @nn.nowrap
    def start(self, batch: int, length: int) -> Cache:
        """A cache for `batch` rows of up to `length` tokens."""
        return _room(self, batch, length, cross=True)

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        mask: jax.Array | None,
        memory: jax.Array | None,
        memory_mask: jax.Array,
        language: jax.Array | None = None,
        cache: Cache | None = None,
        at: jax.Array | int = 0,
        embedding: jax.Array | None = None,
    ) -> Any:
        """Next-token logits [B, L, V] of the tokens so far [B, L], given memory [B, M, D].

        Args:
          language: int32 [B], needed when `languages` is not 0.
          cache: of the tokens before position `at`, from `start` or an earlier call; `tokens` are then
            those from `at` on, `mask` is None, memory is needed in the first call only, and the
            result is the pair (logits, new cache).
          embedding: [V, D], another network's, in place of one of its own.
        """
        if tokens.shape[1] > self.length:
            raise ValueError(f"text of {tokens.shape[1]} tokens, but length={self.length}")
        normal = nn.initializers.normal(0.02)
        if embedding is None:
            embedding = self.param("token_embedding", normal, (self.vocab_size, self.width))
        first = self.position_offset
        position = self.param("position", normal, (self.length + first, self.width))
        where = position[first : first + tokens.shape[1]]
        if cache is not None:
            where = jax.lax.dynamic_slice_in_dim(position, at + first, tokens.shape[1])
        x = embedding[tokens] + where
        x = told(self, x, language, self.languages)
        if self.style.first_norm:
            x = LayerNorm(self.style.epsilon, name="first_norm")(x)
        x = Dropout(self.dropout)(x)
        transformer = Transformer(
            self.depth,
            self.heads,
            self.expansion,
            self.dropout,
            causal=True,
            cross=True,
            stack=self.stack,
            style=self.style,
            name="transformer",
        )
        x, cache = write(transformer, x, mask, memory, memory_mask, cache, at)
        bias = self.param("head_bias", nn.initializers.zeros, (self.vocab_size,))
        logits = product(x, embedding.T) + bias.astype(x.dtype)
        return logits if cache is None else (logits, cache)


def _room(model: TextEncoder | TextDecoder, batch: int, length: int, cross: bool) -> Cache:
    if length > model.length:
        raise ValueError(f"text of {length} tokens, but length={model.length}")
    return room(model, batch, length, cross)
