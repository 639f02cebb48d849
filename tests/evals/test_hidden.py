"""Hidden states for probes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from taichu_jax.evals.hidden import at_rate


def test_slower_states_are_means_of_what_is_real():
    rng = np.random.default_rng(0)
    states, lengths = rng.normal(size=(3, 7, 2)), [7, 4, 0]
    mask = np.arange(7) < np.array(lengths)[:, None]
    slow, real = at_rate(jnp.asarray(states), jnp.asarray(mask), 3)
    assert slow.shape == (3, 3, 2)
    for row, length in enumerate(lengths):
        for i in range(3):
            chosen = states[row, 3 * i : min(3 * i + 3, length)]
            assert real[row, i] == bool(len(chosen))
            expected = chosen.mean(0) if len(chosen) else np.zeros(2)
            np.testing.assert_allclose(slow[row, i], expected, atol=1e-6)
