"""Which symbol a frame says: monotonic alignments of text and speech without anybody's marks.

One TTS Alignment To Rule Them All (arXiv 2108.10447), from RAD-TTS; monotonic alignment search from
Glow-TTS (arXiv 2005.11129, algorithm 1). An alignment gives every frame one symbol: the first frame the
first one, the last frame the last one, and from frame to frame the same symbol or the next one. So
every symbol has a frame, and a row with fewer frames than symbols has no alignment.

log_p float [B, F, N] is log p(symbol n | frame t), `frames` and `symbols` int32 [B] what is real of F
and N.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import gammaln
from scipy.special import gammaln as gammaln_of

from taichu_jax.ops.lengths import within

NEVER = -1e9  # log of 0; finite, so that no gradient is NaN


def beta_binomial_prior(
    frames: jax.Array, symbols: jax.Array, shape: tuple[int, int], concentration: float = 1.0
) -> jax.Array:
    """float32 [B, *shape]: log prior of symbol n = 0 .. N - 1 at frame t = 1 .. T, near the diagonal.

        BetaBinomial(n; N - 1, w t, w (T - t + 1)),    w = concentration

    Equation 5 of the paper, over exactly N symbols (RAD-TTS; FastPitch's code has one outcome more,
    which no symbol gets). NEVER outside the real frames and symbols.
    """
    count, places = shape
    frame = jnp.arange(1, count + 1, dtype=jnp.float32)[:, None]
    n = jnp.arange(places)
    last = jnp.maximum(symbols - 1, 0)[:, None, None]
    left = jnp.maximum(last - n, 0)
    factorials = jnp.asarray(gammaln_of(np.arange(1, places + 1)), jnp.float32)
    ways = factorials[last] - factorials - factorials[left]
    # Kept inside the function's domain where nothing is real; those values are replaced below.
    a = concentration * frame
    b = concentration * jnp.maximum(frames[:, None, None] - frame + 1, 1)
    over, under = _log_gamma(n + a, left + b)
    of_a, of_b, both, whole = _log_gamma(a, b, a + b, last + a + b)
    value = ways + over + under - whole - (of_a + of_b - both)
    real = (frame <= frames[:, None, None]) & (n < symbols[:, None, None])
    return jnp.where(real, value, NEVER)


def forward_sum_losses(
    log_p: jax.Array, frames: jax.Array, symbols: jax.Array, blank: float | None = None
) -> jax.Array:
    """float32 [B]: - log of the sum over all alignments s of  prod_t p(s_t | t)  (equations 3 and 4).

    CTC of labels that all differ, without a blank. A row without an alignment has no meaning.

        a(t, n) = (a(t - 1, n) + a(t - 1, n - 1)) p(n | t)

    Args:
      blank: the authors' code has a blank after all, a score of -1 beside the log-probabilities, which
        are then normalised again; None for none.
    """
    log_p = log_p.astype(jnp.float32)
    rows, size, places = log_p.shape
    if blank is not None:
        scores = jnp.where(within(symbols, places)[:, None], log_p, NEVER)
        return optax.ctc_loss(
            jnp.pad(scores, ((0, 0), (0, 0), (1, 0)), constant_values=blank),
            1.0 - within(frames, size),
            jnp.broadcast_to(jnp.arange(1, places + 1), (rows, places)),
            1.0 - within(symbols, places),
        )
    first = jnp.full((rows, places), NEVER).at[:, 0].set(log_p[:, 0, 0])

    def further(a, step):
        t, score = step
        later = jnp.logaddexp(a, _shifted(a, NEVER)) + score
        return jnp.where((t < frames)[:, None], later, a), None

    a, _ = jax.lax.scan(further, first, (jnp.arange(1, size), jnp.moveaxis(log_p, 1, 0)[1:]))
    return -a[jnp.arange(rows), jnp.maximum(symbols - 1, 0)]


def monotonic_alignment(log_p: jax.Array, frames: jax.Array, symbols: jax.Array) -> jax.Array:
    """int32 [B, F]: the symbol of every frame in the likeliest alignment; exact, of cost F N.

        q(t, n) = log p(n | t) + max(q(t - 1, n), q(t - 1, n - 1))

    Of two equal ones the alignment that goes on later. Behind the last frame stands the last symbol. A
    row without an alignment has no meaning.
    """
    log_p = jax.lax.stop_gradient(log_p).astype(jnp.float32)
    rows, size, places = log_p.shape
    steps = jnp.moveaxis(log_p, 1, 0)
    first = jnp.full((rows, places), NEVER).at[:, 0].set(steps[0, :, 0])

    def further(q, score):
        moved = _shifted(q, 2 * NEVER)
        return jnp.maximum(q, moved) + score, moved > q

    _, moves = jax.lax.scan(further, first, steps[1:])  # [F - 1, B, N]: from the symbol before
    row = jnp.arange(rows)

    def back(symbol, step):
        t, move = step
        before = jnp.maximum(symbol - (move[row, symbol] & (t < frames)), 0)
        return before, before

    last = jnp.maximum(symbols - 1, 0).astype(jnp.int32)
    _, path = jax.lax.scan(back, last, (jnp.arange(1, size), moves), reverse=True)
    return jnp.concatenate([path, last[None]]).T


def durations_of(alignment: jax.Array, frames: jax.Array, places: int) -> jax.Array:
    """int32 [B, places]: how many of the first `frames` frames of alignment [B, F] each symbol has."""
    real = within(frames, alignment.shape[1])
    held = (alignment[..., None] == jnp.arange(places)) & real[..., None]
    return held.sum(1, dtype=jnp.int32)


def _log_gamma(*arrays: jax.Array) -> jax.Array:
    """Of all of them at once, [len(arrays), ...]: the function is long to compile."""
    return gammaln(jnp.stack(jnp.broadcast_arrays(*arrays)))


def _shifted(x: jax.Array, first: float) -> jax.Array:
    """x [B, N] one place later, `first` in place 0."""
    return jnp.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=first)
