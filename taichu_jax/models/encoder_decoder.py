"""A text-to-text network: an encoder and a decoder over its states, with one embedding of tokens (BART,
arXiv 1910.13461)."""

from __future__ import annotations

from typing import Any

import jax
from flax import linen as nn

from taichu_jax.models.cache import Cache
from taichu_jax.models.layers import Encoded
from taichu_jax.models.style import Style
from taichu_jax.models.text import TextDecoder, TextEncoder
from taichu_jax.models.transformer import Stack


class EncoderDecoder(nn.Module):
    """`TextEncoder` and `TextDecoder`; called as such it is the encoder.

    Attributes:
      vocab_size: number of token ids.
      depth, decoder_depth: number of blocks.
      length: the longest text that is read, and written, in tokens.
      position_offset: the position of the first token (BART: 2).
      stack: how the blocks are made (models/stack.py).
      style: what a block computes (models/style.py).
    """

    vocab_size: int
    width: int = 128
    depth: int = 2
    decoder_depth: int = 2
    heads: int = 4
    length: int = 64
    expansion: float = 4.0
    dropout: float = 0.0
    position_offset: int = 0
    stack: Stack = Stack()
    style: Style = Style()

    def setup(self):
        common = self._common()
        self.encoder = TextEncoder(depth=self.depth, head_kind="tied", **common)
        self.decoder = TextDecoder(depth=self.decoder_depth, **common)

    def __call__(self, *args: Any, **kwargs: Any) -> Encoded:
        """Encodes token ids, see `TextEncoder`."""
        return self.encoder(*args, **kwargs)

    @nn.nowrap
    def start(self, batch: int, length: int) -> Cache:
        """A cache of the decoder for `batch` rows of up to `length` tokens."""
        decoder = TextDecoder(depth=self.decoder_depth, parent=None, **self._common())
        return decoder.start(batch, length)

    def decode(
        self,
        tokens: jax.Array,
        mask: jax.Array | None,
        memory: jax.Array | None,
        memory_mask: jax.Array,
        cache: Cache | None = None,
        at: jax.Array | int = 0,
    ) -> Any:
        """Next-token logits [B, L, V] of tokens, given the encoder's states; see `TextDecoder`."""
        embedding = self.encoder.token_embedding
        return self.decoder(
            tokens, mask, memory, memory_mask, cache=cache, at=at, embedding=embedding
        )

    @nn.nowrap
    def _common(self) -> dict[str, Any]:
        """The fields of both sides."""
        return {
            "vocab_size": self.vocab_size,
            "width": self.width,
            "heads": self.heads,
            "length": self.length,
            "expansion": self.expansion,
            "dropout": self.dropout,
            "position_offset": self.position_offset,
            "stack": self.stack,
            "style": self.style,
        }
