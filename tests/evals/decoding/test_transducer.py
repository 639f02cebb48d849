"""Greedy transducer decoding of a batch against a plain loop over each row."""

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.evals.decoding.transducer import BLANK, greedy
from taichu_jax.models.layers import Encoded
from taichu_jax.models.transducer import Joiner, Predictor
from taichu_jax.training.nets import BoundNets

VOCAB, WIDTH, LENGTH = 10, 6, 5
LENGTHS = np.array([7, 4, 1, 0, 7])


def test_equals_a_loop_over_each_row():
    rng = np.random.default_rng(0)
    states = jnp.asarray(rng.normal(size=(5, 7, WIDTH)) * 2, jnp.float32)
    modules = {
        "predictor": Predictor(vocab_size=VOCAB, width=WIDTH),
        "joiner": Joiner(vocab_size=VOCAB, hidden=WIDTH),
    }
    labels = jnp.zeros((5, LENGTH), jnp.int32)
    predictor = modules["predictor"].init(jax.random.key(0), labels)["params"]
    written = jnp.zeros((5, LENGTH + 1, WIDTH))
    joiner = modules["joiner"].init(jax.random.key(1), states, written)["params"]
    joiner = jax.tree.map(lambda x: 3.0 * x, joiner)
    joiner["written"]["kernel"] *= 4.0  # so that what was written matters as well as what is heard
    joiner["scores"]["bias"] = jnp.zeros(VOCAB).at[BLANK].set(6.0)
    nets = BoundNets(modules, {"predictor": predictor, "joiner": joiner})
    mask = jnp.arange(7) < LENGTHS[:, None]
    got = jax.jit(
        lambda s, m: greedy(nets, "predictor", "joiner", Encoded(tokens=s, mask=m), LENGTH)
    )(states, mask)

    @jax.jit
    def all_scores(labels):
        return nets("joiner", states, nets("predictor", labels))

    counts = set()
    for row, frames in enumerate(LENGTHS):
        text, t = [], 0
        while t < frames:
            padded = np.zeros((5, LENGTH), np.int32)
            padded[row, : len(text)] = text
            best = int(all_scores(padded)[row, t, len(text)].argmax())
            if best == BLANK or len(text) == LENGTH:
                t += 1
            else:
                text.append(best)
        counts.add(len(text))
        assert got[row].tolist() == text + [BLANK] * (LENGTH - len(text))
    assert len(counts) > 2  # rows of several lengths, or little is tested
