import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from taichu_jax.errors import UserError
from taichu_jax.training.sharding import (
    MeshShape,
    batch_sharding,
    check_batch,
    partition,
    state_sharding,
    table,
)

MESH = MeshShape(data=2, fsdp=2, tensor=2).make()
ONES = {"data": 1, "fsdp": 1, "expert": 1, "sequence": 1, "tensor": 1}


@pytest.mark.parametrize(
    "path, shape, want",
    [
        ("text/block_0/attention/query/kernel", (8, 8), P("fsdp", "tensor")),
        ("text/block_0/attention/out/kernel", (8, 8), P("tensor", "fsdp")),
        ("text/block_0/feed_forward/up/kernel", (8, 32), P("fsdp", "tensor")),
        ("text/block_0/feed_forward/down/kernel", (32, 8), P("tensor", "fsdp")),
        ("text/token_embedding", (40, 8), P("tensor", "fsdp")),
        ("image/patches/kernel", (48, 16), P("fsdp", None)),
        ("audio/conv/kernel", (3, 16, 8), P(None, "fsdp", None)),
        ("text/blocks/attention/query/kernel", (6, 8, 8), P(None, "fsdp", "tensor")),
        ("text/block_0/attention/query/bias", (8,), P(None)),
        ("text/position", (64, 8), P(None, None)),
        ("scale/logit_scale", (), P()),
        # Axes that do not divide are left out, one by one.
        ("text/token_embedding", (41, 8), P(None, "fsdp")),
        ("head/key/kernel", (7, 3), P(None, None)),
        # Optimiser moments and teachers follow their parameter.
        ("opt_state/mu/text/block_0/attention/out/kernel", (8, 8), P("tensor", "fsdp")),
        ("teachers/byol/image/patches/kernel", (48, 16), P("fsdp", None)),
    ],
)
def test_partition(path, shape, want):
    assert partition(path, shape, MESH) == want


def test_table_and_state_agree_and_every_leaf_is_placed():
    params = {"net": {"query": {"kernel": np.ones((4, 6)), "bias": np.ones(6)}}}
    assert table(params, MESH) == {
        "net/query/bias": P(None),
        "net/query/kernel": P("fsdp", "tensor"),
    }
    shardings = state_sharding({"params": params, "step": np.int32(0)}, MESH)
    assert shardings["params"]["net"]["query"]["kernel"].spec == P("fsdp", "tensor")
    assert shardings["step"].spec == P()
    placed = jax.device_put(
        params["net"]["query"]["kernel"], shardings["params"]["net"]["query"]["kernel"]
    )
    assert {s.data.shape for s in placed.addressable_shards} == {(2, 3)}


def test_mesh_sizes():
    assert dict(MeshShape().make().shape) == ONES | {"data": 8}
    assert dict(MeshShape(fsdp=-1, data=2).make().shape) == ONES | {"data": 2, "fsdp": 4}
    assert dict(MeshShape(data=1, expert=2, sequence=-1, tensor=2).make().shape) == (
        ONES | {"expert": 2, "sequence": 2, "tensor": 2}
    )
    assert MeshShape(data=2).make().size == 2
    for wrong in ({"data": 3, "tensor": -1}, {"data": 16}, {"data": -1, "fsdp": -1}, {"fsdp": 0}):
        with pytest.raises(UserError, match=r"config.mesh: .* 8 devices"):
            MeshShape(**wrong).make()


def test_neighbours_in_the_machine_are_neighbours_in_the_last_axis():
    grid = MeshShape(data=2, fsdp=1, expert=2, tensor=2).make().devices
    assert [d.id for d in grid.ravel()] == sorted(d.id for d in grid.ravel())
    assert tuple(MeshShape().make().shape) == tuple(ONES)
    assert [d.id for d in grid[0, 0, 0, 0]] == [0, 1]


def test_a_batch_is_split_over_data_fsdp_and_expert():
    x = jax.device_put(np.arange(8.0), batch_sharding(MESH))
    assert {s.data.shape for s in x.addressable_shards} == {(2,)}
    mesh = MeshShape(data=2, expert=2, sequence=2).make()
    x = jax.device_put(np.arange(8.0), batch_sharding(mesh))
    assert {s.data.shape for s in x.addressable_shards} == {(2,)}


def test_what_follows_experts_is_split_as_they_are():
    """Moments, teachers and scanned copies of the same parameters; routers are whole."""
    mesh = MeshShape(data=1, fsdp=2, expert=2, tensor=2).make()
    experts = {
        "up": {"kernel": np.ones((4, 8, 16)), "bias": np.ones((4, 16))},
        "down": {"kernel": np.ones((4, 16, 8))},
        "router": {"kernel": np.ones((8, 4))},
    }
    want = {
        "up": {"kernel": P("expert", "fsdp", "tensor"), "bias": P("expert", None)},
        "down": {"kernel": P("expert", "tensor", "fsdp")},
        "router": {"kernel": P(None, None)},
    }
    params = {"text": {"transformer": {"block_1": {"experts": experts}}}}
    flat = {f"text/block_1/experts/{k}/kernel": v["kernel"] for k, v in experts.items()}
    state = {"params": params, "teachers": {"byol": params}, "opt_state": {"mu": flat}}
    got = jax.tree.map(lambda s: s.spec, state_sharding(state, mesh))
    assert got["params"]["text"]["transformer"]["block_1"]["experts"] == want
    assert got["teachers"]["byol"]["text"]["transformer"]["block_1"]["experts"] == want
    assert got["opt_state"]["mu"] == {
        f"text/block_1/experts/{k}/kernel": v["kernel"] for k, v in want.items()
    }
    scanned = partition("text/blocks/block_1/experts/down/kernel", (6, 4, 16, 8), mesh)
    assert scanned == P(None, "expert", "tensor", "fsdp")
    assert partition("a/experts/up/kernel", (3, 8, 16), mesh) == P(None, "fsdp", "tensor")


@pytest.mark.parametrize(
    "size, accumulate, valid", [(6, 1, "4, 8, 12"), (10, 1, "8, 12, 16"), (12, 2, "8, 16, 24")]
)
def test_check_batch_names_sizes_that_work(size, accumulate, valid):
    with pytest.raises(UserError) as caught:
        check_batch(MESH, "pictures", size, accumulate)
    text = str(caught.value)
    assert text.startswith(f"config.streams.pictures.batch_size={size}: not divisible by")
    assert text.endswith(f"valid: {valid}")
    assert "data x fsdp x expert devices x accumulate" in text
    check_batch(MESH, "pictures", 16, accumulate)
    with pytest.raises(UserError, match="not divisible by 8"):
        check_batch(MeshShape(data=2, expert=4).make(), "pictures", 4)
