"""Beam search against every text there is, and against a plain beam of lists."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.inference import beam, decoding
from taichu_jax.inference.decoding import Decoder, Ids

SIZE, LENGTH, ROWS, END = 4, 5, 3, 1
# log P of the next id depends on row, position, the id and the one before it: what is remembered counts.
TABLE = np.random.default_rng(0).normal(size=(ROWS, LENGTH, SIZE, SIZE, SIZE)) * 1.5
IDS = Ids(first=2, end=END, filler=0)


def step(cache, ids, position):
    logits = jnp.asarray(TABLE, jnp.float32)[cache["row"], position, cache["before"], ids]
    return logits, cache | {"before": ids}


DECODER = Decoder(lambda: {"row": jnp.arange(ROWS), "before": jnp.zeros(ROWS, jnp.int32)}, step)
PROMPT = np.array([[2], [3], [2]], np.int32)


def next_log_p(row, text, no_repeat=0):
    """float64 [SIZE] after a text, by the definition."""
    before = text[-2] if len(text) > 1 else 0
    logits = TABLE[row, len(text) - 1, before, text[-1]].astype(np.float32).astype(np.float64)
    free = np.array([i >= 2 or i == END for i in range(SIZE)])
    if no_repeat:
        runs = {tuple(text[i : i + no_repeat]) for i in range(len(text) - no_repeat + 1)}
        tail = tuple(text[len(text) - no_repeat + 1 :]) if no_repeat > 1 else ()
        free &= [v == END or (*tail, v) not in runs for v in range(SIZE)]
    logits[~free] = -np.inf
    return logits - np.log(np.exp(logits).sum())


def lp(count, alpha):
    return ((5 + count) / 6) ** alpha


def every_text(row, alpha, no_repeat=0, length=LENGTH):
    """{ids: score} of all that can be written."""
    found = {}

    def grow(text, log_p):
        if text[-1] == END or len(text) == length:
            found[text] = log_p / lp(len(text) - 1, alpha)
            return
        following = next_log_p(row, text, no_repeat)
        for i in np.flatnonzero(np.isfinite(following)):
            grow((*text, int(i)), log_p + following[i])

    grow((int(PROMPT[row, 0]),), 0.0)
    return found


@functools.cache
def _search(beams, no_repeat=0, room=LENGTH):
    ids = Ids(first=2, end=END, filler=0, no_repeat=no_repeat)
    return jax.jit(
        lambda alpha, limit: beam.search(
            DECODER, DECODER.start(), PROMPT, room, beams=beams, alpha=alpha, limit=limit, ids=ids
        )
    )


@pytest.mark.parametrize("no_repeat", [0, 2])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_as_wide_as_all_texts_finds_the_best(alpha, no_repeat):
    (ids, log_p), scores = _search(40, no_repeat)(alpha, LENGTH)
    for row in range(ROWS):
        texts = every_text(row, alpha, no_repeat)
        ranked = sorted(texts, key=texts.get, reverse=True)[:40]
        assert len(texts) > 8
        for place, text in enumerate(ranked):
            assert scores[row, place] == pytest.approx(texts[text], abs=1e-5)
            assert ids[row, place].tolist() == [*text, *[0] * (LENGTH - len(text))]
            want = texts[text] * lp(len(text) - 1, alpha)
            assert log_p[row, place] == pytest.approx(want, abs=1e-5)
        assert (scores[row, len(ranked) :] < -1e8).all()


def plain_beam(row, beams, alpha):
    """The same search on lists, to its end, without stopping early."""
    alive, ended = [((int(PROMPT[row, 0]),), 0.0)], []
    while alive and len(alive[0][0]) < LENGTH:
        longer = [
            ((*text, int(i)), log_p + following[i])
            for text, log_p in alive
            for following in [next_log_p(row, text)]
            for i in np.flatnonzero(np.isfinite(following))
        ]
        longer = sorted(longer, key=lambda x: -x[1])[: 2 * beams]
        ended += [(t, p / lp(len(t) - 1, alpha)) for t, p in longer if t[-1] == END]
        alive = [x for x in longer if x[0][-1] != END][:beams]
    ended += [(t, p / lp(len(t) - 1, alpha)) for t, p in alive]
    return sorted(ended, key=lambda x: -x[1])[:beams]


@pytest.mark.parametrize("beams", [1, 2, 3])
def test_narrow_beams_equal_a_plain_search(beams):
    (ids, _), scores = _search(beams)(0.6, LENGTH)
    for row in range(ROWS):
        for place, (text, score) in enumerate(plain_beam(row, beams, 0.6)):
            assert ids[row, place].tolist() == [*text, *[0] * (LENGTH - len(text))]
            assert scores[row, place] == pytest.approx(score, abs=1e-5)


def test_a_limit_is_a_shorter_room():
    (ids, _), scores = _search(40)(0.6, 3)
    for row in range(ROWS):
        texts = every_text(row, 0.6, length=3)
        best = max(texts, key=texts.get)
        assert ids[row, 0].tolist() == [*best, *[0] * (LENGTH - len(best))]
        assert scores[row, 0] == pytest.approx(texts[best], abs=1e-5)


def test_a_prompt_of_several_ids_and_texts_without_an_end():
    """With no end all texts are as long as the room; brute force over all of them."""
    prompt = np.array([[2, 3], [3, 3], [2, 2]], np.int32)
    ids = Ids(first=0, end=None)
    (got, _), scores = beam.search(
        DECODER, DECODER.start(), prompt, LENGTH, beams=16, alpha=1.0, ids=ids
    )
    for row in range(ROWS):
        found = {}
        for rest in itertools.product(range(SIZE), repeat=LENGTH - 2):
            text, log_p = prompt[row].tolist(), 0.0
            for i in rest:
                logits = TABLE[row, len(text) - 1, text[-2], text[-1]]
                log_p += logits[i] - np.log(np.exp(logits).sum())
                text.append(i)
            found[tuple(text)] = log_p / lp(LENGTH - 2, 1.0)
        best = max(found, key=found.get)
        assert tuple(got[row, 0].tolist()) == best
        assert scores[row, 0] == pytest.approx(found[best], abs=1e-5)


def test_networks_are_searched_as_functions_are():
    """With a real decoder: the score is that of the full forward pass over the text."""
    from tests.inference.test_decoding import LANGUAGE, LENGTH, MEMORY, ROWS, decoder_logits, nets

    prompt = np.full((ROWS, 1), 2, np.int32)

    @jax.jit
    def both():
        decoder = decoding.attending(nets(), "decoder", LENGTH)
        text, scores = beam.search(
            decoder, decoder.start(MEMORY, LANGUAGE), prompt, LENGTH, beams=4, alpha=0.0
        )
        greedy = decoding.write(decoder, decoder.start(MEMORY, LANGUAGE), prompt, LENGTH)
        return text, scores, greedy, [decoder_logits(text.ids[:, k]) for k in range(4)]

    text, scores, greedy, logits = both()
    for k in range(4):
        for row in range(ROWS):
            want, line = 0.0, text.ids[row, k].tolist()
            for i in range(1, len(line)):
                values = np.array(logits[k][row, i - 1], np.float64)
                values[[0, 1, 2, 4, 5]] = -np.inf
                want += values[line[i]] - np.log(np.exp(values).sum())
                if line[i] == 3:
                    break
            assert scores[row, k] == pytest.approx(want, abs=1e-4)
    assert (scores[:, 0] >= greedy.log_p - 1e-5).all() and (np.diff(scores) <= 0).all()


def test_a_beam_has_a_width():
    with pytest.raises(UserError, match="beams=0"):
        beam.search(DECODER, DECODER.start(), PROMPT, LENGTH, beams=0)
