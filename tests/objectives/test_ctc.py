"""CTC against the sum over all paths, one by one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.speech.ctc import BLANK, CTC, states_needed
from taichu_jax.ops.vocabulary import CLS, SEP, UNK

STATES, VOCAB, LENGTH = 5, 8, 7
# (labels, states): a text, a repeat, an unknown character, one with as many states as it needs, one with
# one too few, no text, no sound.
ROWS = [
    ([6, 7], 5),
    ([6, 6], 4),
    ([UNK, 7, 6], 5),
    ([6, 6, 7], 4),
    ([7, 7, 6], 3),
    ([], 5),
    ([6], 0),
]


class Given:
    """Networks that return given scores."""

    step = jnp.int32(0)

    def __init__(self, scores, mask):
        self.encoded = Encoded(tokens=scores, mask=mask)

    def __call__(self, name, *args):
        return self.encoded if name == "speech" else args[0]


def batch():
    text, mask = np.full((len(ROWS), LENGTH), 7, np.int32), np.zeros((len(ROWS), LENGTH), bool)
    for row, (labels, _) in enumerate(ROWS):
        ids = [CLS, *labels, SEP] if labels else []
        text[row, : len(ids)], mask[row, : len(ids)] = ids, True
    states = np.array([n for _, n in ROWS], np.int32)
    return {
        "text": jnp.asarray(text),
        "text_mask": jnp.asarray(mask),
        "mel": jnp.zeros((len(ROWS), STATES + 1, 1)),
        "mel_lengths": jnp.asarray(states),
    }


def merged(path):
    return [i for i, _ in itertools.groupby(path) if i != BLANK]


def enumerated(scores, labels):
    """- log of the sum over all paths that read as `labels`."""
    p = np.exp(scores - np.log(np.exp(scores).sum(-1, keepdims=True)))
    total = sum(
        np.prod([p[t, i] for t, i in enumerate(path)])
        for path in itertools.product({BLANK, *labels}, repeat=len(p))
        if merged(path) == labels
    )
    return -np.log(total)


@pytest.mark.parametrize("average", ["characters", "utterances"])
def test_loss_is_the_sum_over_all_paths(average):
    scores = np.random.default_rng(0).normal(size=(len(ROWS), STATES, VOCAB)) * 2
    mask = jnp.arange(STATES) < batch()["mel_lengths"][:, None]
    objective = CTC(source="stream", average=average)
    loss = jax.jit(lambda s: objective.loss(Given(s, mask), batch(), None, jax.random.key(0)))(
        jnp.asarray(scores, jnp.float32)
    )
    expected = [enumerated(scores[r, :n], labels) for r, (labels, n) in enumerate(ROWS[:4])]
    characters = sum(len(labels) for labels, _ in ROWS[:4])
    divisor = characters if average == "characters" else 4
    np.testing.assert_allclose(loss.value, sum(expected) / divisor, rtol=1e-5)
    np.testing.assert_allclose(
        loss.metrics["per_character"], (sum(expected), characters), rtol=1e-5
    )
    assert tuple(loss.metrics["too_long"]) == (1, 5)
    assert tuple(loss.metrics["used_rows"]) == (4, 7)
    real = np.asarray(mask)
    blanks = (scores.argmax(-1) == BLANK)[real]
    np.testing.assert_allclose(loss.metrics["blank_share"], (blanks.sum(), real.sum()))


def test_states_needed_count_repeats_of_real_labels():
    labels = jnp.array([[6, 6, 7, 7], [6, 7, 6, 7], [6, 6, 6, 6], [0, 0, 0, 0]])
    assert states_needed(labels, jnp.array([4, 4, 2, 0])).tolist() == [6, 4, 3, 0]


def test_rows_without_a_path_give_no_gradient():
    mask = jnp.arange(STATES) < batch()["mel_lengths"][:, None]
    objective = CTC(source="stream")

    def value(scores):
        return objective.loss(Given(scores, mask), batch(), None, jax.random.key(0)).value

    scores = jax.random.normal(jax.random.key(1), (len(ROWS), STATES, VOCAB))
    grads = np.abs(np.asarray(jax.jit(jax.grad(value))(scores))).max((1, 2))
    assert (grads[:4] > 0).all() and (grads[4:] == 0).all()
