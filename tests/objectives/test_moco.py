"""Momentum contrast against the papers' formula in NumPy loops."""

import collections
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.objectives.vision.moco import MoCo
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.sharding import MeshShape, batch_sharding
from tests import case as cases

BATCH, WIDTH = 8, 3


class FakeNets:
    """The encoder turns a picture's pixels into its tokens; the projections scale and shift them."""

    step = jnp.int32(0)

    def __call__(self, name, x):
        if name == "image":
            mask = jnp.ones(x.shape[:2], bool)
            return SimpleNamespace(tokens=x.reshape(len(x), -1, WIDTH), mask=mask)
        return x * 2.0 + 0.1

    def teacher(self, name, x):
        return self(name, x) if name == "image" else x * 0.5 - 0.2


def views(seed):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=(BATCH, 2, 1, 3)).astype(np.float32) for k in ("image", "image2")}


def reference(batch, queue, temperature, present):
    """(loss, share of right first choices, keys)."""
    losses, right, keys = [], [], []
    for i in range(BATCH):
        query = batch["image"][i].reshape(2, 3).mean(0).astype(np.float64) * 2 + 0.1
        key = batch["image2"][i].reshape(2, 3).mean(0).astype(np.float64) * 0.5 - 0.2
        query, key = query / np.sqrt((query**2).sum()), key / np.sqrt((key**2).sum())
        if not present[i]:
            continue
        scores = [np.exp(query @ key / temperature)]
        scores += [np.exp(query @ other / temperature) for other in queue]
        losses.append(-np.log(scores[0] / sum(scores)))
        right.append(scores[0] == max(scores))
        keys.append(key)
    return np.mean(losses), np.mean(right), keys


@pytest.mark.parametrize("temperature", [0.2, 0.07])
@pytest.mark.parametrize("negatives", [16, 20, 5])
def test_loss_over_several_steps(temperature, negatives):
    """The queue starts empty, fills, and wraps; a batch of 8 may not divide it or exceed it."""
    objective = MoCo(
        source="s", width=WIDTH, negatives=negatives, temperature=temperature, present="has_image"
    )
    memory, queue = objective.memory(jax.random.key(0)), collections.deque(maxlen=negatives)
    step = jax.jit(
        lambda batch, memory: objective.loss(FakeNets(), batch, memory, jax.random.key(0))
    )
    for i in range(5):
        batch = views(i)
        present = np.random.default_rng(i).uniform(size=BATCH) < (0.7 if i % 2 else 1.0)
        loss = step(batch | {"has_image": present}, memory)
        value, accuracy, keys = reference(batch, queue, temperature, present)
        np.testing.assert_allclose(loss.value, value, rtol=1e-4, atol=1e-6)
        right, count = loss.metrics["accuracy"]
        np.testing.assert_allclose(right / count, accuracy, rtol=1e-6)
        queue.extend(keys)  # after the loss: keys of this step are no negatives of this step
        memory = loss.memory
        np.testing.assert_allclose(
            loss.metrics["queue_filled"][0], len(queue) / negatives, rtol=1e-6
        )


def test_an_empty_queue_gives_zero_and_no_gradient():
    objective = MoCo(source="s", width=WIDTH, negatives=8)

    def run(image):
        batch = {"image": image, "image2": views(0)["image2"]}
        memory = objective.memory(jax.random.key(0))
        return objective.loss(FakeNets(), batch, memory, jax.random.key(0)).value

    value, grad = jax.value_and_grad(run)(jnp.asarray(views(0)["image"]))
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(grad, 0, atol=1e-6)


def test_random_start_fills_the_queue_with_directions():
    queue = MoCo(source="s", width=WIDTH, negatives=500, random_start=True).memory(
        jax.random.key(0)
    )
    np.testing.assert_allclose(np.linalg.norm(queue.items, axis=1), 1, rtol=1e-5)
    assert queue.valid.all() and np.abs(np.asarray(queue.items).mean(0)).max() < 0.1


def test_gradient_flows_through_queries_only():
    objective = MoCo(source="s", width=8, negatives=20, random_start=True)
    modules, _, params, teachers, memory = cases.built("moco")
    assert set(teachers) == {"image", "image_projection"}
    batch = cases.load("moco").batch

    def run(images, keys):
        nets = BoundNets(modules, params, teachers)
        fields = {"image": images, "image2": keys}
        return objective.loss(nets, fields, memory, jax.random.key(0)).value

    first, second = jax.jit(jax.grad(run, argnums=(0, 1)))(batch["image"], batch["image2"])
    assert np.abs(first).max() > 0 and np.abs(second).max() == 0


def test_defaults_are_the_papers():
    objective = MoCo(source="s")
    assert (objective.temperature, objective.negatives, objective.width) == (0.2, 65536, 128)
    assert objective.teacher.decay == 0.999


def test_the_queue_is_the_same_on_eight_devices():
    objective = MoCo(source="s", width=WIDTH, negatives=20)
    mesh = MeshShape(data=4, fsdp=2).make()
    step = jax.jit(lambda b, m: objective.loss(FakeNets(), b, m, jax.random.key(0)))
    one = eight = objective.memory(jax.random.key(0))
    for i in range(4):
        batch = jax.tree.map(jnp.asarray, views(i))
        first = step(batch, one)
        second = step(jax.device_put(batch, batch_sharding(mesh)), eight)
        np.testing.assert_allclose(second.value, first.value, rtol=1e-5, atol=1e-6)
        one, eight = first.memory, second.memory
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, eight)
    assert one.pointer == 12 and one.filled == 20
