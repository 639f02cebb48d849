"""Windows on a stream, with a sum over neighbours in place of a network."""

import numpy as np
import pytest

from taichu_jax.inference.sliding import SlidingWindow

STEPS = np.random.default_rng(0).integers(1, 99, size=(37, 2))


def summed(steps, before, after):
    padded = np.pad(steps, ((before, after), (0, 0)))
    return sum(padded[i : i + len(steps)] for i in range(before + after + 1))


def streamed(window, pieces, before, after):
    found, start = [np.zeros((0, 2), int)], 0

    def outputs(views):
        for view in views:
            assert len(view.steps) == window.size and view.new >= 1
            known = window.size if view.known is None else view.known
            result = summed(view.steps[:known], before, after)
            assert (view.steps[known:] == 0).all()
            found.append(result[view.first : view.first + view.new])

    for size in pieces:
        outputs(window.feed(STEPS[start : start + size]))
        start += size
        assert sum(map(len, found)) == max(0, start - after)
        assert len(window._kept) <= window.size + size
    outputs(window.finish())
    return np.concatenate(found)


@pytest.mark.parametrize("pieces", [[37], [1] * 37, [5] * 7 + [2], [0, 20, 0, 17]])
@pytest.mark.parametrize(("before", "after", "most"), [(3, 2, 4), (0, 0, 1), (6, 0, 50), (0, 7, 3)])
def test_windows_give_what_the_whole_gives(pieces, before, after, most):
    found = streamed(SlidingWindow(before, after, most), pieces, before, after)
    np.testing.assert_array_equal(found, summed(STEPS, before, after))


@pytest.mark.parametrize("less", [(1, 0), (0, 1)])
def test_one_step_less_is_not_enough(less):
    window = SlidingWindow(3 - less[0], 2 - less[1], 4)
    found = [np.zeros((0, 2), int)]
    for view in (*window.feed(STEPS), *window.finish()):
        result = summed(view.steps[: view.known], 3, 2)
        found.append(result[view.first : view.first + view.new])
    assert (np.concatenate(found) != summed(STEPS, 3, 2)).any()


def test_a_stream_of_nothing_has_no_views():
    window = SlidingWindow(2, 1, 3)
    assert list(window.finish()) == []
    assert list(window.feed(STEPS[:0])) == [] and list(window.finish()) == []
