"""The cross-modal encoder: absence, order, `split`, parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from taichu_jax.models.fusion import MODALITIES, CrossModalEncoder, split
from taichu_jax.models.layers import Encoded

LENGTHS, WIDTHS, WIDTH = {"text": 3, "image": 4, "audio": 5}, (8, 6, 4), 8
MODULE = CrossModalEncoder(width=WIDTH, depth=2, heads=2, lengths=(3, 4, 6))


def inputs(seed=0, batch=2):
    """All three modalities, of different widths, ragged in the last place."""
    rng = np.random.default_rng(seed)
    result = {}
    for (name, length), width in zip(LENGTHS.items(), WIDTHS, strict=True):
        mask = np.ones((batch, length), bool)
        mask[1, -1] = False
        tokens = rng.normal(size=(batch, length, width)).astype(np.float32)
        result[name] = Encoded(tokens=jnp.asarray(tokens), mask=jnp.asarray(mask))
    return result


@functools.cache
def params():
    """Of all three, with every parameter moved off its start so that nothing hides behind a zero."""
    tree = jax.jit(lambda: MODULE.init(jax.random.key(0), **inputs()))()["params"]
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(1)

    def noisy(x):
        return (np.asarray(x) + 0.1 * rng.normal(size=x.shape)).astype(np.float32)

    return jax.tree.unflatten(structure, [noisy(x) for x in leaves])


@functools.cache
def compiled():
    """One compiled call per set of modalities that are given."""
    weights = params()
    return jax.jit(lambda **parts: MODULE.apply({"params": weights}, **parts))


def states(parts):
    """[CLS] and the states of real tokens of the modalities in `parts`."""
    fused = compiled()(**parts)
    lengths = {k: v.tokens.shape[1] for k, v in parts.items()}
    return split(np.asarray(fused.tokens), **lengths), fused


@pytest.mark.parametrize("absent", [("text",), ("image",), ("image", "audio")])
def test_an_absent_modality_is_one_that_is_not_given(absent):
    """A mask that is false throughout, whatever the tokens hold, gives the states of the shorter call."""
    parts = inputs()
    hidden = {
        k: v.replace(mask=jnp.zeros_like(v.mask), tokens=v.tokens + 5) if k in absent else v
        for k, v in parts.items()
    }
    want, _ = states({k: v for k, v in parts.items() if k not in absent})
    got, _ = states(hidden)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, atol=1e-6, rtol=1e-5, err_msg=name)


def test_content_of_masked_tokens_does_not_matter_and_of_others_does():
    parts = inputs()
    want, _ = states(parts)
    for name, part in parts.items():
        for where, matters in ((~part.mask, False), (part.mask, True)):
            tokens = jnp.where(where[..., None], part.tokens * -3 + 2, part.tokens)
            got, _ = states(parts | {name: part.replace(tokens=tokens)})
            difference = max(
                np.abs(got[k] - want[k])[() if k == "cls" else np.asarray(parts[k].mask)].max()
                for k in want
            )
            assert (difference > 1e-3) if matters else (difference < 1e-6), name


def test_rows_with_different_modalities_share_a_batch():
    """Row 0 lacks the image, row 1 the audio: each is what it is alone."""
    parts = inputs()
    mixed = dict(parts)
    for row, name in enumerate(("image", "audio")):
        mixed[name] = parts[name].replace(mask=parts[name].mask.at[row].set(False))
    got, _ = states(mixed)
    for row, name in enumerate(("image", "audio")):
        want, _ = states({k: v for k, v in parts.items() if k != name})
        np.testing.assert_allclose(got["cls"][row], want["cls"][row], atol=1e-6, rtol=1e-5)


def test_order_and_mask():
    """[CLS], text, image, audio, whatever order they are given in; [CLS] is always there."""
    parts = inputs()
    _, fused = states(dict(reversed(parts.items())))
    assert MODALITIES == ("text", "image", "audio")
    assert fused.tokens.shape == (2, 1 + 3 + 4 + 5, WIDTH) and len(fused.layers) == 3
    np.testing.assert_array_equal(
        fused.mask, np.concatenate([np.ones((2, 1), bool), *(v.mask for v in parts.values())], 1)
    )
    # The stream before the first block: [CLS], then norm(W x + b + position + type) in that order.
    tree, stream = params(), np.asarray(fused.layers[0], np.float64)
    np.testing.assert_allclose(stream[:, 0], np.tile(tree["cls_token"], (2, 1)), atol=1e-6)
    start = 1
    for i, (name, part) in enumerate(parts.items()):
        dense, norm = tree[f"{name}_input"], tree[f"{name}_norm"]
        for t in range(LENGTHS[name]):
            x = part.tokens[:, t] @ dense["kernel"] + dense["bias"]
            x = np.asarray(x + tree[f"{name}_position"][t] + tree["type_embedding"][i], np.float64)
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            want = x * norm["scale"] + norm["bias"]
            np.testing.assert_allclose(stream[:, start + t], want, atol=1e-5)
        start += LENGTHS[name]


def test_split():
    fused = np.arange(13)[None, :, None]
    parts = split(fused, text=3, image=4, audio=5)
    assert {k: v.ravel().tolist() for k, v in parts.items()} == {
        "cls": [0],
        "text": [1, 2, 3],
        "image": [4, 5, 6, 7],
        "audio": [8, 9, 10, 11, 12],
    }
    parts = split(fused[:, :9], audio=5, text=3)  # no image, and named in another order
    assert list(parts) == ["cls", "text", "audio"]
    assert parts["audio"].ravel().tolist() == [4, 5, 6, 7, 8]


def test_parameters_do_not_depend_on_what_the_first_call_has():
    """Every call creates the shared ones, and equal paths always get equal values."""
    keep = ("cls_token", "type_embedding", *(f"{m}_position" for m in MODALITIES), "transformer")
    parts = inputs()

    def init():
        key = jax.random.key(3)
        some = [("text",), ("audio",), ("image", "audio"), MODALITIES]
        return [MODULE.init(key, **{k: parts[k] for k in s})["params"] for s in some]

    *fewer, whole = (flatten_dict(t) for t in jax.jit(init)())
    for tree in fewer:
        assert {p for p in whole if p[0] in keep} <= set(tree) <= set(whole)
        for path, value in tree.items():
            np.testing.assert_array_equal(value, whole[path], err_msg=str(path))


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="needs at least one modality"):
        MODULE.init(jax.random.key(0))
    long = Encoded(tokens=jnp.zeros((1, 5, 4)), mask=jnp.ones((1, 5), bool))
    with pytest.raises(ValueError, match=r"5 image tokens, but lengths=\(3, 4, 6\)"):
        MODULE.init(jax.random.key(0), image=long)
