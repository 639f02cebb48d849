"""Hints about where activations live."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from taichu_jax.ops.constrain import BATCH, axis_size, constrain, fitting
from taichu_jax.training.sharding import MeshShape, on_mesh

SIZES = {"data": 2, "fsdp": 2, "expert": 1, "sequence": 1, "tensor": 2}
FREE = P.UNCONSTRAINED


@pytest.mark.parametrize(
    "shape, axes, want",
    [
        ((8, 6, 4), (BATCH, "sequence", None), P(("data", "fsdp"), FREE, None)),
        ((2, 6, 4), (BATCH, None, "tensor"), P(("data",), None, ("tensor",))),
        ((3, 6, 5), (BATCH, None, "tensor"), P(FREE, None, FREE)),
        ((8,), ("stage",), P(FREE)),  # a mesh without this axis
    ],
)
def test_axes_that_do_not_divide_are_left_out(shape, axes, want):
    assert fitting(shape, axes, SIZES) == want


def test_nothing_happens_without_a_mesh_or_on_one_device():
    def halved(x):
        return constrain(x, BATCH, "tensor") / 2

    def hints(function, x):
        return str(jax.make_jaxpr(function)(x)).count("sharding_constraint")

    x = jnp.ones((8, 4))
    mesh = MeshShape(data=4, tensor=2).make()
    assert hints(halved, x) == 0
    assert hints(on_mesh(halved, MeshShape(data=1).make()), x) == 0
    assert hints(on_mesh(halved, mesh), x) == 1
    with jax.set_mesh(mesh):
        assert hints(halved, x) == 1
        assert axis_size("tensor") == 2 and axis_size("stage") == 1
    assert axis_size("tensor") == 1


def test_the_compiler_follows():
    mesh = MeshShape(data=2, sequence=4).make()
    x = jax.device_put(np.arange(48.0).reshape(4, 4, 3), jax.NamedSharding(mesh, P()))
    placed = jax.jit(on_mesh(lambda x: constrain(x, BATCH, "sequence", None) * 1, mesh))(x)
    assert {s.data.shape for s in placed.addressable_shards} == {(2, 1, 3)}
    np.testing.assert_array_equal(placed, x)


def test_one_axis_per_dimension():
    with pytest.raises(ValueError, match=r"2 axes for an array of shape \(3,\)"):
        constrain(jnp.ones(3), BATCH, None)
