import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from taichu_jax.errors import UserError
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.optim import DEFAULT_RULES, AdamW, Optimizer, Rule, paths

RNG = np.random.default_rng(0)
PARAMS = {
    "net": {
        "up": {"kernel": RNG.normal(size=(4, 3)), "bias": RNG.normal(size=3)},
        "norm": {"scale": RNG.normal(size=3)},
        "mask_token": RNG.normal(size=3),
        "position": RNG.normal(size=(5, 3)),
    },
    "other": {"token_embedding": RNG.normal(size=(6, 3)), "logit_scale": np.float64(1.5)},
}
PARAMS = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), PARAMS)


def gradients(step):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda p: jnp.asarray(3 * rng.normal(size=p.shape), jnp.float32), PARAMS)


def run(settings, steps=5):
    optimizer, params = Optimizer(settings), PARAMS
    state = optimizer.init(params)

    @jax.jit
    def update(params, state, step, grads):
        trained, frozen = optimizer.split(params)
        updates, state = optimizer.update(optimizer.split(grads)[0], state, trained, step)
        return optimizer.join(optax.apply_updates(trained, updates), frozen), state

    for i in range(steps):
        params, state = update(params, state, jnp.int32(i), gradients(i))
    return paths(params)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("rate", [0.05, WarmupCosine(peak=0.1, warmup=2, steps=5)])
def test_equals_optax_adamw_with_its_masks(clip, rate):
    settings = AdamW(learning_rate=rate, b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.3, clip=clip)
    got = run(settings)
    decays = {"net": {"up": {"kernel": True, "bias": False}, "norm": {"scale": False}}}
    decays["net"] |= {"mask_token": False, "position": False}
    decays["other"] = {"token_embedding": False, "logit_scale": False}
    reference = optax.chain(
        optax.identity() if clip is None else optax.clip_by_global_norm(clip),
        optax.adamw(rate, b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.3, mask=decays),
    )
    params, state = PARAMS, reference.init(PARAMS)
    for i in range(5):
        updates, state = reference.update(gradients(i), state, params)
        params = optax.apply_updates(params, updates)
    for path, want in paths(params).items():
        np.testing.assert_allclose(got[path], want, rtol=1e-5, atol=1e-6, err_msg=path)


def test_fixed_statistics_stay_whatever_the_rules_say():
    settings = AdamW(learning_rate=0.1, weight_decay=0.3, rules=(Rule(pattern=r".*"),))
    norm = dict.fromkeys(("scale", "bias", "mean", "variance"), jnp.ones(2))
    params = {"net": {"norm": norm, "variance": {"kernel": jnp.ones((2, 2))}}}
    trained, frozen = Optimizer(settings).split(params)
    assert set(frozen) == {"net/norm/mean", "net/norm/variance"}
    assert set(trained) == {"net/norm/scale", "net/norm/bias", "net/variance/kernel"}


def test_rate_factors_scale_the_whole_update():
    """Also the decay's part: with factor 0.5, one step goes half as far."""
    base = run(AdamW(learning_rate=0.1, clip=None, weight_decay=0.3), steps=1)
    rules = (Rule(pattern=r"up/kernel$", rate=0.5), *DEFAULT_RULES)
    half = run(AdamW(learning_rate=0.1, clip=None, weight_decay=0.3, rules=rules), steps=1)
    for path, start in paths(PARAMS).items():
        factor = 0.5 if path == "net/up/kernel" else 1.0
        np.testing.assert_allclose(
            half[path] - start, factor * (base[path] - start), rtol=1e-4, atol=1e-6
        )


def test_the_first_rule_that_matches_decides():
    rules = (
        Rule(pattern="^net/", rate=0.0),
        Rule(pattern="kernel", rate=2.0),
        Rule(pattern="", decay=0),
    )
    optimizer = Optimizer(AdamW(learning_rate=0.1, rules=rules))
    assert optimizer.rule("net/up/kernel").rate == 0
    assert optimizer.rule("other/net/kernel").rate == 2
    assert optimizer.rule("other/x").decay == 0
    trained, frozen = optimizer.split(PARAMS)
    assert set(trained) == {"other/token_embedding", "other/logit_scale"}
    assert set(optimizer.init(PARAMS).mu) == set(trained)
    joined = optimizer.join(trained, frozen)
    assert jax.tree.structure(joined) == jax.tree.structure(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, joined, PARAMS)


def test_rules_must_cover_every_parameter():
    rules = (Rule(pattern=r"kernel$"),)
    with pytest.raises(UserError, match=r"optimizer.rules: no pattern matches parameter 'net/"):
        Optimizer(AdamW(learning_rate=0.1, rules=rules)).init(PARAMS)
