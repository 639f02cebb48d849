"""The predictor sees the labels before only; the joiner is the papers' sums."""

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.models.transducer import Joiner, Predictor


def test_a_prediction_depends_on_the_labels_written_so_far():
    predictor = Predictor(vocab_size=12, width=4)
    labels = jnp.array([[6, 7, 8, 9]])
    params = predictor.init(jax.random.key(0), labels)
    call = jax.jit(predictor.apply)
    states = call(params, labels)
    assert states.shape == (1, 5, 4)
    for u in range(4):
        changed = call(params, labels.at[0, u].set(11))
        same = np.abs(np.asarray(changed - states)).max(-1)[0] == 0
        assert same.tolist() == [i <= u for i in range(5)]


def test_the_joiner_adds_or_has_a_layer_between():
    rng = np.random.default_rng(0)
    states, written = rng.normal(size=(2, 3, 5)), rng.normal(size=(2, 4, 6))
    states, written = states.astype(np.float32), written.astype(np.float32)
    for hidden in (0, 7):
        joiner = Joiner(vocab_size=9, hidden=hidden)
        params = joiner.init(jax.random.key(1), states, written)
        scores = np.asarray(joiner.apply(params, states, written))
        p = jax.tree.map(np.asarray, params["params"])
        for b, t, u in np.ndindex(2, 3, 4):
            both = states[b, t] @ p["heard"]["kernel"] + p["heard"]["bias"]
            both = both + written[b, u] @ p["written"]["kernel"]
            if hidden:
                both = np.tanh(both) @ p["scores"]["kernel"] + p["scores"]["bias"]
            np.testing.assert_allclose(scores[b, t, u], both, rtol=1e-4, atol=1e-5)
