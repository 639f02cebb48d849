"""FLAVA's fusion: what it reads, in which order, and what it does not see."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.models.layers import Encoded
from taichu_jax.models.pair_fusion import PairFusion

DRAW = np.random.default_rng(0)
MASK = np.array([[True, True, True], [True, True, False]])


def encoded(length, width, mask=None):
    """The last layer alone is read: neither the tokens nor the other layers."""
    first, last = DRAW.normal(size=(2, 2, length, width)).astype(np.float32)
    mask = np.ones((2, length), bool) if mask is None else mask
    return Encoded(
        tokens=jnp.full_like(last, jnp.nan), mask=jnp.asarray(mask), layers=(first * jnp.nan, last)
    )


def test_the_order_the_mask_and_what_is_read():
    """[CLS], the picture's states, the text's; nothing is added; padding is not seen."""
    image, text = encoded(4, 6), encoded(3, 5, MASK)
    model = PairFusion(width=8, depth=1, heads=2)

    @jax.jit
    def run(image, text):
        params = model.init(jax.random.key(0), image=image, text=text)["params"]
        return params, model.apply({"params": params}, image=image, text=text)

    params, fused = run(image, text)
    assert fused.tokens.shape == (2, 1 + 4 + 3, 8)
    np.testing.assert_array_equal(fused.mask, np.concatenate([np.ones((2, 5), bool), MASK], 1))
    stream = np.asarray(fused.layers[0])
    np.testing.assert_allclose(stream[:, 0], np.tile(params["cls_token"], (2, 1)), rtol=1e-6)
    for name, part, start in (("image", image, 1), ("text", text, 5)):
        dense = params[f"{name}_input"]
        expected = np.asarray(part.layers[-1]) @ dense["kernel"] + dense["bias"]
        found = stream[:, start : start + expected.shape[1]]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    states = np.where(MASK[..., None], text.layers[-1], 9.0)
    _, spoiled = run(image, text.replace(layers=(text.layers[0], jnp.asarray(states))))
    seen = np.asarray(fused.mask)
    np.testing.assert_allclose(spoiled.tokens[seen], fused.tokens[seen], rtol=1e-5, atol=1e-6)
