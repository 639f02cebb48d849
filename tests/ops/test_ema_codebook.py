"""Moving averages of a codebook against NumPy loops over vectors and steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from taichu_jax.ops.codebooks import nearest
from taichu_jax.ops.ema_codebook import (
    CodebookAverages,
    draw_where,
    follow,
    no_averages,
    revive,
    smoothed,
)
from taichu_jax.training.sharding import MeshShape

CODES, DIM, COUNT, DECAY = 6, 3, 40, 0.8
RNG = np.random.default_rng(0)
ENTRIES = RNG.normal(size=(CODES, DIM)).astype(np.float32)
follow_step = jax.jit(follow, static_argnames="decay")
revive_step = jax.jit(revive, static_argnames="threshold")


def step_of(seed, entries):
    """Vectors, the entry nearest to each, and which of them count."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(COUNT, DIM)).astype(np.float32)
    chosen = np.asarray(nearest(jnp.asarray(vectors), jnp.asarray(entries)))
    return vectors, chosen, rng.uniform(size=COUNT) < 0.7


def reference(counts, sums, vectors, chosen, where):
    """One step in float64: (counts, sums, entries)."""
    new_counts, new_sums = np.zeros(CODES), np.zeros((CODES, DIM))
    for vector, code, counted in zip(vectors, chosen, where, strict=True):
        if counted:
            new_counts[code] += 1
            new_sums[code] += vector
    counts = DECAY * counts + (1 - DECAY) * new_counts
    sums = DECAY * sums + (1 - DECAY) * new_sums
    total = sum(counts)
    entries = np.zeros_like(sums)
    for i in range(CODES):
        entries[i] = sums[i] / ((counts[i] + 1e-5) / (total + CODES * 1e-5) * total)
    return counts, sums, entries


def test_nearest_is_the_smallest_distance():
    vectors = RNG.normal(size=(4, 5, DIM))
    codes = nearest(jnp.asarray(vectors, jnp.float32), jnp.asarray(ENTRIES))
    assert codes.shape == (4, 5) and codes.dtype == jnp.int32
    for index in np.ndindex(4, 5):
        distances = [np.linalg.norm(vectors[index] - e) for e in ENTRIES]
        assert codes[index] == np.argmin(distances)


def test_averages_are_the_formula_over_several_steps():
    averages, entries = no_averages(CODES, DIM), ENTRIES
    counts, sums = np.ones(CODES), ENTRIES.astype(np.float64)
    for seed in range(4):
        step = step_of(seed, entries)
        averages = follow_step(averages, ENTRIES, *step, decay=DECAY)
        counts, sums, entries = reference(counts, sums, *step)
        np.testing.assert_allclose(averages.counts, counts, rtol=1e-5)
        np.testing.assert_allclose(averages.sums, sums, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(averages.entries, entries, rtol=1e-4, atol=1e-5)


def test_what_nobody_chooses_stays_and_nothing_present_changes_nothing():
    vectors, chosen, where = step_of(0, ENTRIES)
    chosen = np.where(chosen == 2, 3, chosen)
    averages = follow_step(no_averages(CODES, DIM), ENTRIES, vectors, chosen, where, decay=DECAY)
    np.testing.assert_allclose(averages.entries[2], ENTRIES[2], rtol=1e-3)
    none = np.zeros(COUNT, bool)
    for before in (no_averages(CODES, DIM), averages):
        after = follow_step(before, ENTRIES, vectors, chosen, none, decay=DECAY)
        jax.tree.map(np.testing.assert_array_equal, after, before)
        kept, revived = revive_step(
            after, jnp.asarray(vectors), none, threshold=9.0, rng=jax.random.key(0)
        )
        jax.tree.map(np.testing.assert_array_equal, kept, before)
        assert revived == 0
    assert not no_averages(CODES, DIM).started and averages.started
    assert np.isfinite(no_averages(CODES, DIM).entries).all()


def test_smoothing_keeps_the_sum_and_leaves_no_zero():
    counts = jnp.array([0.0, 3.0, 1.0])
    np.testing.assert_allclose(smoothed(counts).sum(), 4.0, rtol=1e-6)
    assert smoothed(counts)[0] > 0


def test_dead_entries_become_vectors_that_count_and_the_others_stay():
    vectors, _, where = step_of(1, ENTRIES)
    counts = jnp.array([0.2, 5.0, 0.99, 1.0, 2.0, 0.0])
    averages = CodebookAverages(counts, counts[:, None] * ENTRIES)
    new, revived = revive_step(
        averages, jnp.asarray(vectors), where, threshold=1.0, rng=jax.random.key(3)
    )
    assert revived == 3
    np.testing.assert_array_equal(new.counts, [1.0, 5.0, 1.0, 1.0, 2.0, 1.0])
    candidates = vectors[where]
    for code in range(CODES):
        if code in (0, 2, 5):
            assert np.abs(candidates - np.asarray(new.entries[code])).max(-1).min() < 1e-5
        else:
            np.testing.assert_array_equal(new.sums[code], averages.sums[code])


def test_draws_are_uniform_over_what_counts():
    where = np.array([False, True, True, False, True, True, False])
    draws = 40_000
    found = np.bincount(draw_where(jax.random.key(5), jnp.asarray(where), draws), minlength=7)
    assert not found[~where].any()
    deviation = np.sqrt(draws * 0.25 * 0.75)
    assert np.abs(found[where] - draws / 4).max() < 4 * deviation
    apart = [
        np.asarray(draw_where(jax.random.key(k), jnp.asarray(where), 8)).tolist() for k in (0, 1)
    ]
    assert apart[0] != apart[1]
    assert draw_where(jax.random.key(0), jnp.zeros(7, bool), 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize("shape", [MeshShape(data=8), MeshShape(data=2, fsdp=2, tensor=2)])
def test_one_device_equals_eight(shape):
    """The statistics are those of the global batch, and so are the draws."""

    def step(vectors, where):
        chosen = nearest(vectors, jnp.asarray(ENTRIES))
        averages = follow(no_averages(CODES, DIM), ENTRIES, vectors, chosen, where, DECAY)
        return revive(averages, vectors, where, 1.5, jax.random.key(7))

    vectors, _, where = step_of(2, ENTRIES)
    alone = jax.jit(step)(vectors, where)
    where_on = NamedSharding(shape.make(), P(("data", "fsdp")))
    spread = jax.jit(step)(*jax.device_put((vectors, where), where_on))
    assert alone[1] > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), spread, alone)
