"""Fused attention computes what plain attention does; cuDNN's own checks accept what it is given.

cuDNN's kernel needs a GPU. Here XLA's implementation of the same function of JAX stands in for it, and
what is sent to cuDNN is looked at in programs that are lowered for a GPU and not run.
"""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from taichu_jax.models.grid_position import Grid
from taichu_jax.models.stack import Stack
from taichu_jax.models.transformer import Transformer
from taichu_jax.ops import attention
from taichu_jax.training.sharding import MeshShape, on_mesh

HEADS, SIZE = 2, 8


def draw(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), shape)


def inputs(rows, columns):
    return (
        draw(3, rows, HEADS, SIZE),
        draw(3, columns, HEADS, SIZE),
        draw(3, columns, HEADS, SIZE) + 1,
    )


def masks(rows, columns):
    lengths = jnp.array([columns, columns // 2, 0])
    keys = (jnp.arange(columns) < lengths[:, None])[:, None, None]
    pairs = draw(3, 1, rows, columns) > 0
    return {"none": None, "keys": keys, "pairs": pairs.at[0, 0, 1].set(False)}


def biases(rows, columns):
    return {
        "none": None,
        "heads": draw(HEADS, rows, columns),
        "all": draw(3, HEADS, rows, columns),
    }


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (5, 5), (3, 6), (1, 1)])
def test_fused_is_plain(rows, columns):
    @functools.partial(jax.jit, static_argnums=3)
    def both(arguments, mask, bias, causal):
        def energy(function, *last):
            def value(arguments, bias):
                mixed = function(*arguments, mask, bias, *last)
                return jnp.square(mixed).sum(), mixed

            return jax.value_and_grad(value, (0, 1) if bias is not None else 0, has_aux=True)

        plain = energy(attention.plain, causal, lambda weights: weights)(arguments, bias)
        fused = energy(attention.fused, causal, "xla")(arguments, bias)
        return plain, fused

    for mask, bias in itertools.product(
        masks(rows, columns).values(), biases(rows, columns).values()
    ):
        for causal in (False, True) if rows == columns else (False,):
            plain, fused = both(inputs(rows, columns), mask, bias, causal)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), plain, fused)


def test_a_query_that_sees_nothing_gets_zero_from_both():
    mask = masks(5, 5)["keys"]
    plain = attention.plain(*inputs(5, 5), mask, None, True, lambda weights: weights)
    fused = attention.fused(*inputs(5, 5), mask, None, True, "xla")
    assert not plain[2].any() and not fused[2].any()
    assert fused[0].any(-1).all()


@pytest.fixture
def as_if_cuda(monkeypatch):
    """JAX believes in cuDNN 9.10 on a GPU of compute capability 9.0; programs cannot be run."""
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda wanted: float(wanted) <= 9.0)
    monkeypatch.setattr(attention, "kernel", lambda: "cudnn")


def lowered(function, *arguments):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


def calls(text):
    """(forward, backward) calls of cuDNN's kernel in a program."""
    names = re.findall(r"custom_call @__cudnn\$fmha(\w+)", text)
    backward = sum(name.endswith("Backward") for name in names)
    return len(names) - backward, backward


def transformer(fused=True, width=16, dtype=jnp.bfloat16, rows=5, **settings):
    """(gradient of a stack of two blocks, its arguments)."""
    stack = Stack(attention="fused" if fused else "plain")
    inputs = settings.pop("inputs", {})
    network = Transformer(2, HEADS, stack=stack, **settings)
    x = draw(3, rows, width)
    real = jnp.arange(rows) < jnp.array([rows, 2, 0])[:, None]
    variables = network.init(jax.random.key(1), x, real, **inputs)
    cast = lambda tree: jax.tree.map(lambda leaf: leaf.astype(dtype), tree)  # noqa: E731

    def energy(variables, x):
        return jnp.square(network.apply(cast(variables), cast(x), real, **inputs)[0]).mean()

    return jax.value_and_grad(energy, (0, 1)), variables, x


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"causal": True, "rows": 6},
        {"cross": True, "inputs": {"memory": draw(3, 7, 16), "memory_mask": draw(3, 7) > 0}},
        {"relative_position": "gated"},
        {"relative_position": "transformer_xl"},
        {"relative_position": "grid", "inputs": {"grid": Grid((2, 2), (2, 2), True)}},
    ],
)
def test_networks_compute_the_same_with_a_fused_kernel(settings, monkeypatch):
    expected, *arguments = transformer(False, dtype=jnp.float32, **dict(settings))
    monkeypatch.setattr(attention, "kernel", lambda: "xla")
    found, *_ = transformer(True, dtype=jnp.float32, **dict(settings))
    used = []
    true = attention.fused
    monkeypatch.setattr(attention, "fused", lambda *a: used.append(a) or true(*a))
    results = jax.jit(expected)(*arguments), jax.jit(found)(*arguments)
    assert used
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *results)


@pytest.mark.parametrize("rows", [6, 7])
@pytest.mark.parametrize("causal", [False, True])
def test_cudnn_takes_what_it_is_given(as_if_cuda, rows, causal):
    text = lowered(*transformer(rows=rows, causal=causal))
    assert calls(text) == (2, 2)
    assert ("CAUSAL" in text) == causal


@pytest.mark.parametrize(
    "settings", [{"dtype": jnp.float32}, {"width": 24}, {"fused": False}], ids=str
)
def test_what_cudnn_cannot_do_is_plain(as_if_cuda, settings):
    assert calls(lowered(*transformer(**settings))) == (0, 0)


def test_plain_where_positions_are_split(as_if_cuda):
    function, *arguments = transformer(rows=6)
    mesh = MeshShape(data=1, sequence=2).make(jax.devices()[:2])
    name = "dot_product_attention"
    assert name not in str(jax.make_jaxpr(on_mesh(function, mesh))(*arguments))
    assert name in str(jax.make_jaxpr(function)(*arguments))


def test_plain_where_there_is_no_cuda_gpu(monkeypatch):
    assert (attention.kernel() is None) == (jax.devices()[0].platform != "gpu")
    monkeypatch.setattr(attention, "kernel", lambda: None)
    plain, fused = (str(jax.make_jaxpr(f)(*a)) for f, *a in (transformer(False), transformer(True)))
    assert plain == fused
