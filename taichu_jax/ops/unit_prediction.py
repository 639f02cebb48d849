"""Cross entropy of discrete units at hidden and at visible tokens (HuBERT, WavLM)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.errors import UserError
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.codebooks import code_shares
from taichu_jax.ops.monitors import perplexity
from taichu_jax.ops.normalise import unit

NONE = -1  # where there is no unit
Metric = tuple[jax.Array, jax.Array]


def units_at_tokens(
    units: jax.Array, tokens: int, *, unit_rate: float, token_rate: float
) -> jax.Array:
    """int32 [B, tokens]: of units [B, K] the one at each token's place, floor(n unit_rate / token_rate).

    -1 behind the last unit. This is how fairseq joins units of 100 per second to 50 tokens.

    Raises:
      UserError: K units and these tokens do not last equally long at their rates.
    """
    lasts, last = units.shape[1] / unit_rate, tokens / token_rate
    if abs(lasts - last) >= 2 * max(1 / unit_rate, 1 / token_rate):
        raise UserError(
            f"units: {units.shape[1]} at unit_rate={unit_rate} are {lasts:.2f} s, but {tokens} tokens "
            f"at {token_rate:g} a second are {last:.2f} s; unit_rate must be the stream's"
        )
    index = np.floor(np.arange(tokens) * (unit_rate / token_rate) + 1e-6).astype(np.int32)
    found = units[:, np.minimum(index, units.shape[1] - 1)]
    return jnp.where(index < units.shape[1], found, NONE)


def code_scores(states: jax.Array, codes: jax.Array, temperature: float) -> jax.Array:
    """Cosines of states [B, N, D] with codes [C, D], over the temperature: float32 [B, N, C]."""
    return jnp.einsum("bnd,cd->bnc", unit(states), unit(codes)) / temperature


def unit_losses(
    scores: jax.Array,
    labels: jax.Array,
    masked: jax.Array,
    real: jax.Array,
    *,
    on_masked: float,
    on_unmasked: float,
) -> tuple[jax.Array, jax.Array, dict[str, Metric]]:
    """(weighted sum of -log p(label), number of tokens with a weight, metrics).

    Args:
      scores: [B, N, C].
      labels: int32 [B, N], -1 where there is none: such tokens do not count.
      masked, real: bool [B, N].
      on_masked, on_unmasked: the weights; of a weight 0 the tokens are not counted either, as in
        fairseq.
    """
    there = real & (labels >= 0)
    safe = jnp.maximum(labels, 0)
    hidden, visible = there & masked, there & ~masked
    at_hidden = cross_entropy(scores, safe, hidden)
    at_visible = cross_entropy(scores, safe, visible)
    total, count = jnp.zeros(()), jnp.zeros(())
    for weight, (part, _, number) in ((on_masked, at_hidden), (on_unmasked, at_visible)):
        if weight:
            total, count = total + weight * part, count + number
    size = scores.shape[-1]
    metrics = {
        "masked_loss": (at_hidden[0], at_hidden[2]),
        "masked_accuracy": at_hidden[1:],
        "unmasked_loss": (at_visible[0], at_visible[2]),
        "unmasked_accuracy": at_visible[1:],
        "label_perplexity": perplexity(code_shares(safe[..., None], there, size)),
        "prediction_perplexity": perplexity(code_shares(scores.argmax(-1)[..., None], there, size)),
        "labelled_share": (there.sum().astype(jnp.float32), real.sum().astype(jnp.float32)),
        "masked_share": (
            (masked & real).sum().astype(jnp.float32),
            real.sum().astype(jnp.float32),
        ),
    }
    return total, count, metrics
