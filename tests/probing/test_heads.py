"""The heads that are trained: against NumPy, on planted signals, and whatever lies in the padding."""

import numpy as np
import pytest

from taichu_jax.probing.heads import attentive, weighted_sum

DRAW = np.random.default_rng(0)
COUNT, TOKENS, WIDTH = 96, 5, 6


@pytest.fixture(scope="module")
def needles():
    """One of the real tokens says the class and the others drown it in the mean; padding is garbage."""
    labels = DRAW.integers(0, 2, 2 * COUNT)
    states = DRAW.normal(size=(2 * COUNT, TOKENS, WIDTH))
    mask = np.arange(TOKENS) < DRAW.integers(2, TOKENS + 1, 2 * COUNT)[:, None]
    for i, label in enumerate(labels):
        place = DRAW.integers(0, mask[i].sum())
        states[i, place] = 0
        states[i, place, 0] = 4.0  # here it is,
        states[i, place, 1] = 4.0 * (2 * label - 1)  # and this it says
    states[:, :, 1] += np.where(states[:, :, 0] > 3.9, 0, 4 * DRAW.normal(size=mask.shape))
    return states.astype(np.float16), mask, labels


def test_attention_finds_the_token_that_matters(needles):
    states, mask, labels = needles
    development = np.arange(COUNT) % 5 == 0

    def predicted(states):
        train, test = (states[:COUNT], mask[:COUNT]), (states[COUNT:], mask[COUNT:])
        return attentive.predict(train, labels[:COUNT], development, test, 2)

    found = predicted(states)
    right = (found == labels[COUNT:]).mean()
    means = (states * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    linear = ((means[COUNT:, 1] > 0) == labels[COUNT:]).mean()
    assert right > 0.85 > linear
    garbage = np.where(mask[..., None], states, np.float16(1e4))
    np.testing.assert_array_equal(predicted(garbage), found)


def test_attentive_logits_are_those_of_the_formula():
    params = {
        "mean": DRAW.normal(size=WIDTH),
        "inverse": DRAW.random(WIDTH) + 0.5,
        "query": DRAW.normal(size=(attentive.HEADS, WIDTH)),
        "kernel": DRAW.normal(size=(attentive.HEADS * WIDTH, 3)),
        "bias": DRAW.normal(size=3),
    }
    states = DRAW.normal(size=(2, 3, WIDTH))
    mask = np.array([[True, True, False], [True, True, True]])
    found = attentive.logits({k: np.float32(v) for k, v in params.items()}, states, mask)
    for example in range(2):
        x = (states[example] - params["mean"]) * params["inverse"]
        parts = []
        for query in params["query"]:
            weight = np.array(
                [np.exp(x[t] @ query / WIDTH**0.5) if mask[example, t] else 0 for t in range(3)]
            )
            parts.append(sum(weight[t] / weight.sum() * x[t] for t in range(3)))
        wanted = np.concatenate(parts) @ params["kernel"] + params["bias"]
        np.testing.assert_allclose(found[example], wanted, rtol=1e-4)


def test_the_sum_prefers_the_layer_that_knows():
    labels = DRAW.integers(0, 3, 200)
    states = DRAW.normal(size=(200, 3, 8))
    states[:, 1, :3] += 1.2 * np.eye(3)[labels]
    states[:, 2] *= 100  # large, and knows nothing
    development = np.arange(120) % 5 == 0
    found = weighted_sum.predict(states[:120], labels[:120], development, states[120:], 3)
    assert found.shares.argmax() == 1 and found.shares.sum() == pytest.approx(1)
    assert (found.labels == labels[120:]).mean() > 0.55
