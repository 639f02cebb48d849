"""Our causal language model as a scorer: the same numbers as its forward pass over the whole text."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.evals.decoding.neural import CausalScorer
from taichu_jax.models.text import TextEncoder
from taichu_jax.ops.vocabulary import CLS
from taichu_jax.training.nets import BoundNets

VOCAB, LENGTH = 12, 6


def run(causal=True):
    encoder = TextEncoder(vocab_size=VOCAB, width=8, depth=1, heads=2, length=LENGTH, causal=causal)
    ids, mask = jnp.zeros((1, LENGTH), jnp.int32), jnp.ones((1, LENGTH), bool)

    def both(module, ids, mask):
        return module.logits(module(ids, mask).tokens)

    params = encoder.init(jax.random.key(0), ids, mask, method=both)["params"]
    experiment = types.SimpleNamespace(networks={"text": encoder}, compute_dtype=None)
    return types.SimpleNamespace(experiment=experiment, params={"text": params}, path="run")


def test_scores_are_those_of_the_whole_text():
    opened = run()
    nets = BoundNets(opened.experiment.networks, opened.params)
    text = (7, 9, 8, 11, 6)
    ids = jnp.array([[CLS, *text]])
    states = nets("text", ids, jnp.ones(ids.shape, bool)).tokens
    expected = jax.nn.log_softmax(nets("text", states, method="logits"))[0]
    scorer = CausalScorer(opened)
    for count in range(len(text) + 1):
        np.testing.assert_allclose(scorer(text[:count]), expected[count], rtol=1e-4, atol=1e-5)
        assert scorer(text[:count]) is scorer(text[:count])  # remembered
    assert np.isfinite(scorer((*text, 7, 8))).all()  # longer than it reads


def test_mistakes_are_named():
    with pytest.raises(UserError, match="no network 'txt'; did you mean 'text'"):
        CausalScorer(run(), "txt")
    with pytest.raises(UserError, match="'text' is no causal language model"):
        CausalScorer(run(causal=False))
