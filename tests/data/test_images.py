"""Decoding, compositing, placing and colour jitter."""

import numpy as np
import PIL.Image
import pytest

from taichu_jax.data import images
from taichu_jax.data.fetch import SAMPLE
from taichu_jax.data.items import Damaged

PNG = sorted(SAMPLE.rglob("*.png"))[0]
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}">'
    '<rect width="100%" height="50%" fill="#ff0000"/></svg>'
)


def random_canvas(side=12, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 4), dtype=np.uint8)
    return images.canvas(pixels, side)


def test_every_shipped_picture_is_whole():
    for path in SAMPLE.rglob("*.png"):
        assert max(images.decode(path).shape) <= 128


@pytest.mark.parametrize("size", [("4cm", "4cm"), ("100pt", "200pt"), ("300", "100")])
def test_svg_is_as_long_as_asked(tmp_path, size):
    (tmp_path / "a.svg").write_text(SVG.format(*size))
    pixels = images.decode(tmp_path / "a.svg")
    assert max(pixels.shape) == images.LARGEST
    seen = images.visible(pixels)
    assert abs(len(seen) - len(pixels) / 2) <= 1
    assert (seen[1, 1] == (255, 0, 0, 255)).all()


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "cannot be decoded"),
        (PNG.read_bytes()[:-200], "cut short"),
        (PNG.read_bytes()[:40], "cut short"),
        (images.encode_png(np.zeros((5, 5, 4), np.uint8)), "transparent"),
    ],
)
def test_damaged_pictures_say_why(data, reason):
    with pytest.raises(Damaged, match=reason):
        images.decode(data)


def test_broken_svg_is_damaged(tmp_path):
    (tmp_path / "a.svg").write_text("<svg")
    with pytest.raises(Damaged):
        images.decode(tmp_path / "a.svg")


@pytest.mark.parametrize("mode", ["RGB", "LA", "P", "L", "RGBA"])
def test_every_mode_becomes_rgba(tmp_path, mode):
    PIL.Image.new("RGB", (7, 5), (204, 204, 204)).convert(mode).save(tmp_path / "a.png")
    pixels = images.decode(tmp_path / "a.png")
    assert pixels.shape == (5, 7, 4) and (pixels[0, 0] == (204, 204, 204, 255)).all()


def test_encode_shrinks_to_the_longest_side():
    pixels = np.full((300, 600, 4), 255, np.uint8)
    assert images.decode(images.encode_png(pixels)).shape == (128, 256, 4)


def test_composite_is_alpha_blending():
    pixels = np.zeros((1, 2, 4), np.uint8)
    pixels[0, 1] = (255, 0, 0, 127)
    square = images.canvas(pixels, 2)
    shown = images.composite(square, (0.0, 0.0, 1.0))
    row = np.flatnonzero(square[..., 3].any(axis=1))[0]
    np.testing.assert_allclose(shown[row, 1], (127 / 255, 0, 128 / 255), atol=0.01)
    np.testing.assert_allclose(shown[row, 0], (0, 0, 1), atol=1e-6)


def test_jitter_is_saturation_then_contrast_then_brightness():
    square, background = random_canvas(), np.array((0.2, 0.5, 0.7))
    plain = images.composite(square, background)
    for bright, sharp, vivid in [(1.1, 1, 1), (1, 0.8, 1), (1, 1, 0.7), (0.9, 1.1, 1.2)]:
        weights = np.array((0.299, 0.587, 0.114))
        grey = (plain @ weights)[..., None]
        expected = grey + vivid * (plain - grey)
        mean = grey.mean()
        expected = np.clip(bright * (mean + sharp * (expected - mean)), 0, 1)
        shown = images.composite(square, background, (bright, sharp, vivid))
        np.testing.assert_allclose(shown, expected, atol=1e-4)


def test_placing_nothing_changes_nothing():
    square = random_canvas()
    np.testing.assert_array_equal(images.place(square, 12), square)
    np.testing.assert_array_equal(images.place(square, 12, mirror=True), square[:, ::-1])
    moved = images.place(square, 12, move=(0.25, 0.0))
    np.testing.assert_array_equal(moved[:, 3:], square[:, :-3])
    turned = images.place(square, 12, degrees=90)
    assert any(np.abs(turned.astype(int) - np.rot90(square, k)).max() <= 1 for k in (1, 3))


def test_zoom_makes_things_larger():
    square = images.canvas(np.full((4, 4, 4), 255, np.uint8), 40)
    covered = [images.place(square, 40, zoom=zoom)[..., 3].mean() for zoom in (0.5, 0.8, 1.0)]
    assert covered[0] == pytest.approx(255 / 4, rel=0.1) and covered[0] < covered[1] < covered[2]


def test_augmentation_depends_on_the_generator_alone():
    square, augment = random_canvas(24), images.ImageAugment()
    first, second = (augment(square, np.random.default_rng(5), 16) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32 and first.shape == (16, 16, 3)
    assert first.min() >= 0 and first.max() <= 1
    assert not np.array_equal(augment(square, np.random.default_rng(6), 16), first)


def test_evaluation_shows_the_whole_picture_over_white():
    shown = images.render(images.canvas(np.full((9, 3, 4), (0, 0, 0, 255), np.uint8), 24), 24)
    assert shown[:, 0].min() == 1 and shown[:, 12].max() == 0
