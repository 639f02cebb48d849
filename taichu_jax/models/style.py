"""What a block computes, where published transformers differ.

Every network with a transformer that can take the weights of other libraries has one field `style` of
this kind. The defaults are the blocks of this project: pre-norm, exact GELU, an epsilon of 1e-6.
"""

from __future__ import annotations

import dataclasses

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.models.layers import ACTIVATIONS

NORMS = ("pre", "post")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """Settings of the blocks of one network.

    Attributes:
      norm: 'pre' is x + f(norm(x)), 'post' is norm(x + f(x)) (arXiv 1706.03762, BERT).
      first_norm: a layer norm before the first block (BERT, the base wav2vec 2.0, CLIP's pictures).
      final_norm: a layer norm behind the last block; networks with post-norm have none.
      epsilon: of every layer norm.
      activation: of the feed-forward layers: 'gelu' exact, 'gelu_tanh' (GPT-2), 'quick_gelu' (CLIP),
        'relu', 'silu'.
      gated: what the activation gives is multiplied by a second product (arXiv 2002.05202); with 'silu'
        that is SwiGLU (the giant DINOv2).
      query_bias, key_bias, value_bias, out_bias: whether these products of the attention have one.
      layer_scale: what a factor per channel on every f(x) starts from (arXiv 2103.17239; BEiT, DINOv2);
        0 for no such factor.
    """

    norm: str = "pre"
    first_norm: bool = False
    final_norm: bool = True
    epsilon: float = 1e-6
    activation: str = "gelu"
    gated: bool = False
    query_bias: bool = True
    key_bias: bool = True
    value_bias: bool = True
    out_bias: bool = True
    layer_scale: float = 0.0

    def __post_init__(self):
        for name, valid in (("norm", NORMS), ("activation", ACTIVATIONS)):
            value = getattr(self, name)
            if value not in valid:
                raise UserError(f"style.{name}={value!r}; {choices(value, valid)}")
        if not self.epsilon > 0:
            raise UserError(f"style.epsilon={self.epsilon}: must be above 0")
