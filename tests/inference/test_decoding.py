"""Cached decoding against the full forward pass; filters and draws against NumPy and exact odds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.inference import decoding
from taichu_jax.inference.decoding import Decoder, Ids, Sampling
from taichu_jax.models.experts import Experts
from taichu_jax.models.layers import Encoded
from taichu_jax.models.stack import Stack
from taichu_jax.models.text import TextDecoder, TextEncoder
from taichu_jax.ops.vocabulary import CLS, FIRST_TOKEN, PAD, SEP
from taichu_jax.training.nets import BoundNets

VOCAB, LENGTH, ROWS = 24, 9, 3
FIELDS = {"vocab_size": VOCAB, "width": 8, "depth": 2, "heads": 2, "length": LENGTH}
RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(ROWS, 4, 6)).astype(np.float32)
MEMORY = Encoded(tokens=STATES, mask=np.arange(4) < np.array([[4], [2], [0]]))
LANGUAGE = np.array([0, 1, 1], np.int32)
TOKENS = RNG.integers(FIRST_TOKEN, VOCAB, (ROWS, LENGTH)).astype(np.int32)
STACKS = {
    "looped": Stack(),
    "scanned": Stack(scan=True, remat="full"),
    # Room for every position: a full pass would else drop some, which a single position never is.
    "experts": Stack(scan=True, experts=Experts(count=2, every=2, evaluation_capacity=2.0)),
}


@functools.cache
def networks(stack="looped"):
    """(modules, params) of a decoder that is told a language and of a language model, both sharp."""
    modules = {
        "decoder": TextDecoder(**FIELDS, languages=2, stack=STACKS[stack]),
        "model": TextEncoder(**FIELDS, causal=True, stack=STACKS[stack]),
    }
    every = np.ones((ROWS, LENGTH), bool)

    def both(module, tokens, mask):
        return module.logits(module(tokens, mask).tokens)

    def init(key):
        inputs = (TOKENS, every, STATES, MEMORY.mask, LANGUAGE)
        return {
            "decoder": modules["decoder"].init(key, *inputs)["params"],
            "model": modules["model"].init(key, TOKENS, every, method=both)["params"],
        }

    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda p: rng.normal(size=p.shape).astype(np.float32) * 0.6,
        jax.eval_shape(init, jax.random.key(0)),
    )
    params["decoder"]["head_bias"][SEP] += 3.0  # so that rows end
    return modules, params


def nets(stack="looped"):
    modules, params = networks(stack)
    return BoundNets(modules, jax.tree.map(jnp.asarray, params))


def decoder_logits(tokens, stack="looped"):
    real = jnp.ones(tokens.shape, bool)
    return nets(stack)("decoder", tokens, real, STATES, MEMORY.mask, LANGUAGE)


def model_logits(tokens, stack="looped"):
    states = nets(stack)("model", tokens, jnp.ones(tokens.shape, bool)).tokens
    return nets(stack)("model", states, method="logits")


def stepped(decoder, cache):
    """Logits [B, L, V] of TOKENS, one position at a time."""

    def step(cache, i):
        logits, cache = decoder.step(cache, jnp.take(TOKENS, i, axis=1), i)
        return cache, logits

    return jax.lax.scan(step, cache, jnp.arange(LENGTH))[1].swapaxes(0, 1)


@pytest.mark.parametrize("stack", STACKS)
def test_decoder_with_a_cache_equals_the_full_pass(stack):
    @jax.jit
    def both():
        decoder = decoding.attending(nets(stack), "decoder", LENGTH)
        return stepped(decoder, decoder.start(MEMORY, LANGUAGE)), decoder_logits(TOKENS, stack)

    got, want = both()
    assert np.abs(want).max() > 1  # or the tolerance would mean nothing
    np.testing.assert_allclose(got, want, atol=2e-6 * np.abs(want).max())
    np.testing.assert_array_equal(got.argmax(-1), want.argmax(-1))


@pytest.mark.parametrize("stack", STACKS)
def test_language_model_with_a_cache_equals_the_full_pass(stack):
    @jax.jit
    def both():
        decoder = decoding.continuing(nets(stack), "model", LENGTH)
        return stepped(decoder, decoder.start(ROWS)), model_logits(TOKENS, stack)

    got, want = both()
    assert np.abs(want).max() > 1
    np.testing.assert_allclose(got, want, atol=2e-6 * np.abs(want).max())


def test_a_prefix_may_be_read_at_once():
    """Three positions, then six more: what a prompt of several ids costs one call for."""
    modules, values = networks()
    module, params = modules["decoder"], {"params": values["decoder"]}

    @jax.jit
    def further():
        cache, parts = module.start(ROWS, LENGTH), []
        for first, last in ((0, 3), (3, LENGTH)):
            memory = STATES if first == 0 else None
            logits, cache = module.apply(
                params, TOKENS[:, first:last], None, memory, MEMORY.mask, LANGUAGE, cache, first
            )
            parts.append(logits)
        return jnp.concatenate(parts, axis=1), decoder_logits(TOKENS)

    got, want = further()
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_what_has_no_cache_is_refused():
    params = {"params": networks()[1]["model"]}
    with pytest.raises(ValueError, match="valid: True"):
        TextEncoder(**FIELDS).apply(params, TOKENS[:, :1], 0, (), method="further")
    with pytest.raises(ValueError, match="10 tokens, but length=9"):
        TextEncoder(**FIELDS).start(1, 10)


# ---------------------------------------------------------------------------------------- writing


@functools.cache
def _writer(kind, room):
    @jax.jit
    def run(prompt, lengths, limit, sampling, key, rows):
        if kind == "decoder":
            decoder = decoding.attending(nets(), "decoder", room)
            cache = decoder.start(MEMORY, LANGUAGE)
        else:
            decoder = decoding.continuing(nets(), "model", room)
            cache = decoder.start(ROWS)
        return decoding.write(
            decoder, cache, prompt, room, prompt_lengths=lengths, limit=limit,
            sampling=sampling, key=key, rows=rows,
        )  # fmt: skip

    return run


def written(kind, prompt, lengths=None, room=LENGTH, limit=LENGTH, sampling=decoding.GREEDY,
            seed=0, rows=(0, 1, 2)):  # fmt: skip
    lengths = np.full(ROWS, prompt.shape[1]) if lengths is None else np.asarray(lengths)
    rows = np.asarray(rows, np.int32)
    return _writer(kind, room)(prompt, lengths, limit, sampling, jax.random.key(seed), rows)


@pytest.mark.parametrize("kind", ["decoder", "model"])
def test_the_likeliest_ids_equal_a_loop_of_full_passes(kind):
    """Prompts of different lengths, each id from the full forward pass over the ids so far."""
    full = jax.jit(decoder_logits if kind == "decoder" else model_logits)
    lengths = [1, 3, 2]
    prompt = np.where(np.arange(3) < np.array(lengths)[:, None], TOKENS[:, :3], PAD)
    got = written(kind, prompt, lengths)
    ends, sizes = 0, set()
    for row in range(ROWS):
        ids, log_p = prompt[row, : lengths[row]].tolist(), 0.0
        while len(ids) < LENGTH and ids[-1] != SEP:
            padded = np.tile(np.array(ids + [PAD] * (LENGTH - len(ids)), np.int32), (ROWS, 1))
            scores = np.array(full(padded)[row, len(ids) - 1], np.float64)
            scores[[i for i in range(FIRST_TOKEN) if i != SEP]] = -np.inf
            ids.append(int(scores.argmax()))
            log_p += scores.max() - np.log(np.exp(scores).sum())
        ends += ids[-1] == SEP
        assert got.ids[row].tolist() == ids + [PAD] * (LENGTH - len(ids))
        assert got.log_p[row] == pytest.approx(log_p, abs=1e-4)
        sizes.add(len(ids))
    # Both ways to stop are tried, and rows that end before others.
    assert ends == ROWS and len(sizes) > 1 if kind == "decoder" else ends == 0


def test_a_limit_cuts_and_compiles_nothing():
    prompt = np.full((ROWS, 1), CLS, np.int32)
    whole = written("decoder", prompt).ids
    compiled = _writer("decoder", LENGTH)._cache_size()
    short = written("decoder", prompt, limit=4).ids
    np.testing.assert_array_equal(short, np.where(np.arange(LENGTH) < 4, whole, PAD))
    assert _writer("decoder", LENGTH)._cache_size() == compiled


def test_a_sample_depends_on_its_number_alone():
    prompt = np.full((ROWS, 1), CLS, np.int32)
    hot = Sampling(temperature=1.5)
    here = written("model", prompt, sampling=hot, seed=3).ids
    np.testing.assert_array_equal(here, written("model", prompt, sampling=hot, seed=3).ids)
    moved = written("model", prompt, sampling=hot, seed=3, rows=(7, 0, 1)).ids
    np.testing.assert_array_equal(moved[1:], here[:2])
    room = written("model", prompt, sampling=hot, seed=3, room=6, limit=6).ids
    np.testing.assert_array_equal(room, here[:, :6])
    assert (here != written("model", prompt, sampling=hot, seed=4).ids).any()
    assert (here[0] != here[1]).any()


# --------------------------------------------------------------------------------------- sampling


def filtered_by_hand(logits, temperature, k, p):
    """The probabilities that are left, by sorting one row after the other."""
    result = np.zeros_like(logits)
    for row, values in enumerate(logits / temperature):
        order = sorted(range(len(values)), key=lambda i: (-values[i], i))
        order = order[: k or len(values)]
        share = np.exp(values[order] - values.max())
        share /= share.sum()
        count = next((n + 1 for n in range(len(share)) if share[: n + 1].sum() >= p), len(share))
        result[row, order[:count]] = share[:count] / share[:count].sum()
    return result


@pytest.mark.parametrize(
    ("temperature", "k", "p"),
    [(1.0, 0, 1.0), (0.5, 3, 1.0), (2.0, 0, 0.6), (1.3, 5, 0.8), (1.0, 1, 1.0), (1.0, 0, 1e-6)],
)
def test_filters_equal_sorting_by_hand(temperature, k, p):
    logits = np.random.default_rng(2).normal(size=(8, 11)).astype(np.float32) * 2
    logits[:, 4] = logits[:, 7]  # a tie
    got = jax.jit(decoding.filtered)(logits, Sampling(temperature, k, p))
    want = filtered_by_hand(logits.astype(np.float64), temperature, k, p)
    np.testing.assert_allclose(jax.nn.softmax(got), want, atol=1e-6)
    np.testing.assert_array_equal(np.isfinite(got), want > 0)


def test_draws_have_the_filtered_odds():
    logits = np.array([[2.0, 1.0, 0.5, 0.0, -1.0]], np.float32)
    sampling, count = Sampling(0.8, 4, 0.93), 20_000
    keys = jax.random.split(jax.random.key(5), count)
    drawn = jax.jit(decoding.draw)(np.repeat(logits, count, axis=0), sampling, keys)
    share = np.bincount(drawn, minlength=5) / count
    want = filtered_by_hand(logits.astype(np.float64), *sampling)[0]
    assert (want == 0).sum() == 2
    # Four standard deviations of a share of so many draws.
    assert (np.abs(share - want) <= 4 * np.sqrt(want * (1 - want) / count)).all()


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling(temperature=-1.0), "temperature=-1.0: must be 0 or more"),
        (Sampling(temperature=float("nan")), "temperature=nan"),
        (Sampling(top_k=-2), "top_k=-2"),
        (Sampling(top_p=0.0), "top_p=0.0: must be above 0 and at most 1"),
        (Sampling(top_p=1.5), "top_p=1.5"),
    ],
)
def test_settings_without_a_meaning_are_refused(sampling, message):
    with pytest.raises(UserError, match=message):
        sampling.check()
    assert Sampling(0.7, 5, 0.9).check() == Sampling(0.7, 5, 0.9)


# ------------------------------------------------------------------------------------ repetitions


@pytest.mark.parametrize("n", [1, 2, 3])
def test_repeated_runs_equal_looking_at_every_one(n):
    rng = np.random.default_rng(n)
    ids = rng.integers(0, 3, (40, 8)).astype(np.int32)
    for known in range(1, 8):
        got = np.asarray(decoding.repeats(3, jnp.asarray(ids), jnp.asarray(known), n))
        for row, line in enumerate(ids[:, :known].tolist()):
            runs = {tuple(line[i : i + n]) for i in range(len(line) - n + 1)}
            tail = line[len(line) - n + 1 :] if n > 1 else []
            # A tail that is shorter than the run it should begin cannot begin it.
            want = [len(tail) == n - 1 and (*tail, v) in runs for v in range(3)]
            assert got[row].tolist() == want, (line, n)


def cyclic(size):
    """Always wants the id after the last one, from 2 on."""

    def step(cache, ids, position):
        return 9.0 * jax.nn.one_hot(2 + (ids - 1) % (size - 2), size), cache

    return Decoder(lambda: {}, step)


def test_no_run_comes_twice():
    spelling = Ids(first=2, end=None, filler=0, no_repeat=2)
    prompt = jnp.array([[2]], jnp.int32)
    got = decoding.write(cyclic(4), {}, prompt, 7, ids=spelling).ids[0].tolist()
    # It wants 2, 3, 2, 3, ...; after the fourth and the sixth nothing new is left: anything may come.
    assert got == [2, 3, 2, 2, 3, 3, 2]
    free = decoding.write(cyclic(4), {}, prompt, 7, ids=Ids(first=2, end=None)).ids[0].tolist()
    assert free == [2, 3, 2, 3, 2, 3, 2]
    with pytest.raises(UserError, match="no_repeat=-1"):
        Ids(no_repeat=-1)


def test_rooms_come_in_few_sizes():
    assert [decoding.bucket(n, 20) for n in (1, 8, 9, 16, 17, 20)] == [8, 8, 16, 16, 20, 20]
    assert decoding.bucket(3, 4, 1) == 4 and decoding.bucket(1, 4, 1) == 1
    with pytest.raises(UserError, match="21 are wanted; at most 20"):
        decoding.bucket(21, 20)


# ----------------------------------------------------------------------------------- known ids


@pytest.mark.parametrize("kind", ["decoder", "model"])
def test_known_ids_that_are_read_at_once_leave_the_cache_that_steps_leave(kind):
    @jax.jit
    def both():
        if kind == "decoder":
            decoder = decoding.attending(nets(), "decoder", LENGTH)
            cache = decoder.start(MEMORY, LANGUAGE)
        else:
            decoder = decoding.continuing(nets(), "model", LENGTH)
            cache = decoder.start(ROWS)
        stepwise = Decoder(decoder.start, decoder.step)
        assert decoder.read is not None and stepwise.read is None
        prompt = TOKENS[:, :5]
        texts = tuple(
            decoding.write(d, cache, prompt, LENGTH, ids=Ids(end=None)) for d in (decoder, stepwise)
        )
        return decoder.known(cache, prompt), stepwise.known(cache, prompt), texts

    at_once, one_by_one, texts = both()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), at_once, one_by_one)
    np.testing.assert_array_equal(texts[0].ids, texts[1].ids)
    np.testing.assert_allclose(texts[0].log_p, texts[1].log_p, atol=1e-4)


def test_known_ids_are_read_one_by_one_where_they_would_compete_for_experts():
    assert decoding.continuing(nets("experts"), "model", LENGTH).read is None
    assert decoding.attending(nets("experts"), "decoder", LENGTH).read is None
