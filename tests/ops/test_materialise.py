"""The gradient of a residual stream is added up once."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.models.transformer import Transformer
from taichu_jax.ops.materialise import gradient_once
from taichu_jax.training import compiler

DEPTHS = 3, 6


def test_it_is_the_identity_and_so_is_its_gradient():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    value, pull = jax.vjp(lambda x: gradient_once(x) ** 2, x)
    np.testing.assert_array_equal(value, x**2)
    np.testing.assert_array_equal(pull(jnp.ones_like(x))[0], 2 * x)


def most_operands(depth, options):
    """Of any one kernel of a stack's gradient."""
    model = Transformer(depth, heads=2, expansion=1.0)
    x, mask = jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool)
    params = jax.eval_shape(model.init, jax.random.key(0), x, mask)

    def loss(params, x):
        return jnp.square(model.apply(params, x, mask)[0]).sum()

    program = jax.jit(jax.grad(loss), compiler_options=options).lower(params, x).compile()
    kernels = re.findall(r" fusion\(([^)]*)\)", program.as_text())
    return max(operands.count("%") for operands in kernels)


def test_kernels_of_a_step_do_not_grow_with_the_depth():
    shallow, deep = (most_operands(depth, compiler.options("cpu")) for depth in DEPTHS)
    assert shallow == deep
    assert most_operands(DEPTHS[1], {}) > 2 * deep  # else the option has no use any more
