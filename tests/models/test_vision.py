import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.layers import sinusoid_2d
from taichu_jax.models.vision import MAEDecoder, ViT

SMALL = {"width": 16, "depth": 2, "heads": 2, "patch": 4, "size": 16}
IMAGES = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)


def make(**fields):
    """A ViT with parameters in which nothing is zero or one by initialisation."""
    model = ViT(**SMALL | fields)
    params = jax.jit(model.init)(jax.random.key(0), IMAGES)
    rng = np.random.default_rng(1)
    return model, jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype("f"), params)


@pytest.fixture(scope="module", params=[False, True], ids=["patches", "cls"])
def plain(request):
    model, params = make(cls=request.param)
    return model, params, jax.jit(model.apply)


def test_input_of_the_first_block(plain):
    """Patch n is row n // 4, column n % 4 of the picture; scaled pixels, dense, position."""
    model, params, apply = plain
    tree = params["params"]
    out = apply(params, IMAGES)
    assert out.rate == 4 and out.mask.shape == (2, 16 + model.cls) and out.mask.all()
    assert len(out.layers) == 3 and out.tokens.shape == (2, 16 + model.cls, 16)
    positions = np.asarray(sinusoid_2d(4, 4, 16))
    for n in range(16):
        row, column = divmod(n, 4)
        for b in range(2):
            pixels = []
            for y in range(4):
                for x in range(4):
                    pixels += [2 * v - 1 for v in IMAGES[b, 4 * row + y, 4 * column + x]]
            expected = np.array(pixels) @ tree["patches"]["kernel"] + tree["patches"]["bias"]
            np.testing.assert_allclose(
                out.layers[0][b, n + model.cls], expected + positions[n], atol=1e-5
            )
    if model.cls:
        np.testing.assert_array_equal(out.layers[0][:, 0], [tree["cls_token"]] * 2)


def test_keeping_all_patches_is_full_encoding_in_that_order(plain):
    model, params, apply = plain
    full, first = apply(params, IMAGES).tokens, int(model.cls)
    order = np.array([np.random.default_rng(i).permutation(16) for i in range(2)], np.int32)
    kept = apply(params, IMAGES, keep=order).tokens
    for b in range(2):
        np.testing.assert_allclose(kept[b, first:], full[b, first:][order[b]], atol=1e-5)
        np.testing.assert_allclose(kept[b, :first], full[b, :first], atol=1e-5)


def test_patches_that_are_not_kept_have_no_influence(plain):
    model, params, apply = plain
    keep = np.array([[0, 6], [15, 3]], np.int32)
    spoiled = IMAGES.copy()
    spoiled[:, 12:16, 4:8] = 0  # patch 13
    before, after = (apply(params, x, keep=keep).tokens for x in (IMAGES, spoiled))
    assert before.shape == (2, 2 + model.cls, 16)
    np.testing.assert_array_equal(before, after)


def test_masked_patches_hide_their_pixels_but_not_their_place(plain):
    model, params, apply = plain
    mask = np.zeros((2, 16), bool)
    mask[0, 13] = True
    spoiled = IMAGES.copy()
    spoiled[:, 12:16, 4:8] = 0  # patch 13
    before, after = (apply(params, x, mask=mask) for x in (IMAGES, spoiled))
    np.testing.assert_array_equal(before.tokens[0], after.tokens[0])
    assert np.abs(before.tokens[1] - after.tokens[1]).max() > 0
    expected = params["params"]["mask_token"] + sinusoid_2d(4, 4, 16)[13]
    np.testing.assert_allclose(before.layers[0][0, 13 + model.cls], expected, atol=1e-6)
    nothing = apply(params, IMAGES, mask=np.zeros((2, 16), bool)).tokens
    np.testing.assert_allclose(nothing, apply(params, IMAGES).tokens, atol=1e-6)


def test_learned_positions_and_other_sizes():
    model, params = make(position="learned")
    grid = params["params"]["patch_position"]
    assert grid.shape == (16, 16)
    blank = jnp.full((1, 16, 16, 3), 0.5)
    bias = params["params"]["patches"]["bias"]
    got = model.apply(params, blank).layers[0][0]
    np.testing.assert_allclose(got, grid + bias, atol=1e-6)
    # A constant grid stays constant when it is resized; an uneven picture has its own rows.
    flat = jax.tree.map(lambda p: p, params)
    flat["params"]["patch_position"] = jnp.broadcast_to(grid[0], grid.shape)
    out = model.apply(flat, blank[:, :8, :12])
    assert out.rate == 2 and out.tokens.shape == (1, 6, 16)
    np.testing.assert_allclose(out.layers[0][0], [grid[0] + bias] * 6, atol=1e-5)


def test_bad_fields_are_refused():
    for fields, match in [
        ({"size": 18}, "size=18"),
        ({"position": "rotary"}, "sinusoid, learned"),
        ({"width": 18}, "width=18"),
    ]:
        with pytest.raises(ValueError, match=match):
            jax.eval_shape(ViT(**SMALL | fields).init, jax.random.key(0), IMAGES)
    with pytest.raises(ValueError, match="15 x 16"):
        jax.eval_shape(ViT(**SMALL).init, jax.random.key(0), IMAGES[:, :15])


@pytest.mark.parametrize("cls", [False, True])
def test_decoder_puts_tokens_back_in_their_places(cls):
    """A stack of depth 0 leaves a norm and a dense layer, so every place can be computed by hand."""
    model = MAEDecoder(width=8, depth=0, heads=2, patch=2, patches=9, cls=cls)
    keep = np.array([[7, 0, 4], [2, 1, 8]], np.int32)
    tokens = np.random.default_rng(2).normal(size=(2, 3 + cls, 5)).astype(np.float32)
    params = model.init(jax.random.key(0), tokens, keep)
    params = jax.tree.map(lambda p: p + 0.1, params)
    tree = jax.tree.map(np.asarray, params["params"])
    got = model.apply(params, tokens, keep)
    assert got.shape == (2, 9, 12)
    positions = np.asarray(sinusoid_2d(3, 3, 8))
    for b in range(2):
        for n in range(9):
            x = tree["mask_token"]
            if n in keep[b]:
                token = tokens[b, list(keep[b]).index(n) + cls]
                x = token @ tree["embed"]["kernel"] + tree["embed"]["bias"]
            x = x + positions[n]
            x = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
            x = x * tree["transformer"]["norm"]["scale"] + tree["transformer"]["norm"]["bias"]
            expected = x @ tree["pixels"]["kernel"] + tree["pixels"]["bias"]
            np.testing.assert_allclose(got[b, n], expected, atol=1e-5)


def test_decoder_lets_the_class_token_take_part():
    model = MAEDecoder(width=8, depth=1, heads=2, patch=2, patches=4, cls=True)
    keep = np.array([[1, 2]], np.int32)
    tokens = np.random.default_rng(3).normal(size=(1, 3, 5)).astype(np.float32)
    got, params = model.init_with_output(jax.random.key(0), tokens, keep)
    tokens[:, 0] += np.arange(5)
    assert np.abs(model.apply(params, tokens, keep) - got).max() > 0
    with pytest.raises(ValueError, match="cls=True"):
        model.apply(params, tokens[:, 1:], keep)
    with pytest.raises(ValueError, match="patches=5"):
        MAEDecoder(patches=5).init(jax.random.key(0), tokens[:, 1:], keep)


def test_registers_are_not_given_away():
    """The same tokens as without them, by number and place; their states are of no use to anybody."""
    shapes = {}
    for registers in (0, 3):
        model = ViT(**SMALL, cls=True, registers=registers)
        out, variables = jax.eval_shape(
            lambda m=model: m.init_with_output(jax.random.key(0), IMAGES)
        )
        shapes[registers] = jax.tree.map(jnp.shape, out)
        assert ("register_token" in variables["params"]) == bool(registers)
    assert shapes[0] == shapes[3]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"relative_position": "gated"}, "ViT.relative_position='gated'; .*valid: grid"),
        ({"interpolation": "linear"}, "ViT.interpolation='linear'; .*valid: antialiased, cubic"),
        ({"registers": 2, "relative_position": "grid"}, "ViT.registers=2: have no place"),
        (
            {"cls": True, "cls_position": True, "position": "none"},
            "cls_position=True: with position",
        ),
    ],
)
def test_settings_that_do_not_fit(fields, told):
    with pytest.raises(UserError, match=told):
        ViT(**SMALL, **fields)


def test_relative_positions_need_whole_pictures():
    model, keep = ViT(**SMALL, relative_position="grid"), np.zeros((2, 3), np.int32)
    with pytest.raises(UserError, match="relative_position='grid': is for whole pictures"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, keep=keep))
