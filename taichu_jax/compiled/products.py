"""The floating-point operations that a step asks for, counted in its jaxpr before any compiler.

Exact by definition: 2 for each multiplication and addition of a matrix product or convolution, times the
lengths of the scans around it; nothing else counts. Attention counts in full, whatever its mask
hides. Without rematerialisation this is the number that model FLOPs utilisation is made of (the count
of PaLM, arXiv 2204.02311, appendix B, taken from the program instead of 6 N + 12 L H Q T).
"""

from __future__ import annotations

import math
from typing import Any

from jax.interpreters import partial_eval

from taichu_jax.compiled.work import positions


def product_flops(closed: Any) -> float:
    """Of a ClosedJaxpr, all devices together; what the results do not need does not count.

    A `while` loop, whose length no jaxpr tells, counts once; of the branches of a `cond` the largest.
    """
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return _flops(jaxpr)


def _flops(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            total += _dot(equation)
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "cond":
            total += max(_flops(branch.jaxpr) for branch in params["branches"])
        else:
            inner = sum(_flops(j) for value in params.values() for j in _jaxprs(value))
            total += inner * (params["length"] if name == "scan" else 1)
    return total


def _jaxprs(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [j for v in value for j in _jaxprs(v)]
    if hasattr(value, "eqns"):
        return [value]
    return [value.jaxpr] if hasattr(getattr(value, "jaxpr", None), "eqns") else []


def _dot(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _convolution(equation: Any) -> float:
    params = equation.params
    left, right = (v.aval.shape for v in equation.invars[:2])
    out = equation.outvars[0].aval.shape
    numbers = params["dimension_numbers"]
    count = left[numbers.lhs_spec[1]] / params["feature_group_count"]
    count *= right[numbers.rhs_spec[0]] * left[numbers.lhs_spec[0]] / params["batch_group_count"]
    for i, stride in enumerate(params["window_strides"]):
        count *= positions(
            left[numbers.lhs_spec[2 + i]],
            out[numbers.out_spec[2 + i]],
            right[numbers.rhs_spec[2 + i]],
            stride,
            params["padding"][i][0],
            params["lhs_dilation"][i],
            params["rhs_dilation"][i],
        )
    return 2.0 * count
