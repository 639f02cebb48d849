"""What the compiler is told has the effect that it is told for."""

import jax
import jax.numpy as jnp
import pytest

from taichu_jax.models.transformer import Stack, Transformer
from taichu_jax.training.compiler import options


def bytes_beside_the_arguments(remat, told):
    model = Transformer(6, heads=2, stack=Stack(remat=remat))
    x, mask = jnp.ones((4, 32, 16)), jnp.ones((4, 32), bool)
    params = jax.eval_shape(model.init, jax.random.key(0), x, mask)

    def loss(params, x):
        return jnp.square(model.apply(params, x, mask)[0]).sum()

    program = jax.jit(jax.grad(loss), compiler_options=told).lower(params, x).compile()
    return program.memory_analysis().temp_size_in_bytes


def test_on_cpus_blocks_that_are_computed_again_are_not_remembered():
    told = options("cpu")
    everything = bytes_beside_the_arguments("none", told)
    assert bytes_beside_the_arguments("full", told) < 0.5 * everything
    assert bytes_beside_the_arguments("full", {}) > 0.8 * everything  # else the option is of no use


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_other_platforms_keep_the_compilers_own_choice(platform):
    assert options(platform) == {}
