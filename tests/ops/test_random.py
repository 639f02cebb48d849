import zlib

import jax
import numpy as np

from taichu_jax.ops.random import fold_name


def test_names_give_streams_that_differ_and_stay():
    key = jax.random.key(0)
    a, b, ab, again = (jax.random.key_data(fold_name(key, n)) for n in ("a", "b", "ab", "a"))
    np.testing.assert_array_equal(a, again)
    assert len({str(x) for x in (a, b, ab)}) == 3
    # The same in every process and on every machine, so runs can be repeated and resumed.
    assert zlib.crc32(b"mask") == 0x7F6FC330
    want = jax.random.fold_in(key, 0x7F6FC330)
    np.testing.assert_array_equal(
        jax.random.key_data(fold_name(key, "mask")), jax.random.key_data(want)
    )
