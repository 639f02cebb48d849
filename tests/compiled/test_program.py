"""What the compiler makes of the train step on eight CPU devices: buffers, shards, collectives.

The CPU compiler has no reduce-scatter of gradients: it all-reduces them whole and slices. The TPU
compiler scatters; apart from that the programs are split by the same rules.
"""

import functools

import jax
import numpy as np
import pytest

from taichu_jax.compiled import hlo
from taichu_jax.compiled.collectives import collectives, totals
from taichu_jax.compiled.memory import device_bytes, parts_of
from taichu_jax.compiled.products import product_flops
from taichu_jax.compiled.program import abstract_batch
from taichu_jax.compiled.work import work
from tests.compiled import blocks
from tests.compiled.blocks import BATCH, DEPTH, LENGTH, WIDTH

METRICS = 1024  # bytes of counters, norms and losses, generously
ACTIVATIONS = BATCH * LENGTH * WIDTH * 4


@functools.cache
def compiled(devices, **settings):
    """(experiment, program, its text) of a mesh on the first devices."""
    experiment = blocks.experiment(devices, **settings)
    step = experiment.train_step()
    program = step.lower(experiment.abstract_state(), abstract_batch(experiment)).compile()
    return experiment, program, hlo.parse(program.as_text())


def found(devices, **settings):
    return collectives(compiled(devices, **settings)[2], devices)


def parameter_bytes(experiment, only=lambda leaf: True):
    leaves = jax.tree.leaves(experiment.abstract_state().params)
    return sum(leaf.size * 4 for leaf in leaves if only(leaf))


def is_split(leaf):
    return leaf.sharding.shard_shape(leaf.shape) != leaf.shape


ONE = {"data": 1}
DATA = {"data": 8}
FSDP = {"data": 1, "fsdp": 8, "scan": True}
TENSOR = {"data": 1, "tensor": 2}


def test_one_device_talks_to_nobody():
    assert found(1, **ONE) == []


def test_data_parallel_adds_every_gradient_once_and_nothing_else():
    experiment, *_ = compiled(8, **DATA)
    sums = totals(found(8, **DATA))
    assert set(sums) == {"all-reduce"}
    expected = parameter_bytes(experiment)
    assert expected <= sums["all-reduce"].payload <= 1.05 * expected + METRICS


def test_fsdp_gathers_parameters_and_adds_their_gradients():
    experiment, *_ = compiled(8, **FSDP)
    sums = totals(found(8, **FSDP))
    split = parameter_bytes(experiment, is_split)
    assert split > 0.95 * parameter_bytes(experiment)
    assert set(sums) <= {"all-gather", "all-reduce", "reduce-scatter", "all-to-all"}
    # Once for the forward pass, and again for the backward pass of a scanned stack.
    assert split <= sums["all-gather"].payload <= 2.05 * split
    reduced = sum(sums[k].payload for k in ("all-reduce", "reduce-scatter") if k in sums)
    assert parameter_bytes(experiment) <= reduced <= 1.05 * parameter_bytes(experiment) + METRICS


@pytest.mark.parametrize("gated", [False, True])
def test_tensor_parallel_adds_activations_four_times_a_block(gated):
    """Forward behind `out` and `down`; backward before `query`, `key` and `value`, and before `up`.

    The three meet in one sum, and so do `up` and `gate`.
    """
    every = found(2, **TENSOR, gated=gated)
    sums = [c for c in every if c.kind == "all-reduce"]
    activations = 4 * DEPTH * ACTIVATIONS
    assert activations <= sum(c.times * c.payload for c in sums) <= activations + METRICS
    # Biases are whole on every device: with their moments they are gathered after the update.
    rest = [c for c in every if c.kind != "all-reduce"]
    assert {c.kind for c in rest} <= {"all-gather"}
    biases = 3 + 4 * (1 + gated)  # numbers per unit of the width: attention, feed-forward
    assert sum(c.times * c.payload for c in rest) <= 3 * DEPTH * biases * WIDTH * 4


@pytest.mark.parametrize(("devices", "mesh"), [(1, ONE), (8, DATA), (8, FSDP), (2, TENSOR)])
def test_the_whole_state_is_donated(devices, mesh):
    experiment, program, module = compiled(devices, **mesh)
    state = experiment.abstract_state()
    leaves = len(jax.tree.leaves(state))
    assert module.aliased == {i: i for i in range(leaves)}
    assert program.memory_analysis().alias_size_in_bytes == device_bytes(state)


@pytest.mark.parametrize(("devices", "mesh"), [(8, DATA), (8, FSDP), (2, TENSOR)])
def test_arguments_and_results_have_the_shape_of_shards(devices, mesh):
    experiment, program, module = compiled(devices, **mesh)
    state, batch = experiment.abstract_state(), abstract_batch(experiment)
    shards = [leaf.sharding.shard_shape(leaf.shape) for leaf in jax.tree.leaves((state, batch))]
    arguments = [p.arrays[0].shape for _, p in sorted(module.entry.parameters.items())]
    assert arguments == shards
    assert program.memory_analysis().argument_size_in_bytes == sum(parts_of(state, batch).values())
    count = len(jax.tree.leaves(state))
    assert [a.shape for a in module.entry.root.arrays][:count] == shards[:count]


def test_no_loop_carries_a_whole_parameter():
    """A scanned stack gathers one layer at a time."""
    experiment, _, module = compiled(8, **FSDP)
    leaves = jax.tree.leaves(experiment.abstract_state().params)
    whole = {leaf.shape for leaf in leaves if is_split(leaf) and leaf.shape[0] == DEPTH}
    loops = [i for c in module.computations.values() for i in c.instructions if i.opcode == "while"]
    assert len(loops) >= 2
    assert whole
    for loop in loops:
        assert not whole & {array.shape for array in loop.arrays}


def test_operations_are_those_of_the_formula():
    """6 N a token, and 12 N D a token and layer for the scores and what they mix."""
    experiment, _, module = compiled(1, **ONE)
    traced = experiment.train_step().trace(experiment.abstract_state(), abstract_batch(experiment))
    matrices = sum(
        leaf.size for leaf in jax.tree.leaves(experiment.abstract_state().params) if leaf.ndim == 2
    )
    tokens = BATCH * LENGTH
    formula = 6 * matrices * tokens + 12 * DEPTH * LENGTH * WIDTH * tokens
    asked = product_flops(traced.jaxpr)
    assert asked == formula
    assert 0.98 * asked <= work(module).flops <= asked


def test_remat_computes_the_blocks_again_and_loops_count_by_their_trips():
    plain, again = (blocks.experiment(1, data=1, scan=True, remat=r) for r in ("none", "full"))
    flops = [
        product_flops(e.train_step().trace(e.abstract_state(), abstract_batch(e)).jaxpr)
        for e in (plain, again)
    ]
    matrices = 12 * WIDTH * WIDTH * DEPTH
    forward = 2 * BATCH * LENGTH * (matrices + 2 * DEPTH * LENGTH * WIDTH)
    last_product = (
        2 * BATCH * LENGTH * 4 * WIDTH * WIDTH * DEPTH
    )  # of `down`: nothing needs its result
    assert flops[1] - flops[0] in (forward, forward - last_product)


def test_scanned_layers_count_as_often_as_they_run():
    experiment, _, module = compiled(8, **FSDP)
    traced = experiment.train_step().trace(experiment.abstract_state(), abstract_batch(experiment))
    done = work(module)
    assert done.unknown_loops == 0
    assert done.flops == pytest.approx(product_flops(traced.jaxpr) / 8, rel=0.02)
    assert done.flops_once < done.flops / 2
    assert np.isclose(done.flops_once * DEPTH, done.flops, rtol=0.3)
