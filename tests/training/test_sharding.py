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
    assert dict(MeshShape().make().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(MeshShape(fsdp=-1, data=2).make().shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert MeshShape(data=2).make().size == 2
    for wrong in ({"data": 3, "tensor": -1}, {"data": 16}, {"data": -1, "fsdp": -1}, {"fsdp": 0}):
        with pytest.raises(UserError, match=r"config.mesh: .* 8 devices"):
            MeshShape(**wrong).make()


def test_a_batch_is_split_over_data_and_fsdp():
    x = jax.device_put(np.arange(8.0), batch_sharding(MESH))
    assert {s.data.shape for s in x.addressable_shards} == {(2,)}


@pytest.mark.parametrize(
    "size, accumulate, valid", [(6, 1, "4, 8, 12"), (10, 1, "8, 12, 16"), (12, 2, "8, 16, 24")]
)
def test_check_batch_names_sizes_that_work(size, accumulate, valid):
    with pytest.raises(UserError) as caught:
        check_batch(MESH, "pictures", size, accumulate)
    text = str(caught.value)
    assert text.startswith(f"config.streams.pictures.batch_size={size}: not divisible by")
    assert text.endswith(f"valid: {valid}")
    check_batch(MESH, "pictures", 16, accumulate)
