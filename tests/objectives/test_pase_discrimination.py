"""PASE's discriminators against loops over rows and states, and the rules of their draws."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.heads import Projection
from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.speech.pase_discrimination import (
    PaseDiscrimination,
    global_triples,
    local_triples,
    other_rows,
    sequence_triples,
)
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.state import init_params
from tests import case as cases

COUNTS = np.array([24, 17, 0, 1, 24])
REAL = np.arange(24) < COUNTS[:, None]
# a state says where it is: row and time
PLACES = np.stack(np.broadcast_arrays(np.arange(5)[:, None], np.arange(24)), axis=-1)
PLACES = np.where(REAL[..., None], PLACES, -99).astype(np.float32)
KEY = jax.random.key(4)


def arrays(triples):
    return [np.asarray(x) for x in triples]


def test_local_pairs_stay_in_their_utterance_and_negatives_leave_it():
    draw = jax.jit(local_triples)
    seen_rows, places = set(), []
    for seed in range(20):
        a, p, n, usable = arrays(draw(jax.random.key(seed), PLACES, REAL))
        np.testing.assert_array_equal(usable, REAL & (COUNTS[:, None] > 1))
        np.testing.assert_array_equal(a, PLACES)
        for b, t in np.argwhere(usable):
            assert p[b, t, 0] == b and p[b, t, 1] != t and 0 <= p[b, t, 1] < COUNTS[b]
            row = int(n[b, t, 0])
            assert row != b and 0 <= n[b, t, 1] < COUNTS[row]
            seen_rows.add((int(b), row))
            if COUNTS[row] > 1:
                places.append(n[b, t, 1] / COUNTS[row])
        # one other utterance for all of an utterance's states
        assert all(len(np.unique(n[b, usable[b], 0])) == 1 for b in (0, 1, 4))
    assert seen_rows == {(b, r) for b in (0, 1, 4) for r in (0, 1, 3, 4) if b != r}
    assert 0.45 < np.mean(places) < 0.5  # uniform over the real states


def test_global_chunks_are_means_of_neighbours():
    draw = jax.jit(lambda key: global_triples(key, PLACES, REAL, chunk=0.5))
    starts = set()
    for seed in range(30):
        a, p, n, usable = arrays(draw(jax.random.key(seed)))
        assert a.shape == (5, 1, 2)
        np.testing.assert_array_equal(usable[:, 0], COUNTS > 0)
        for x in (a, p, n):
            for b in np.flatnonzero(COUNTS):
                row = round(float(x[b, 0, 0]))
                assert (row == b) == (x is not n)
                size = max(COUNTS[row] // 2, 1)
                start = x[b, 0, 1] - (size - 1) / 2  # of times start .. start + size - 1
                np.testing.assert_allclose(start, round(float(start)), atol=1e-4)
                assert -1e-4 < start < COUNTS[row] - size + 1e-4
                if row == 0:
                    starts.add(round(float(start)))
        assert a[0, 0, 1] != p[0, 0, 1] or seed != 0
    assert starts == set(range(13))


def test_sequence_blocks_lie_on_their_sides():
    gap, block = 4, 3
    draw = jax.jit(lambda key: sequence_triples(key, PLACES, REAL, gap=gap, block=block))
    nearest, first, last = [], [], []
    for seed in range(20):
        a, p, n, usable = arrays(draw(jax.random.key(seed)))
        for b in range(5):
            for t in range(24):
                room = t - gap >= block - 1 and t + gap + block <= COUNTS[b]
                assert usable[b, t] == room
                if not room:
                    continue
                later, earlier = p[b, t].reshape(block, 2), n[b, t].reshape(block, 2)
                np.testing.assert_array_equal(a[b, t], [b, t])
                assert (later[:, 0] == b).all() and (earlier[:, 0] == b).all()
                assert (np.diff(later[:, 1]) == 1).all() and (np.diff(earlier[:, 1]) == 1).all()
                assert t + gap <= later[0, 1] and later[-1, 1] < COUNTS[b]
                assert earlier[0, 1] >= 0 and earlier[-1, 1] <= t - gap
                nearest.append((later[0, 1] - t, t - earlier[-1, 1]))
                first.append(earlier[0, 1])
                last.append(COUNTS[b] - 1 - later[-1, 1])
    # all of the room is used
    assert np.min(nearest) == gap and min(first) == 0 and min(last) == 0


def test_other_rows_are_usable_and_uniform():
    usable = jnp.array([True, False, True, True])
    draws = [
        np.asarray(x)
        for x in jax.vmap(lambda k: other_rows(k, usable)[0])(jax.random.split(KEY, 2000)).T
    ]
    for b, row in enumerate(draws):
        allowed = [r for r in (0, 2, 3) if r != b]
        assert set(np.unique(row)) == set(allowed)
        for r in allowed:
            assert abs((row == r).mean() - 1 / len(allowed)) < 0.05
    np.testing.assert_array_equal(other_rows(KEY, jnp.array([True, False]))[1], [False, True])


@pytest.mark.parametrize(
    ("mode", "swapped"),
    [("local", False), ("local", True), ("global", False), ("global", True), ("sequence", False)],
)
def test_loss_is_the_papers(mode, swapped):
    states = np.random.default_rng(0).normal(size=(5, 24, 3)).astype(np.float32)
    head = Projection(features=1, hidden=4)
    width = 12 if mode == "sequence" else 6
    params = jax.jit(head.init)(jax.random.key(1), jnp.zeros((1, width)))
    encoded = Encoded(tokens=jnp.asarray(states), mask=jnp.asarray(REAL))

    def nets(name, *args):
        return encoded if name == "speech" else head.apply(params, *args)

    objective = PaseDiscrimination(
        source="stream", mode=mode, head="head", swapped=swapped, gap=4, block=3
    )
    batch = {"audio": None, "audio_lengths": None}
    loss = jax.jit(lambda: objective.loss(nets, batch, None, KEY))()
    triples = {
        "local": lambda: local_triples(KEY, encoded.tokens, encoded.mask),
        "global": lambda: global_triples(KEY, encoded.tokens, encoded.mask, chunk=0.5),
        "sequence": lambda: sequence_triples(KEY, encoded.tokens, encoded.mask, gap=4, block=3),
    }[mode]
    a, p, n, usable = arrays(jax.jit(triples)())
    score = jax.jit(lambda x, y: head.apply(params, jnp.concatenate([x, y]))[0])
    sets = [(a, p, n), (p, a, n)] if swapped else [(a, p, n)]
    losses, right = [], 0
    for anchor, positive, negative in sets:
        for at in map(tuple, np.argwhere(usable)):
            g, h = (
                1 / (1 + np.exp(-np.float64(score(anchor[at], x[at]))))
                for x in (positive, negative)
            )
            losses += [-np.log(g), -np.log(1 - h)]
            right += int(g > 0.5) + int(h < 0.5)
    np.testing.assert_allclose(loss.value, np.mean(losses), rtol=1e-5)
    total, count = loss.metrics["accuracy"]
    assert (total, count) == (right, len(losses))


def test_nothing_to_tell_apart_costs_nothing():
    modules, objective, params, *_ = cases.built("pase_discrimination")
    batch = {k: v[:1] for k, v in cases.load("pase_discrimination").batch.items()}
    for mode in ("local", "global"):
        alone = dataclasses.replace(objective, mode=mode)
        nets = BoundNets(modules, params)
        assert jax.jit(lambda b, o=alone, n=nets: o.loss(n, b, None, KEY).value)(batch) == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "lim"}, "mode='lim'; valid: local, global, sequence"),
        ({"chunk": 0.0}, "chunk=0.0"),
        ({"gap": 0}, "gap=0"),
        ({"mode": "sequence", "swapped": True}, "cannot be swapped"),
        ({"head": "mfcc_head"}, "'mfcc_head' gives 30 numbers, needs 1"),
    ],
)
def test_errors_say_what_is_wrong(fields, message):
    modules, objective, *_ = cases.built("pase_discrimination")
    modules = modules | {"mfcc_head": Projection(features=30)}
    batch = {k: jnp.asarray(v) for k, v in cases.load("pase_discrimination").batch.items()}
    objective = dataclasses.replace(objective, **fields)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: init_params(modules, {"x": objective}, {"stream": batch}, 0))
