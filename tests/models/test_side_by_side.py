"""Queries, keys and values as one product where units are split over devices: the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.models.layers import Weights, side_by_side
from taichu_jax.models.style import Style
from taichu_jax.models.transformer import Transformer
from taichu_jax.training.sharding import MeshShape, on_mesh

X = jax.random.normal(jax.random.key(0), (4, 6, 8))
MEMORY = jax.random.normal(jax.random.key(1), (4, 5, 8))


def value_and_gradients(network, mesh, *inputs):
    """Of the mean square of what `network` makes of inputs, with respect to weights and inputs."""
    variables = network.init(jax.random.key(2), *inputs)

    def energy(variables, *inputs):
        return jnp.square(network.apply(variables, *inputs)[0]).mean()

    places = tuple(i for i, x in enumerate(inputs, 1) if x.dtype == jnp.float32)
    function = jax.value_and_grad(energy, (0, *places))
    return jax.jit(on_mesh(function, MeshShape(**mesh).make()))(variables, *inputs)


@pytest.mark.parametrize("mesh", [{"tensor": 2}, {"tensor": 2, "sequence": 2}, {"tensor": 4}])
@pytest.mark.parametrize("cross", [False, True])
def test_a_transformer_and_its_gradients_are_those_without_a_mesh(mesh, cross):
    style = Style(key_bias=False, gated=True)
    network = Transformer(depth=2, heads=4, cross=cross, style=style)
    real = jnp.ones(X.shape[:2], bool)
    memory = (MEMORY, jnp.ones(MEMORY.shape[:2], bool)) if cross else ()
    expected = value_and_gradients(network, {"data": 1}, X, real, *memory)
    split = value_and_gradients(network, {"data": 1, **mesh}, X, real, *memory)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5), expected, split
    )


def test_one_product_with_split_units_and_one_for_each_layer_without():
    layers = [Weights(8, use_bias=i != 1, parent=None) for i in range(3)]
    variables = [layer.init(jax.random.key(i), 8) for i, layer in enumerate(layers)]
    bound = [layer.bind(v) for layer, v in zip(layers, variables, strict=True)]
    for devices, products in ((1, 3), (2, 1)):
        mesh = MeshShape(data=1, tensor=devices).make(jax.devices()[:devices])
        joined = on_mesh(lambda x: side_by_side(x, *bound), mesh)
        assert str(jax.make_jaxpr(joined)(X)).count("dot_general") == products
        for y, v in zip(jax.jit(joined)(X), variables, strict=True):
            expected = X @ v["params"]["kernel"] + v["params"].get("bias", 0.0)
            np.testing.assert_allclose(y, expected, atol=1e-5)
