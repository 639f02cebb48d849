"""The decoder of codes: what each logit may depend on, the cache, positions of a grid."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.code_decoder import CodeDecoder
from taichu_jax.ops.delay import step_count

TOKENS, STAGES, ENTRIES, WIDTH = 4, 3, 5, 8
STEPS = step_count(TOKENS, STAGES, ends=True)
VOICE = CodeDecoder(
    entries=ENTRIES,
    length=STEPS,
    stages=STAGES,
    ends=True,
    languages=2,
    width=WIDTH,
    depth=2,
    heads=2,
)
RNG = np.random.default_rng(0)
CODES = jnp.asarray(RNG.integers(0, ENTRIES, (1, TOKENS, STAGES)))
MEMORY = jnp.asarray(RNG.normal(size=(1, 3, 6)), jnp.float32)
SEEN = jnp.array([[True, True, False]])


@functools.cache
def params():
    ids = VOICE.read(VOICE.delayed(CODES).ids)
    args = (ids, jnp.ones(ids.shape[:2], bool), MEMORY, SEEN, jnp.zeros(1, int))
    started = jax.jit(VOICE.init)(jax.random.key(0), *args)
    # Larger than at the start, so that every path matters.
    return jax.tree.map(
        lambda x: x + 0.3 * jnp.sin(1.0 + jnp.arange(x.size)).reshape(x.shape), started
    )


def logits(codes, memory=MEMORY, language=0):
    """[B, STEPS, STAGES, V] while `codes` [B, TOKENS, STAGES] are written."""
    return _logits(params(), codes, memory, language)


@jax.jit
def _logits(params, codes, memory, language):
    ids = VOICE.read(VOICE.delayed(codes).ids)
    rows = len(ids)
    return VOICE.apply(
        params,
        ids,
        jnp.ones(ids.shape[:2], bool),
        jnp.broadcast_to(memory, (rows, *memory.shape[1:])),
        jnp.broadcast_to(SEEN, (rows, SEEN.shape[1])),
        jnp.full(rows, language),
    )


def test_a_code_is_seen_by_what_is_written_after_it_and_by_nothing_else():
    """Code s of token t is written at step t + s, read at the next: so it is seen at t' + s' > t + s."""
    places = [(t, s) for t in range(TOKENS) for s in range(STAGES)]
    changed = np.repeat(np.asarray(CODES), len(places) + 1, 0)
    for row, (t, s) in enumerate(places):
        changed[row, t, s] = (changed[row, t, s] + 1) % ENTRIES
    written = np.asarray(logits(jnp.asarray(changed)))
    moved = np.abs(written - written[-1])  # the last row is as it was
    for row, (t, s) in enumerate(places):
        for other_t, other_s in places:
            difference = moved[row, other_t + other_s, other_s, :ENTRIES].max()
            assert (difference > 1e-4) == (other_t + other_s > t + s), (t, s, other_t, other_s)
            assert difference < 1e-6 or other_t + other_s > t + s


def test_memory_and_language_matter_and_masked_memory_does_not():
    before = logits(CODES)
    assert np.abs(logits(CODES, MEMORY.at[0, 0, 0].add(1.0)) - before).max() > 1e-4
    assert np.abs(logits(CODES, MEMORY, 1) - before).max() > 1e-4
    np.testing.assert_array_equal(logits(CODES, MEMORY.at[0, 2].set(7.0)), before)


def test_only_the_first_stage_can_end():
    assert VOICE.end_id == ENTRIES and VOICE.start_id == ENTRIES + 1
    probabilities = jax.nn.softmax(logits(CODES))
    assert probabilities.shape == (1, STEPS, STAGES, ENTRIES + 1)
    assert (probabilities[:, :, 0, ENTRIES] > 0).all()
    assert (probabilities[:, :, 1:, ENTRIES] == 0).all()
    plain = CodeDecoder(entries=ENTRIES, length=3)
    assert plain.end_id is None and plain.start_id == ENTRIES and plain.possible().all()


def test_written_in_pieces_with_a_cache_it_is_the_same():
    ids = VOICE.read(VOICE.delayed(CODES).ids)
    full, language = logits(CODES), jnp.zeros(1, int)

    @jax.jit
    def first(params, ids, cache):
        return VOICE.apply(params, ids, None, MEMORY, SEEN, language, cache=cache)

    @jax.jit
    def further(params, ids, cache, at):
        return VOICE.apply(params, ids, None, None, SEEN, language, cache=cache, at=at)

    pieces, cache = first(params(), ids[:, :2], VOICE.start(1, STEPS))
    pieces = [pieces]
    for at in range(2, STEPS):
        piece, cache = further(params(), ids[:, at : at + 1], cache, jnp.asarray(at))
        pieces.append(piece)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), full, rtol=1e-5, atol=1e-5)


def test_places_of_a_grid_are_rows_and_columns():
    """Place 3 r + c of two rows of three has what a learned position has that is row r + column c."""
    grid = CodeDecoder(entries=ENTRIES, length=6, grid=(2, 3), width=WIDTH, depth=1, heads=2)
    plain = dataclasses.replace(grid, grid=None)
    ids, mask = jnp.asarray(RNG.integers(0, ENTRIES, (1, 6, 1))), jnp.ones((1, 6), bool)
    held = jax.jit(plain.init)(jax.random.key(0), ids, mask, MEMORY, SEEN)["params"]
    row, column = RNG.normal(size=(2, WIDTH)), RNG.normal(size=(3, WIDTH))
    table = np.stack([row[i // 3] + column[i % 3] for i in range(6)])
    others = {k: v for k, v in held.items() if k != "position"}
    places = {"row_position": jnp.asarray(row), "column_position": jnp.asarray(column)}
    drawn = grid.apply({"params": others | places}, ids, mask, MEMORY, SEEN)
    expected = plain.apply({"params": others | {"position": table}}, ids, mask, MEMORY, SEEN)
    np.testing.assert_allclose(drawn, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings, steps, stages, message",
    [
        ({"length": 3}, 4, 1, "length=3: cannot write 4 steps"),
        ({"length": 6, "grid": (2, 2)}, 4, 1, r"grid=\(2, 2\): does not have length=6 places"),
        ({"length": 4, "stages": 2}, 4, 1, "stages=2: the codes have 1 stages"),
        ({"length": 4, "languages": 2}, 4, 1, "languages=2: this decoder must be told"),
    ],
)
def test_mistakes_are_one_line(settings, steps, stages, message):
    model = CodeDecoder(entries=2, width=WIDTH, depth=1, heads=2, **settings)
    ids, mask = jnp.zeros((1, steps, stages), int), jnp.ones((1, steps), bool)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), ids, mask, MEMORY, SEEN)
