"""Units at the place of each token, and what does not count."""

import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.ops.unit_prediction import unit_losses, units_at_tokens


@pytest.mark.parametrize(
    ("units", "unit_rate", "tokens", "token_rate", "expected"),
    [
        (10, 100.0, 5, 50.0, [0, 2, 4, 6, 8]),
        (10, 100.0, 3, 25.0, [0, 4, 8]),
        (5, 50.0, 5, 50.0, [0, 1, 2, 3, 4]),
        (10, 100.0, 4, 100 / 3, [0, 3, 6, 9]),
        (3, 25.0, 5, 50.0, [0, 0, 1, 1, 2]),  # units slower than tokens
        (4, 50.0, 5, 50.0, [0, 1, 2, 3, -1]),  # a token behind the last unit
    ],
)
def test_each_token_takes_the_unit_at_its_place(units, unit_rate, tokens, token_rate, expected):
    rows = jnp.arange(units)[None]
    found = units_at_tokens(rows, tokens, unit_rate=unit_rate, token_rate=token_rate)
    assert found[0].tolist() == expected


def test_a_wrong_rate_is_named():
    with pytest.raises(UserError, match=r"units: 200 at unit_rate=50.0 are 4.00 s, but 100 tokens"):
        units_at_tokens(jnp.zeros((1, 200), jnp.int32), 100, unit_rate=50.0, token_rate=50.0)


def test_tokens_without_unit_weight_or_sound_do_not_count():
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 3)), jnp.float32)
    labels = jnp.array([[0, -1, 2, 1, 1, 0]])
    masked = jnp.array([[1, 1, 0, 0, 1, 1]], bool)
    real = jnp.array([[1, 1, 1, 1, 1, 0]], bool)
    log = np.asarray(scores - np.log(np.exp(scores).sum(-1, keepdims=True)))[0]
    hidden, visible = -(log[0, 0] + log[4, 1]), -(log[2, 2] + log[3, 1])
    for on_masked, on_unmasked, total, count in (
        (1.0, 0.0, hidden, 2),
        (0.0, 0.5, 0.5 * visible, 2),
        (1.0, 0.5, hidden + 0.5 * visible, 4),
    ):
        found = unit_losses(
            scores, labels, masked, real, on_masked=on_masked, on_unmasked=on_unmasked
        )
        np.testing.assert_allclose(found[0], total, rtol=1e-6)
        assert found[1] == count
    metrics = {k: float(a / b) for k, (a, b) in found[2].items()}
    assert metrics["labelled_share"] == pytest.approx(4 / 5)
    assert metrics["masked_share"] == pytest.approx(3 / 5)
    share = np.array([1, 2, 1]) / 4
    perplexity = np.exp(-(share * np.log(share)).sum())
    assert metrics["label_perplexity"] == pytest.approx(perplexity, rel=1e-5)
