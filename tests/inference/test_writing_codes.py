"""Codes written with a cache against the full forward pass, step by step; delays, ends, rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.inference import codes
from taichu_jax.inference.decoding import GREEDY, Sampling
from taichu_jax.models.code_decoder import CodeDecoder
from taichu_jax.models.layers import Encoded
from taichu_jax.models.text import TextDecoder
from taichu_jax.training.nets import BoundNets

ROWS, STAGES, ENTRIES, GRID, ROOM = 4, 3, 6, (2, 3), 5
RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(ROWS, 4, 6)).astype(np.float32)
MASK = np.arange(4) < np.array([[4], [2], [0], [3]])
LANGUAGE = np.array([0, 1, 1, 0], np.int32)
SIZES = {"entries": ENTRIES, "width": 8, "depth": 2, "heads": 2}
HOT = Sampling(temperature=1.5, top_k=5)


@functools.cache
def networks():
    """Sharp random weights of a decoder of pictures and of one of sounds that is told a language."""
    modules = {
        "picture": CodeDecoder(length=6, grid=GRID, **SIZES),
        "voice": CodeDecoder(length=ROOM + STAGES, stages=STAGES, ends=True, languages=2, **SIZES),
        "words": TextDecoder(vocab_size=9),
    }
    params = {}

    def sharp(rng, path, p):
        # Tied tables like to repeat what they read; positions speak louder.
        gain = 2.0 if "position" in jax.tree_util.keystr(path) else 0.6
        return rng.normal(size=p.shape).astype(np.float32) * gain

    for name, seed in (("picture", 3), ("voice", 18)):
        one = np.zeros((1, 1, modules[name].stages), np.int32)
        init = functools.partial(modules[name].init, jax.random.key(0))
        shapes = jax.eval_shape(init, one, one[..., 0] == 0, STATES[:1], MASK[:1], LANGUAGE[:1])
        params[name] = jax.tree_util.tree_map_with_path(
            functools.partial(sharp, np.random.default_rng(seed)), shapes["params"]
        )
    params["voice"]["head_bias"][0, ENTRIES] += 1.0  # so that some sounds end
    params["voice"]["token_embedding"][0, -1] *= 9.0  # to read the end is not to read nothing
    return modules, params


def nets():
    modules, params = networks()
    return BoundNets(modules, jax.tree.map(jnp.asarray, params))


@functools.cache
def _full(name):
    @jax.jit
    def run(written):
        read = nets()(name, written, method="read")
        real = jnp.ones(read.shape[:2], bool)
        return nets()(name, read, real, STATES, MASK, LANGUAGE)

    return run


@functools.cache
def _writer(name, rooms):
    @jax.jit
    def run(params, states, mask, language, limit, sampling, key, rows):
        bound, memory = BoundNets(networks()[0], params), Encoded(tokens=states, mask=mask)
        told = {"language": language, "sampling": sampling, "key": key, "rows": rows}
        if name == "picture":
            return codes.write_picture_codes(bound, name, memory, rooms, **told)
        return codes.write_voice_codes(bound, name, memory, rooms, limit=limit, **told)

    return run


def written(
    name,
    rooms,
    *,
    limit=99,
    sampling=GREEDY,
    seed=0,
    rows=range(ROWS),
    take=range(ROWS),
    params=None,
):
    """Of the rows `take` of the memory, numbered `rows`."""
    arrays = (x[np.array(take)] for x in (STATES, MASK, LANGUAGE))
    params = networks()[1] if params is None else params
    numbers, key = np.array(rows, np.int32), jax.random.key(seed)
    made = _writer(name, rooms)(params, *arrays, limit, sampling, key, numbers)
    return jax.tree.map(np.asarray, made)


def test_the_likeliest_picture_equals_a_loop_of_full_passes():
    got = written("picture", GRID)
    want = np.zeros((ROWS, 6, 1), np.int32)
    for i in range(6):
        logits = np.asarray(_full("picture")(want))
        assert logits.shape == (ROWS, 6, 1, ENTRIES)
        want[:, i] = logits[:, i].argmax(-1)
    np.testing.assert_array_equal(got, want[..., 0].reshape(ROWS, *GRID))
    assert len(np.unique(got, axis=0)) > 1 and len(np.unique(got)) > 2


@pytest.mark.parametrize("limit", [ROOM, 4, 1])
def test_the_likeliest_sound_equals_a_loop_of_full_passes(limit):
    """Token n of stage s is written at step n + s; the end by the first stage, behind its last token."""
    got, lengths = written("voice", ROOM, limit=limit)
    start, end = ENTRIES + 1, ENTRIES
    for row in range(ROWS):
        tokens, count = np.zeros((ROOM, STAGES), np.int32), limit
        for i in range(limit + STAGES - 1):
            steps = np.full((ROWS, ROOM + STAGES - 1, STAGES), start, np.int32)
            for n in range(min(i, count)):
                for s in range(STAGES):
                    if n + s < i:
                        steps[:, n + s, s] = tokens[n, s]
            if count < i:
                steps[:, count, 0] = end
            logits = np.array(_full("voice")(steps)[row, i])
            if i == 0:
                logits[0, end] = -np.inf
            chosen = logits.argmax(-1)
            if chosen[0] == end and i < count:
                count = i
            for s in range(STAGES):
                if 0 <= i - s < count:
                    tokens[i - s, s] = chosen[s]
        assert lengths[row] == count, row
        np.testing.assert_array_equal(got[row], tokens)
        assert not got[row, count:].any()
    assert got.max() < ENTRIES
    if limit == ROOM:  # both ways to stop are tried, and rows that end before others
        assert lengths.min() < ROOM == lengths.max() and len(set(lengths)) > 2


def test_a_limit_cuts_and_compiles_nothing():
    whole, lengths = written("voice", ROOM)
    compiled = _writer("voice", ROOM)._cache_size()
    got, short = written("voice", ROOM, limit=2)
    assert _writer("voice", ROOM)._cache_size() == compiled
    np.testing.assert_array_equal(short, np.minimum(lengths, 2))
    # The first stage knows nothing of the limit before it is reached.
    np.testing.assert_array_equal(got[:, :2, 0], whole[:, :2, 0])
    assert not got[:, 2:].any()


def test_a_sound_has_at_least_one_token():
    params = jax.tree.map(np.copy, networks()[1])
    params["voice"]["head_bias"][0, ENTRIES] = 99.0  # wants to end at once
    made, lengths = written("voice", ROOM, params=params)
    assert lengths.tolist() == [1] * ROWS and not made[:, 1:].any()


@pytest.mark.parametrize(("name", "room"), [("picture", GRID), ("voice", ROOM)])
def test_a_sample_depends_on_its_memory_and_number_alone(name, room):
    def drawn(**how):
        return written(name, room, sampling=HOT, **{"seed": 3} | how)

    def first(made):
        return jax.tree.leaves(made)[0]

    here = drawn()
    jax.tree.map(np.testing.assert_array_equal, here, drawn())
    order = [2, 0, 3, 3]  # other neighbours, one of them twice
    moved = drawn(take=order, rows=order)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[order]), moved, here)
    assert (first(drawn(seed=4)) != first(here)).any()
    assert (first(drawn(rows=[5, 6, 8, 9])) != first(here)).any()
    same = first(drawn(take=[0] * ROWS, rows=[7] * ROWS))
    assert (same == same[:1]).all()


def test_a_sample_does_not_depend_on_the_room():
    (short, lengths), (whole, counts) = (
        written("voice", room, sampling=HOT, seed=3) for room in (ROOM - 1, ROOM)
    )
    np.testing.assert_array_equal(lengths, np.minimum(counts, ROOM - 1))
    fits = counts < ROOM - 1
    assert fits.any() and not fits.all()
    np.testing.assert_array_equal(short[fits], whole[fits, : ROOM - 1])
    # The others are cut: only the first stage is written before that is known.
    np.testing.assert_array_equal(short[..., 0], whole[:, : ROOM - 1, 0])


def test_stages_draw_from_keys_of_their_own():
    """Equal odds in every stage: with one key for all of them every token would have equal codes."""
    zeros = jax.tree.map(np.zeros_like, networks()[1])
    made, lengths = written("voice", ROOM, sampling=Sampling(1.0), params=zeros, seed=1)
    real = np.arange(ROOM) < lengths[:, None]
    together = real[:, 2:]  # steps at which all three stages write
    a, b, c = made[:, 2:, 0], made[:, 1:-1, 1], made[:, :-2, 2]
    assert together.sum() > 5
    assert (a != b)[together].mean() > 0.4 and (b != c)[together].mean() > 0.4
    assert made.max() == ENTRIES - 1


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda m: codes.write_picture_codes(nets(), "words", m, GRID), "is a TextDecoder"),
        (
            lambda m: codes.write_picture_codes(nets(), "voice", m, GRID),
            "stages=3, ends=True is no",
        ),
        (lambda m: codes.write_picture_codes(nets(), "picture", m, (3, 2)), "valid: 2 x 3"),
        (lambda m: codes.write_voice_codes(nets(), "voice", m, 6), "6 tokens; valid: 1 to 5"),
        (lambda m: codes.write_voice_codes(nets(), "voise", m, 2), "did you mean 'voice'"),
    ],
)
def test_what_cannot_be_written_is_refused(write, message):
    with pytest.raises(UserError, match=message):
        write(Encoded(tokens=STATES, mask=MASK))
