"""What every objective must keep, run over every case in tests/cases."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import taichu_jax.objectives
from taichu_jax.objectives.base import Objective
from taichu_jax.training.optim import AdamW, Optimizer
from taichu_jax.training.sharding import MeshShape, batch_sharding, state_sharding
from taichu_jax.training.state import init_params, init_state
from taichu_jax.training.step import make_loss, make_step
from tests import case as cases
from tests.batches import MODALITIES

every_case = pytest.mark.parametrize("name", cases.NAMES)


def test_every_objective_has_a_case():
    for module in pkgutil.walk_packages(taichu_jax.objectives.__path__, "taichu_jax.objectives."):
        importlib.import_module(module.name)

    def leaves(cls):
        return (
            {cls} if not cls.__subclasses__() else set().union(*map(leaves, cls.__subclasses__()))
        )

    covered = {type(cases.built(name)[1]) for name in cases.NAMES}
    assert {c for c in leaves(Objective) if c.__module__.startswith("taichu_jax.")} <= covered


@every_case
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_loss_and_gradients_are_finite_on_every_network(name, dtype):
    params = cases.built(name)[2]
    value, grads = jax.jit(jax.value_and_grad(lambda p: cases.run(name, params=p, dtype=dtype)[0]))(
        params
    )
    assert np.isfinite(value) and value != 0
    for network, tree in grads.items():
        leaves = [np.asarray(g, np.float32) for g in jax.tree.leaves(tree)]
        assert all(np.isfinite(g).all() for g in leaves), network
        assert any(np.abs(g).max() > 0 for g in leaves), f"no gradient reaches {network}"


@every_case
def test_no_gradient_to_teachers(name):
    _, _, params, teachers, _ = cases.built(name)
    if not teachers:
        return
    grads = jax.jit(jax.grad(lambda t: cases.run(name, params=params, teachers=t)[0]))(teachers)
    assert all(np.abs(g).max() == 0 for g in jax.tree.leaves(grads))


def _garbage_where_padded(batch):
    """The same batch with other numbers in padding and in absent modalities; None if it has neither."""
    rng = np.random.default_rng(3)
    result = {k: v.copy() for k, v in batch.items()}
    changed = False

    def spoil(field, where):
        nonlocal changed
        where = np.broadcast_to(
            where.reshape(where.shape + (1,) * (result[field].ndim - where.ndim)),
            result[field].shape,
        )
        noise = (
            rng.integers(6, 30, where.shape)
            if result[field].dtype.kind == "i"
            else rng.normal(size=where.shape)
        )
        changed |= bool(where.any())
        result[field] = np.where(where, noise, result[field]).astype(result[field].dtype)

    if "text" in batch:
        spoil("text", ~batch["text_mask"])
    for field in ("mel", "audio"):
        if field in batch:
            index = np.arange(batch[field].shape[1])
            spoil(field, index >= batch[f"{field}_lengths"][:, None])
    for modality, fields in MODALITIES.items():
        absent = ~batch.get(f"has_{modality}", np.ones(1, bool))
        for field in fields:
            if absent.any() and batch[field].dtype != bool and not field.endswith("lengths"):
                spoil(field, absent)
    return result if changed else None


@every_case
def test_padding_and_absent_modalities_do_not_matter(name):
    batch = cases.load(name).batch
    spoiled = _garbage_where_padded(batch)
    if spoiled is None:
        return
    run = jax.jit(lambda b: cases.run(name, batch=b)[0])
    np.testing.assert_allclose(run(spoiled), run(batch), rtol=1e-5)


@every_case
def test_never_nan_when_nothing_is_there(name):
    """Everything masked or absent: the loss and every gradient stay finite."""
    batch = {k: v.copy() for k, v in cases.load(name).batch.items()}
    for field, value in batch.items():
        if field.startswith("has_") or field.endswith(("_mask", "_lengths")):
            batch[field] = np.zeros_like(value)
    params = cases.built(name)[2]
    run = jax.jit(jax.value_and_grad(lambda p, b: cases.run(name, batch=b, params=p)[0]))
    value, grads = run(params, batch)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@every_case
def test_alone_and_mixed_draw_the_same(name):
    """Parameters and loss do not depend on which other objectives run, nor on their order."""
    case = cases.load(name)
    modules, objective, params, *_ = cases.built(name)
    batch = {k: jnp.asarray(v) for k, v in case.batch.items()}
    other = "masked_lm" if name != "masked_lm" else "causal_lm"
    other_case, (other_modules, other_objective, *_) = cases.load(other), cases.built(other)
    renamed = {f"other_{k}": v for k, v in other_modules.items()}
    fields = {f.name: getattr(other_objective, f.name) for f in dataclasses.fields(other_objective)}
    fields |= {k: f"other_{v}" for k, v in fields.items() if v in other_modules}
    fields["source"] = "other"
    mixed = {"another": type(other_objective)(**fields), name: objective}
    streams = {"stream": batch, "other": {k: jnp.asarray(v) for k, v in other_case.batch.items()}}

    def both():
        new = init_params(modules | renamed, mixed, streams, 0)
        loss = make_loss(modules | renamed, mixed, 0)
        return new, loss(*new, streams, 5)[1][0]

    def alone():
        loss = make_loss(modules, {name: objective}, 0)
        new = init_params(modules, {name: objective}, streams, 0)
        return new, loss(*new, streams, 5)[1][0]

    (mixed_init, mixed_metrics), (alone_init, alone_metrics) = jax.jit(both)(), jax.jit(alone)()
    for network in params:
        jax.tree.map(np.testing.assert_array_equal, mixed_init[0][network], alone_init[0][network])
    for key, metric in alone_metrics.items():
        np.testing.assert_allclose(mixed_metrics[key][0], metric[0], rtol=2e-5, atol=1e-6)


@every_case
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)], ids=["data", "mixed"])
def test_one_device_equals_eight_and_compiles_once(name, shape):
    case = cases.load(name)
    modules, objective = cases.built(name)[:2]
    objectives = {name: objective}
    batch = {"stream": {k: jnp.asarray(v) for k, v in case.batch.items()}}
    optimizer = Optimizer(AdamW(learning_rate=1e-2, eps=1e-3))
    step = make_step(modules, objectives, optimizer)
    single = jax.jit(step)
    state = jax.jit(lambda: init_state(modules, objectives, batch, optimizer, 0))()
    mesh = MeshShape(data=shape[0], fsdp=shape[1], tensor=shape[2]).make()
    placed = jax.device_put(state, state_sharding(state, mesh))
    sharded = jax.jit(
        step,
        in_shardings=(state_sharding(state, mesh), batch_sharding(mesh)),
        out_shardings=(state_sharding(state, mesh), NamedSharding(mesh, P())),
    )
    placed_batch = jax.device_put(batch, batch_sharding(mesh))
    for _ in range(2):
        state, expected = single(state, batch)
        placed, metrics = sharded(placed, placed_batch)
        for key in expected:
            np.testing.assert_allclose(
                metrics[key][0], expected[key][0], rtol=1e-5, atol=1e-5, err_msg=key
            )
    assert sharded._cache_size() == 1 and single._cache_size() == 1
