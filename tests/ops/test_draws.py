import jax
import numpy as np

from taichu_jax.ops.draws import draw_key


def data(key):
    return tuple(np.asarray(jax.random.key_data(key)))


def test_a_named_draw_depends_on_the_step_and_the_name_alone():
    one, other = jax.random.key(1), jax.random.key(2)
    assert data(draw_key(one, 5, "")) == data(one)
    assert data(draw_key(one, 5, "spans")) == data(draw_key(other, 5, "spans"))
    keys = {data(draw_key(one, step, name)) for step in (5, 6) for name in ("spans", "other")}
    assert len(keys) == 4
