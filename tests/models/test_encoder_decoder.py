"""The text-to-text network; whole models: tests/parity/test_bart.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from taichu_jax.inference.decoding import attending
from taichu_jax.models.encoder_decoder import EncoderDecoder
from taichu_jax.models.style import Style
from taichu_jax.training.nets import BoundNets

DRAW = np.random.default_rng(0)
TOKENS = DRAW.integers(6, 20, (2, 7)).astype(np.int32)
MASK = np.arange(7) < np.array([[7], [4]])


@pytest.fixture(scope="module")
def model():
    style = Style(norm="post", first_norm=True, final_norm=False)
    module = EncoderDecoder(
        vocab_size=20, width=8, heads=2, decoder_depth=1, length=7, position_offset=2, style=style
    )

    def create():
        nothing = jnp.zeros((1, 7, 8))
        args = (TOKENS[:1], MASK[:1], nothing, MASK[:1])
        decoder = module.init(jax.random.key(0), *args, method="decode")
        return module.init(jax.random.key(0), TOKENS, MASK), decoder

    encoder, decoder = jax.eval_shape(create)
    paths = [traverse_util.flatten_dict(x["params"], sep="/") for x in (encoder, decoder)]
    draw = lambda s: 0.5 * DRAW.normal(size=s.shape).astype(np.float32)  # noqa: E731
    flat = {path: jnp.asarray(draw(shape)) for path, shape in (paths[0] | paths[1]).items()}
    return module, traverse_util.unflatten_dict(flat, sep="/")


def test_one_embedding_of_tokens(model):
    _, params = model
    paths = traverse_util.flatten_dict(params, sep="/")
    assert [p for p in paths if p.endswith("token_embedding")] == ["encoder/token_embedding"]
    assert paths["encoder/position"].shape == paths["decoder/position"].shape == (9, 8)


def test_step_by_step_is_all_at_once(model):
    """With the keys and values of earlier steps, and of what was read."""
    module, params = model
    nets = BoundNets({"text": module}, {"text": params})

    @jax.jit
    def run(tokens):
        read = nets("text", tokens, MASK)
        everywhere = jnp.ones((2, 7), bool)
        whole = nets("text", tokens, everywhere, read.tokens, read.mask, method="decode")
        decoder = attending(nets, "text", 7, method="decode")
        cache, steps = decoder.start(read), []
        for i in range(7):
            logits, cache = decoder.step(cache, tokens[:, i], jnp.asarray(i))
            steps.append(logits)
        return whole, jnp.stack(steps, 1)

    whole, steps = run(TOKENS)
    np.testing.assert_allclose(steps, whole, atol=1e-4)
    assert np.ptp(whole, axis=1).min() > 1e-2
