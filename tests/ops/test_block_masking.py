"""Masks in blocks: exact against loops given the same draws, and their statistics."""

from __future__ import annotations

import functools
import math

import jax
import numpy as np

from taichu_jax.ops.block_masking import block_mask

BATCH, BLOCKS = 400, 40


@functools.cache
def masks(rows, columns, most, least, aspect, seed=0):
    draw = jax.jit(
        functools.partial(
            block_mask,
            batch=BATCH,
            rows=rows,
            columns=columns,
            most=most,
            least=least,
            aspect=aspect,
            blocks=BLOCKS,
        )
    )
    return np.asarray(draw(jax.random.key(seed)))


def looped(draws, rows, columns, most, least, aspect):
    """One picture, as the authors' code goes on."""
    mask, misses = np.zeros((rows, columns), bool), 0
    for u in draws:
        left = most - int(mask.sum())
        area = np.float32(least) + u[0] * np.float32(max(left - least, 0))
        ratio = np.exp((2 * u[1] - 1) * np.float32(abs(math.log(aspect))))
        height, width = int(np.round(np.sqrt(area * ratio))), int(np.round(np.sqrt(area / ratio)))
        if height < rows and width < columns:
            top, first = int(u[2] * (rows - height + 1)), int(u[3] * (columns - width + 1))
            new = ~mask[top : top + height, first : first + width]
            if 0 < new.sum() <= left:
                mask[top : top + height, first : first + width] = True
                misses = 0
                continue
        misses += 1
        if misses == 10:
            break
    return mask.reshape(-1)


def test_the_same_as_in_loops():
    settings = 8, 6, 19, 4, 0.3
    found = masks(*settings)
    draws = np.asarray(jax.random.uniform(jax.random.key(0), (BLOCKS, 4, BATCH)))
    for b in range(0, BATCH, 4):
        np.testing.assert_array_equal(found[b], looped(draws[:, :, b], *settings), err_msg=f"{b}")


def test_counts():
    """Never more than asked for, and nearly that; blocks of several patches, not scattered ones."""
    found = masks(8, 6, 19, 4, 0.3)
    counts = found.sum(1)
    assert counts.max() == 19 and counts.min() >= 19 - 4
    assert counts.mean() > 18
    grid = found.reshape(BATCH, 8, 6)
    neighbours = (grid[:, 1:] & grid[:, :-1]).sum() + (grid[:, :, 1:] & grid[:, :, :-1]).sum()
    assert neighbours / found.sum() > 1.2  # 0.7 for as many scattered ones
    assert len({row.tobytes() for row in found}) > BATCH * 0.95


def test_one_block_is_everywhere_alike():
    """Squares of 2 x 2 that fill the mask at once: all 3 x 4 places, each with the same probability."""
    found = masks(4, 5, 4, 4, 1.0).reshape(BATCH, 4, 5)
    places = np.zeros((3, 4), int)
    for grid in found:
        rows, columns = np.nonzero(grid)
        assert len(rows) == 4 and np.ptp(rows) == np.ptp(columns) == 1
        places[rows.min(), columns.min()] += 1
    expected = BATCH / 12
    chi_square = ((places - expected) ** 2 / expected).sum()
    assert chi_square < 31.3  # 11 degrees of freedom: beyond it once in a thousand
    # what this means for a patch: as many squares reach it as there are
    reach = np.add.outer(0, np.outer([1, 2, 2, 1], [1, 2, 2, 2, 1])) / 12
    np.testing.assert_allclose(found.mean(0), reach, atol=4 * np.sqrt(0.25 / BATCH))


def test_a_draw_is_a_function_of_its_key():
    np.testing.assert_array_equal(masks(8, 6, 19, 4, 0.3), masks(8, 6, 19, 4, 0.3, seed=0))
    assert (masks(8, 6, 19, 4, 0.3) != masks(8, 6, 19, 4, 0.3, seed=1)).any()
