import collections

import jax
import numpy as np
import pytest

from taichu_jax.ops.queue import empty_queue


@pytest.mark.parametrize("size", [4, 5, 7, 13])
def test_queue_holds_the_last_vectors(size):
    """Against a deque; batches of 5 divide, do not divide and exceed the queue, and some are absent."""
    rng = np.random.default_rng(size)
    queue, expected = empty_queue(size, 2), collections.deque(maxlen=size)
    pushed = 0
    push = jax.jit(lambda q, v, w: q.push(v, w))
    for step in range(8):
        vectors = rng.normal(size=(5, 2)).astype(np.float32)
        where = rng.uniform(size=5) < 0.7 if step % 3 else np.full(5, step != 3)
        queue = push(queue, vectors, where)
        for vector in vectors[where]:
            expected.append(vector)
        pushed += int(where.sum())
        assert queue.pointer == pushed % size and queue.filled == min(pushed, size)
        assert queue.valid.sum() == len(expected)
        # The oldest stands where the next one goes, once the queue is full.
        start = int(queue.pointer) if pushed >= size else 0
        got = [queue.items[(start + i) % size] for i in range(len(expected))]
        np.testing.assert_array_equal(np.array(got), np.array(expected))


def test_places_never_written_stay_zero():
    queue = empty_queue(6, 3).push(np.ones((4, 3), np.float32))
    np.testing.assert_array_equal(queue.items[4:], 0)
    np.testing.assert_array_equal(queue.valid, [True] * 4 + [False] * 2)
