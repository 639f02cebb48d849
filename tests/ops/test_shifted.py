"""Shifted errors against a loop over frames."""

import jax
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.ops.shifted import shifted_l1

RNG = np.random.default_rng(0)
MEL = RNG.normal(size=(4, 6, 3)).astype(np.float32)
PREDICTED = RNG.normal(size=(4, 6, 3)).astype(np.float32)
LENGTHS = np.array([6, 4, 2, 0], np.int32)


@pytest.mark.parametrize("shift", [1, 2, 5])
def test_sums_are_those_of_a_loop(shift):
    spoiled = np.where(np.arange(6)[:, None] < LENGTHS[:, None, None], MEL, np.nan)
    total, copying, count = jax.jit(shifted_l1, static_argnums=3)(
        PREDICTED, spoiled, LENGTHS, shift
    )
    errors, copies, cells = 0.0, 0.0, 0
    for b, n in enumerate(LENGTHS):
        for t in range(n - shift):
            errors += np.abs(MEL[b, t + shift] - PREDICTED[b, t]).sum()
            copies += np.abs(MEL[b, t + shift] - MEL[b, t]).sum()
            cells += 3
    np.testing.assert_allclose([total, copying, count], [errors, copies, cells], rtol=1e-5)


def test_errors_say_what_is_wrong():
    with pytest.raises(UserError, match="shift=6: must be from 1 to 5"):
        shifted_l1(PREDICTED, MEL, LENGTHS, 6)
    with pytest.raises(UserError, match="3 predictions of 3 bands for 6 mel frames of 3"):
        shifted_l1(PREDICTED[:, ::2], MEL, LENGTHS, 1)
