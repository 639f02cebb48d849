"""Tables of names: every rule inverts, and what does not fit is named."""

from __future__ import annotations

import re

import numpy as np
import pytest
from flax import traverse_util

from taichu_jax.errors import UserError
from taichu_jax.interop import rules
from taichu_jax.interop.architectures import ARCHITECTURES
from taichu_jax.interop.convert import read_model
from taichu_jax.interop.rules import Table, to_ours, to_theirs, unscanned
from tests.interop.folders import CONFIGS, tensors_of, write_folder

DRAW = np.random.default_rng(3)


@pytest.mark.parametrize(
    ("rule", "shape", "expected"),
    [
        (rules.same("t", "o"), (3, 2), [lambda x: x]),
        (rules.transposed("t", "o"), (3, 2, 5), [lambda x: np.einsum("abc->cba", x)]),
        (rules.leading("t", "o", 2), (1, 1, 4), [lambda x: x[0, 0]]),
        (
            rules.cut("t", ("q", "k", "v"), -1),
            (2, 9),
            [lambda x: x[:, :3], lambda x: x[:, 3:6], lambda x: x[:, 6:]],
        ),
        (
            rules.positions("t", "cls", "grid"),
            (1, 5, 3),
            [lambda x: x[0, 0], lambda x: x[0, 1:]],
        ),
        (rules.positions("t", "cls", "grid", 0), (5, 3), [lambda x: x[0], lambda x: x[1:]]),
        (
            rules.patches("t", "o", 2),
            (4, 3, 2, 2),
            [
                lambda x: np.array(
                    [x[:, c, i, j] for i in range(2) for j in range(2) for c in range(3)]
                )
            ],
        ),
    ],
)
def test_a_rule_and_its_inverse(rule, shape, expected):
    tensor = DRAW.normal(size=shape).astype(np.float32)
    parts = rule.take(tensor)
    assert len(parts) == len(rule.ours) == len(expected)
    for part, of in zip(parts, expected, strict=True):
        np.testing.assert_array_equal(part, of(tensor))
    again = rule.give(*parts)
    assert again.dtype == tensor.dtype
    np.testing.assert_array_equal(again, tensor)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_architecture_inverts(model_type, tmp_path):
    """File to parameters to tensors; every path of ours has one source."""
    values, tensors = tensors_of(model_type)
    write_folder(tmp_path, values, tensors)
    model = read_model(tmp_path)
    again, _ = to_theirs(model.table, model.params, where="test")
    assert set(again) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)
    chosen = model.table.chosen(model.table.parts)
    paths = {path for rule in chosen for path in rule.ours}
    ours = [(path, rule.entry) for rule in chosen for path in rule.ours]
    assert (
        len(ours)
        == len(set(ours))
        == len({rule.theirs for rule in chosen}) + len(ours) - len(chosen)
    )
    assert set(model.anew) == set(traverse_util.flatten_dict(model.params, sep="/")) - paths


TABLE = Table(
    rules=[*rules.dense("a.up", "net/up"), *rules.norm("a.norm", "net/norm")],
    parts={"head": rules.dense("head", "head")},
    prefix="a.",
    tied={"copy.weight": "a.up.weight"},
    renames=((r"gamma$", "weight"),),
    ignored=(r"position_ids$",),
)
SHAPES = {
    "net": {
        "up": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)},
        "norm": {"scale": np.zeros(3), "bias": np.zeros(3)},
    },
    "head": {"kernel": np.zeros((3, 4)), "bias": np.zeros(4)},
}


def file(**changes):
    tensors = {
        "a.up.weight": np.ones((3, 2), np.float32),
        "a.up.bias": np.ones(3, np.float32),
        "a.norm.weight": np.ones(3, np.float32),
        "a.norm.bias": np.ones(3, np.float32),
    } | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in tensors.items() if value is not None}


def read(**changes):
    return to_ours(TABLE, file(**changes), SHAPES, where="DIR", skip="^spare")


def test_what_is_read():
    assert set(read()) == {"net"}
    assert set(read(head__weight=np.ones((4, 3), "f4"), head__bias=np.ones(4, "f4"))) == {
        "net",
        "head",
    }
    old = read(a__norm__weight=None, a__norm__gamma=np.full(3, 2, np.float32))
    np.testing.assert_array_equal(old["net"]["norm"]["scale"], 2)
    assert set(read(a__position_ids=np.arange(3), spare=np.ones(1))) == {"net"}
    assert set(read(copy__weight=np.ones((3, 2), np.float32))) == {"net"}
    half = read(a__up__bias=np.ones(3, np.float16))["net"]["up"]["bias"]
    assert half.dtype == np.float32
    alone = {name.removeprefix("a."): value for name, value in file().items()}
    assert set(to_ours(TABLE, alone, SHAPES, where="DIR")) == {"net"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"a__up__bias": None}, "DIR: missing: a.up.bias"),
        ({"head__bias": np.ones(4, "f4")}, "DIR: missing: head.weight"),
        ({"b__up": np.ones(3, "f4")}, "DIR: unexpected: b.up"),
        (
            {"a__up__weight": np.ones((2, 3), "f4")},
            "DIR: wrong: a.up.weight is [2, 3], not [3, 2]",
        ),
        ({"a__norm__bias": np.ones(3)}, "a.norm.bias is float64, not a float of 32 or 16 bits"),
        ({"copy__weight": np.zeros((3, 2), "f4")}, "copy.weight is not the same as a.up.weight"),
        (
            {"a__up__bias": None, "c": np.ones(1), "a__norm__bias": np.ones((3, 1), "f4")},
            "missing: a.up.bias; unexpected: c; wrong: a.norm.bias is [3, 1], not [3]",
        ),
        (
            {f"x{i}": np.ones(1) for i in range(7)},
            "unexpected: x0, x1, x2, x3, x4 and 2 more",
        ),
    ],
)
def test_what_does_not_fit_is_named(changes, told):
    with pytest.raises(UserError, match=re.escape(told)):
        read(**changes)


def test_parameters_that_are_missing_or_have_no_place():
    params = read()
    _, left = to_theirs(TABLE, params | {"more": {"bias": np.ones(1)}}, where="RUN")
    assert left == ["more/bias"]
    del params["net"]["up"]["bias"]
    with pytest.raises(UserError, match="RUN: missing: net/up/bias"):
        to_theirs(TABLE, params, where="RUN")


def test_entries_of_one_parameter():
    """Tensors that are stacked here: each goes to its entry, and one that is missing is named."""
    stacked = [rules.transposed(f"t.{i}", "net/kernel")._replace(entry=i) for i in (1, 0)]
    table, shapes = Table(rules=stacked), {"net": {"kernel": np.zeros((2, 3, 4))}}
    tensors = {f"t.{i}": DRAW.normal(size=(4, 3)).astype(np.float32) for i in range(2)}
    params = to_ours(table, tensors, shapes, where="DIR")
    np.testing.assert_array_equal(params["net"]["kernel"], [tensors["t.0"].T, tensors["t.1"].T])
    again, left = to_theirs(table, params, where="RUN")
    assert left == [] and set(again) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor)
    wrong = {"t.1": tensors["t.1"].T}
    with pytest.raises(UserError, match=r"missing: t\.0; wrong: t\.1 is \[3, 4\], not \[4, 3\]"):
        to_ours(table, wrong, shapes, where="DIR")


def test_scanned_stacks():
    scanned = {"net": {"blocks": {"up": {"bias": np.arange(6).reshape(3, 2)}}, "norm": np.ones(1)}}
    found = traverse_util.flatten_dict(unscanned(scanned), sep="/")
    assert set(found) == {*(f"net/block_{i}/up/bias" for i in range(3)), "net/norm"}
    np.testing.assert_array_equal(found["net/block_2/up/bias"], [4, 5])
    with pytest.raises(UserError, match="mixtures of experts"):
        unscanned({"net": {"blocks": {"block_0": {"up": np.ones((2, 2))}}}})


def test_all_architectures_are_tested():
    assert set(CONFIGS) == set(ARCHITECTURES)
