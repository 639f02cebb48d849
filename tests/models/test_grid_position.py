"""BEiT's position bias against loops over pairs of patches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.models.grid_position import Grid, GridBias, entries
from taichu_jax.models.transformer import Stack, Transformer
from taichu_jax.ops.resample import weights

HEADS, DRAW = 2, np.random.default_rng(0)


@pytest.mark.parametrize("cls", [True, False])
@pytest.mark.parametrize("here", [(2, 3), (3, 5)])
def test_every_pair(cls, here):
    """The entry of (dy, dx), in an interpolated table where the picture is not as usual."""
    usual = (2, 3)
    count = (2 * usual[0] - 1) * (2 * usual[1] - 1)
    table = DRAW.normal(size=(count + 3 * cls, HEADS)).astype(np.float32)
    params = {"params": {"relative_position_embedding": table}}
    bias = np.asarray(GridBias(HEADS, Grid(usual, here, cls)).apply(params))
    down = weights(2 * here[0] - 1, 2 * usual[0] - 1, "linear")
    across = weights(2 * here[1] - 1, 2 * usual[1] - 1, "linear")
    grid = table[:count].reshape(2 * usual[0] - 1, 2 * usual[1] - 1, HEADS)
    rows, columns = here
    assert bias.shape == (HEADS, rows * columns + cls, rows * columns + cls)
    for i in range(rows * columns):
        for j in range(rows * columns):
            dy, dx = i // columns - j // columns, i % columns - j % columns
            y, x = down[dy + rows - 1], across[dx + columns - 1]
            expected = np.einsum("a,b,abh->h", y, x, grid)
            np.testing.assert_allclose(bias[:, i + cls, j + cls], expected, atol=1e-6)
    if cls:
        for found, entry in ((bias[:, 0, 1:], 0), (bias[:, 1:, 0], 1), (bias[:, :1, 0], 2)):
            np.testing.assert_array_equal(
                found, np.broadcast_to(table[count + entry][:, None], found.shape)
            )


def test_no_two_distances_share_an_entry():
    index = entries(2, 3, True)
    assert set(index.reshape(-1)) == set(range(3 * 5 + 3))


@pytest.mark.parametrize("kind", ["grid", "grid_per_block"])
def test_one_table_or_one_for_every_block(kind):
    """Where they are, and that a scanned stack computes the same as a loop."""
    grid, x, mask = Grid((1, 2), (1, 2), False), jnp.ones((1, 2, 4)), jnp.ones((1, 2), bool)
    x += jnp.arange(2.0)[:, None] * jnp.arange(4.0)

    def model(scan):
        return Transformer(2, HEADS, relative_position=kind, stack=Stack(scan=scan))

    params = jax.jit(lambda: model(False).init(jax.random.key(0), x, mask, grid=grid))()["params"]
    own = kind == "grid_per_block"
    assert ("relative_position" in params) != own
    assert ("relative_position" in params["block_1"]["attention"]) == own
    table = jnp.array([[3.0, -2.0], [0.5, 0.1], [-1.0, 2.0]])
    shared = {"relative_position": {"relative_position_embedding": table}}
    plain = model(False).apply({"params": params}, x, mask, grid=grid)[0]
    if own:
        params["block_1"]["attention"] |= shared
    else:
        params |= shared
    moved = model(False).apply({"params": params}, x, mask, grid=grid)[0]
    assert jnp.abs(moved - plain).max() > 1e-3  # the table matters
    blocks = [params.pop(f"block_{i}") for i in range(2)]
    params["blocks"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    again = model(True).apply({"params": params}, x, mask, grid=grid)[0]
    np.testing.assert_allclose(again, moved, atol=1e-6)


def test_only_for_pictures():
    x, mask = jnp.ones((1, 2, 4)), jnp.ones((1, 2), bool)
    with pytest.raises(ValueError, match="relative_position='grid': for the patches of pictures"):
        Transformer(1, 2, relative_position="grid").init(jax.random.key(0), x, mask)
