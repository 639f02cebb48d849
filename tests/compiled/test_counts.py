"""Operations of a jaxpr, estimates, memory and advice, each against numbers written out here."""

import types

import jax
import jax.numpy as jnp
import pytest

from taichu_jax.compiled import advice, chips, memory, topology
from taichu_jax.compiled.products import product_flops
from taichu_jax.compiled.roofline import estimate
from taichu_jax.errors import UserError
from tests.compiled import blocks

GIB = 2**30


def flops(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return product_flops(jax.make_jaxpr(function)(*arrays))


def test_products_count_twice_their_multiplications():
    assert flops(jnp.matmul, (8, 16), (16, 4)) == 2 * 8 * 16 * 4
    assert flops(lambda a, b: jnp.einsum("bhnd,bhmd->bhnm", a, b), (2, 3, 5, 7), (2, 3, 6, 7)) == (
        2 * (2 * 3) * 5 * 6 * 7
    )


def test_what_nothing_needs_does_not_count():
    assert flops(
        lambda a, b: ((a @ b).sum() * 0 + a.sum(), (a @ b))[0] + 0 * b.sum(), (4, 4), (4, 4)
    )
    assert flops(lambda a, b: (a @ b, a)[1], (4, 4), (4, 4)) == 0


def test_scans_multiply_and_remat_adds_what_is_computed_again():
    def chain(x, w):
        return jax.lax.scan(lambda x, _: (jnp.sin(x @ w), None), x, None, length=5)[0].sum()

    def again(x, w):
        step = jax.checkpoint(lambda x, _: (jnp.sin(x @ w), None), prevent_cse=False)
        return jax.lax.scan(step, x, None, length=5)[0].sum()

    one = 2 * 3 * 4 * 4
    assert flops(chain, (3, 4), (4, 4)) == 5 * one
    assert flops(jax.grad(chain, argnums=(0, 1)), (3, 4), (4, 4)) == 15 * one
    assert flops(jax.grad(again, argnums=(0, 1)), (3, 4), (4, 4)) == 20 * one


def test_the_largest_branch_counts():
    def either(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: (x @ w).sum(), lambda: x.sum())

    assert flops(either, (3, 4), (4, 4)) == 2 * 3 * 4 * 4


def test_convolutions_and_their_gradients():
    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (2,), [(1, 0)], dimension_numbers=("NWC", "WIO", "NWC")
        )

    forward = 2 * 4 * (50 * 3 - 1) * 8 * 6  # one window reaches into the padding
    assert flops(convolve, (4, 100, 8), (3, 8, 6)) == forward
    both = jax.grad(lambda x, w: convolve(x, w).sum(), argnums=(0, 1))
    assert flops(both, (4, 100, 8), (3, 8, 6)) == pytest.approx(2 * forward, rel=0.01)


def test_the_slowest_of_three_bounds_the_step():
    chip = chips.Chip(name="x", flops=100.0, hbm=1, bandwidth=10.0, link=2.0, devices=2)
    e = estimate(chip, flops=150, moved=20, sent=5, model_flops=200, devices=2)
    assert (e.compute, e.memory, e.network) == (3.0, 4.0, 5.0)
    assert (e.bound, e.overlapped, e.serial) == ("network", 5.0, 12.0)
    assert e.utilisation == (200 / 100 / 5, 200 / 100 / 12)


def statistics(**sizes):
    names = ("argument", "output", "alias", "temp", "generated_code")
    return types.SimpleNamespace(**{f"{n}_size_in_bytes": sizes[n] for n in names})


def test_memory_counts_donated_buffers_once():
    m = memory.of_program(
        statistics(argument=10, output=8, alias=7, temp=5, generated_code=1), {"params": 9}, 17
    )
    assert (m.needed, m.fits) == (17, True)
    assert not memory.of_program(
        statistics(argument=10, output=8, alias=7, temp=5, generated_code=1), {}, 16
    ).fits


def test_a_refusal_says_how_much_was_wanted():
    said = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
        "Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G."
    )
    m = memory.of_refusal(said, {}, 16 * GIB)
    assert (m.needed, m.capacity, m.fits) == (int(20.5 * GIB), int(15.75 * GIB), False)
    said = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
        "(240.95G) exceeds available HBM (15.75G)."
    )
    m = memory.of_refusal(said, {"params": GIB, "batch": GIB}, 16 * GIB)
    assert (m.needed, m.fits) == (int(240.95 * GIB) + 2 * GIB, False)
    assert memory.of_refusal("INTERNAL: something else", {}, 1) is None
    with pytest.raises(UserError, match="does not fit"):
        memory.of_refusal("RESOURCE_EXHAUSTED: too much", {}, 1)


def test_advice_gives_the_sizes_after_the_change():
    experiment = blocks.experiment(8, data=8)
    state = memory.device_bytes(experiment.abstract_state())
    parts = {"params": state, "batch": 64}

    def needs(wanted, capacity):
        return memory.Memory(parts, wanted, capacity, compiled=False)

    assert advice.advice(experiment, jax.devices(), needs(0, 1)) != []  # nothing compiled
    split = memory.device_bytes(blocks.experiment(8, data=2, fsdp=4).abstract_state())
    lines = advice.advice(experiment, jax.devices(), needs(3 * state, int(2.1 * split)))
    assert lines[0] == (
        f"config.mesh.data=2 config.mesh.fsdp=4: {split / GIB:.1f} GiB of state a device, now "
        f"{state / GIB:.1f}"
    )
    assert lines[1] == "config.networks.blocks.stack.remat=full (now none)"
    roomy = advice.advice(experiment, jax.devices(), needs(4 * state, 2 * state))
    assert roomy[-1].startswith("config.accumulate=4 (now 1)")
    drops = advice.advice(experiment, jax.devices(), needs(100 * state, 10 * state))
    assert not any("fsdp" in line for line in drops)  # the state is not what is too large
    parts["batch"] = 6 * state
    full = advice.advice(experiment, jax.devices(), needs(100 * state, 10 * state))
    assert full[-1].startswith("smaller batches")


def test_without_remat_changes_nothing_else():
    config = blocks.get_config(remat="full", scan=True)
    plain = advice.without_remat(config)
    assert plain.networks.blocks.stack.remat == "none"
    assert config.networks.blocks.stack.remat == "full"
    plain.networks.blocks.stack.remat = "full"
    assert plain == config


def test_device_bytes_are_those_of_shards():
    experiment = blocks.experiment(8, data=2, fsdp=4)
    state = experiment.abstract_state()
    expected = sum(
        leaf.dtype.itemsize * leaf.size // (4 if any(leaf.sharding.spec) else 1)
        for leaf in jax.tree.leaves(state)
    )
    assert memory.device_bytes(state) == expected


def test_chips_that_nobody_knows_are_an_error():
    with pytest.raises(UserError, match="'cpu'"):
        topology.chip_of(jax.devices())


def test_what_goes_to_stderr_is_kept():
    import os

    with topology.errors_kept() as lines:
        os.write(2, b"one\ntwo\n")
    assert lines == ["one", "two"]
