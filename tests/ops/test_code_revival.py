"""Entries that nobody chooses: when they are found out, and how they come back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from taichu_jax.models.residual_quantiser import ResidualQuantiser
from taichu_jax.ops.code_revival import CodeUse, all_used, follow_use, revival

RULES = {"decay": 0.5, "below": 0.3}
FOLLOW = jax.jit(lambda use, *args, renew: follow_use(use, *args, **RULES, renew=renew))
RNG = np.random.default_rng(0)
REAL = np.array([[True, True, False], [True, False, False]])
INDICES = np.array([[[0, 2], [1, 2], [3, 3]], [[0, 2], [3, 3], [3, 3]]])  # three real tokens
RESIDUALS = RNG.normal(size=(2, 3, 2, 5)).astype(np.float32)


def test_shares_move_and_entries_below_the_threshold_get_a_residual_of_their_stage():
    start = all_used(2, 4, 5)
    use = FOLLOW(start, INDICES, RESIDUALS, REAL, jax.random.key(0), renew=False)
    first = 0.5 / 4 + 0.5 * np.array([[2 / 3, 1 / 3, 0, 0], [0, 0, 1, 0]])
    np.testing.assert_allclose(use.shares, first, rtol=1e-6)
    assert not np.asarray(use.unused).any()  # half of an even share is still above 0.3 of it

    again = FOLLOW(use, INDICES, RESIDUALS, REAL, jax.random.key(1), renew=False)
    unused = np.array([[False, False, True, True], [True, True, False, True]])
    np.testing.assert_array_equal(again.unused, unused)
    for s, v in zip(*np.nonzero(unused), strict=True):
        assert any(np.array_equal(again.targets[s, v], r) for r in RESIDUALS[:, :, s][REAL])
    assert np.abs(again.targets[~unused]).max() == 0

    kept = FOLLOW(again, INDICES, RESIDUALS, REAL, jax.random.key(2), renew=False)
    np.testing.assert_array_equal(kept.targets, again.targets)
    renewed = FOLLOW(again, INDICES, RESIDUALS, REAL, jax.random.key(2), renew=True)
    assert (np.asarray(renewed.targets) != np.asarray(again.targets)).any()

    nothing = FOLLOW(again, INDICES, RESIDUALS, REAL & False, jax.random.key(3), renew=True)
    jax.tree.map(np.testing.assert_array_equal, nothing, again)


def test_residuals_are_drawn_alike():
    many = CodeUse(jnp.zeros((2, 6000)), jnp.zeros((2, 6000, 5)), jnp.zeros((2, 6000), bool))
    use = FOLLOW(many, INDICES, RESIDUALS, REAL, jax.random.key(0), renew=False)
    for s in range(2):
        for residual in RESIDUALS[:, :, s][REAL]:
            share = (np.asarray(use.targets)[s] == residual).all(-1).mean()
            assert abs(share - 1 / 3) < 5 * np.sqrt(2 / 9 / 6000)


def test_the_loss_is_of_the_unused_and_moves_nothing_else():
    entries = RNG.normal(size=(2, 4, 5)).astype(np.float32)
    unused = np.array([[True, False, False, True], [False, True, False, False]])
    use = CodeUse(jnp.zeros((2, 4)), jnp.asarray(RNG.normal(size=(2, 4, 5)), jnp.float32), unused)
    total, count = revival(use, entries)
    expected = np.square(entries - np.asarray(use.targets))[unused].mean(-1).sum()
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert count == 3
    gradient = jax.grad(lambda e: revival(use, e)[0])(jnp.asarray(entries))
    np.testing.assert_array_equal(np.abs(gradient).max(-1) > 0, unused)


def test_planted_clusters_get_their_entries_back():
    """Sixteen clusters and as many entries, one near the data and the others far from it."""
    rng = np.random.default_rng(4)
    centres = 3 * rng.normal(size=(16, 5))
    x = centres[rng.integers(0, 16, (4, 100))] + 0.05 * rng.normal(size=(4, 100, 5))
    x, real = x.astype(np.float32), np.ones((4, 100), bool)
    books = (8 + rng.normal(size=(1, 16, 5))).astype(np.float32)
    books[0, 0] = 0
    model, adam = ResidualQuantiser(stages=1, codes=16, dim=5), optax.adam(0.05)

    def loss(params, use, key, step, weight):
        out = model.apply(params, x)
        renew = step % 200 == 0
        use = follow_use(
            use, out.indices, out.residuals, real, key, decay=0.9, below=0.1, renew=renew
        )
        total, count = revival(use, params["params"]["code_embedding"])
        return out.penalty.mean() + weight * total / jnp.maximum(count, 1), use

    @jax.jit
    def used(weight):
        def step(carry, inputs):
            params, state, use = carry
            grads, use = jax.grad(loss, has_aux=True)(params, use, *inputs, weight)
            updates, state = adam.update(grads, state)
            return (optax.apply_updates(params, updates), state, use), None

        params = {"params": {"code_embedding": jnp.asarray(books)}}
        inputs = (jax.random.split(jax.random.key(0), 1200), jnp.arange(1200))
        carry, _ = jax.lax.scan(step, (params, adam.init(params), all_used(1, 16, 5)), inputs)
        return jax.nn.one_hot(model.apply(carry[0], x).indices, 16).any((0, 1, 2)).sum()

    assert used(0.0) == 1
    assert used(1.0) == 16


def test_the_first_use_has_the_type_of_every_other():
    """Else the step would be compiled twice."""
    start = all_used(2, 4, 5)
    then = jax.eval_shape(FOLLOW, start, INDICES, RESIDUALS, REAL, jax.random.key(0), renew=False)
    for one, other in zip(jax.tree.leaves(start), jax.tree.leaves(then), strict=True):
        assert jax.typeof(one).weak_type == other.weak_type and one.dtype == other.dtype
