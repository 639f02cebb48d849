"""Every kind of picture file is decoded right; damaged and hostile ones are refused with a reason."""

from __future__ import annotations

import pathlib
import socket
import struct
import threading

import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest

from taichu_jax.data import images, svg_renderer
from taichu_jax.data.items import Damaged
from taichu_jax.errors import UserError
from tests.data.files import chunk, picture, png

RNG = np.random.default_rng(0)
PALETTE = RNG.integers(0, 256, (16, 3))


def drawn(shape, depth):
    return np.random.default_rng(1).integers(0, 2**depth, (5, 11, *shape))


def spread(values, depth):
    """To 8 bits: small depths over the whole range, 16 bits by their high byte."""
    return values >> 8 if depth == 16 else values * 255 // (2**depth - 1)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_of_every_depth(depth, clear, interlaced):
    values = drawn((1,), depth)
    chosen = int(values[2, 3, 0])
    extra = chunk(b"tRNS", struct.pack(">H", chosen)) if clear else b""
    pixels = images.decode(png(values, depth=depth, extra=extra, interlaced=interlaced))
    grey = spread(values, depth)
    opaque = np.where((values == chosen) & clear, 0, 255)
    np.testing.assert_array_equal(pixels, np.concatenate([grey, grey, grey, opaque], -1))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour, channels", [(2, 3), (4, 2), (6, 4)])
def test_colour_and_alpha(colour, channels, depth, interlaced):
    values = drawn((channels,), depth)
    pixels = images.decode(png(values, depth=depth, colour=colour, interlaced=interlaced))
    shown = spread(values, depth)
    if channels == 2:
        shown = np.concatenate([shown[..., :1]] * 3 + [shown[..., 1:]], -1)
    elif channels == 3:
        shown = np.concatenate([shown, np.full_like(shown[..., :1], 255)], -1)
    np.testing.assert_array_equal(pixels, shown)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_palettes_with_transparent_entries(depth):
    values, alpha = drawn((1,), depth), np.array([0, 128] + [255] * 14)
    extra = chunk(b"PLTE", bytes(PALETTE[: 2**depth].reshape(-1).tolist())) + chunk(
        b"tRNS", b"\0\x80"
    )
    pixels = images.decode(png(values, depth=depth, colour=3, extra=extra))
    expected = np.concatenate([PALETTE, alpha[:, None]], 1)[values[..., 0]]
    seen = expected[..., 3] > 0  # the colour of what is not seen is anybody's
    np.testing.assert_array_equal(pixels[seen], expected[seen])
    np.testing.assert_array_equal(pixels[..., 3], expected[..., 3])


def test_sixteen_bit_colour_with_a_transparent_one():
    values = np.array([[[2570, 5140, 7710], [257, 257, 257]]])
    extra = chunk(b"tRNS", struct.pack(">3H", 2570, 5140, 7710))
    pixels = images.decode(png(values, depth=16, colour=2, extra=extra))
    assert pixels.tolist() == [[[10, 20, 30, 0], [1, 1, 1, 255]]]


def corners():
    """Four colours, one in each corner, large enough for JPEG."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:] = (255, 0, 0), (0, 255, 0)
    pixels[16:, :24], pixels[16:, 24:] = (0, 0, 255), (255, 255, 255)
    return pixels


# What undoes each orientation of Exif, by its definition: where the stored row 0 and column 0 belong.
UPRIGHT = {
    1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2), 6: lambda x: x.transpose(1, 0, 2)[:, ::-1],
    7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1], 8: lambda x: x.transpose(1, 0, 2)[::-1],
}  # fmt: skip


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_jpegs_are_turned_upright(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = picture(PIL.Image.fromarray(corners()), "JPEG", quality=95, exif=exif)
    expected = UPRIGHT[orientation](corners())
    found = images.decode(data)[..., :3]
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 100}])
@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_jpegs_of_every_kind(mode, options):
    plain = PIL.Image.new("RGB", (16, 8), (200, 40, 90)).convert(mode)
    found = images.decode(picture(plain, "JPEG", **options))
    expected = plain.convert("RGB").getpixel((0, 0))
    assert np.abs(found[..., :3].astype(int) - expected).max() <= 4 and (found[..., 3] == 255).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(kind):
    red, blue = (PIL.Image.new("RGB", (9, 7), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if kind == "WEBP" else {}
    found = images.decode(picture(red, kind, save_all=True, append_images=[blue], **options))
    assert (found == (255, 0, 0, 255)).all() and found.shape == (7, 9, 4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30000), (30000, 1)])
def test_pictures_of_odd_shape(shape):
    pixels = images.decode(png(np.full((*shape, 1), 90)))
    assert pixels.shape == (*shape, 4)
    small = images.decode(images.encode_png(images.visible(pixels)))
    assert max(small.shape[:2]) == min(max(shape), 256) and min(small.shape[:2]) == 1
    shown = images.render(images.canvas(small, 24), 16)
    assert shown.shape == (16, 16, 3) and shown.min() >= 0 and shown.max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_every_tenth_of_a_file_is_refused(kind, tmp_path):
    noise = PIL.Image.fromarray(RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    data = picture(noise, kind)
    assert images.decode(data).shape == (30, 40, 4)
    for tenth in range(10):
        (tmp_path / "a.png").write_bytes(data[: len(data) * tenth // 10])
        with pytest.raises(Damaged, match=r"picture (cannot be decoded|is cut short)"):
            images.decode(tmp_path / "a.png")


def test_no_flipped_bit_passes_the_checksums_of_a_png():
    data = png(drawn((3,), 8), colour=2)
    whole, rng = images.decode(data), np.random.default_rng(0)
    for place in rng.integers(0, len(data), 120):
        harmed = bytearray(data)
        harmed[place] ^= 1 << int(rng.integers(8))
        try:
            np.testing.assert_array_equal(images.decode(bytes(harmed)), whole)
        except Damaged:
            continue
    with pytest.raises(Damaged, match="cut short"):
        images.decode(data[:-1])  # Pillow would not look


def test_half_pictures_are_never_accepted(monkeypatch):
    monkeypatch.setattr(PIL.ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UserError, match="LOAD_TRUNCATED_IMAGES=True: must be False"):
        images.decode(png(np.zeros((2, 2, 1), int)))


def test_bombs_and_other_formats_are_refused():
    head = struct.pack(">IIBBBBB", 8200, 8200, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(Damaged, match=r"too large \(8200 x 8200 pixels\)"):
        images.decode(bomb)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    for data in (postscript, picture(PIL.Image.new("L", (4, 4)), "TIFF"), bytes(500)):
        with pytest.raises(Damaged, match="cannot be decoded"):
            images.decode(data)


# ----------------------------------------------------------------------------------------- SVG


def svg(body, width="64", height="64", before=""):
    return (
        f'{before}<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}">{body}</svg>'
    )


BAR = '<rect width="9" height="64"/>'


@pytest.fixture
def decode_svg(tmp_path):
    def decode(text):
        (tmp_path / "a.svg").write_bytes(text if isinstance(text, bytes) else text.encode())
        return images.decode(tmp_path / "a.svg")

    return decode


def test_a_drawing_reads_no_file_and_no_address(tmp_path, decode_svg):
    (tmp_path / "red.png").write_bytes(picture(PIL.Image.new("RGB", (9, 9), "red"), "PNG"))
    calls = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]

        def listen():
            try:
                calls.append(server.accept())
            except TimeoutError:
                return

        thread = threading.Thread(target=listen)
        thread.start()
        for address in ("red.png", f"{tmp_path}/red.png", f"file://{tmp_path}/red.png",
                        f"http://127.0.0.1:{port}/red.png"):  # fmt: skip
            image = f'<image xlink:href="{address}" width="64" height="64"/>'
            pixels = decode_svg(svg(image + BAR))
            assert not pixels[..., 0].any(), address  # nothing red
        thread.join()
    assert not calls


@pytest.mark.parametrize(
    "text, reason",
    [
        (svg(BAR, height="9e12"), "too much memory"),
        (svg('<g opacity="0.9">' * 900 + BAR + "</g>" * 900), "depth|limit"),
        (svg("&a8;", before="<!DOCTYPE s [<!ENTITY a0 'aaaaaaaaaa'>" + "".join(
            f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 9)) + "]>"), "entity"),
        (svg("&x;", before='<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]>'), "entity"),
        (svg(BAR, width="0"), "size"),
        (svg(""), "transparent"),
        (svg(BAR).encode()[:-5], "cannot be decoded"),
        (svg(BAR).encode("utf-16"), "codec"),
        (b"\x1f\x8b\x08" + bytes(40), "codec"),
        (b"", "cannot be decoded"),
    ],
)  # fmt: skip
def test_hostile_drawings_are_refused(decode_svg, text, reason):
    with pytest.raises(Damaged, match=reason):
        decode_svg(text)


def test_a_drawing_that_never_ends_is_stopped(decode_svg, tmp_path, monkeypatch):
    program = tmp_path / "renderer.py"
    source = pathlib.Path(svg_renderer.__file__).read_text()
    assert "SECONDS = 10" in source
    program.write_text(source.replace("SECONDS = 10", "SECONDS = 1"))
    monkeypatch.setattr("taichu_jax.data.svg._PROGRAM", program)
    slow = '<filter id="f"><feMorphology operator="dilate" radius="100000"/></filter>'
    with pytest.raises(Damaged, match="takes too long"):
        decode_svg(svg(slow + '<rect width="64" height="64" filter="url(#f)"/>'))


@pytest.mark.parametrize("size", [(1, 30000), (30000, 1), (100, 101), (1e9, 1e9)])
def test_drawings_of_odd_shape(decode_svg, size):
    pixels = decode_svg(svg('<rect width="100%" height="100%"/>', *map(str, size)))
    assert max(pixels.shape) == images.LARGEST and min(pixels.shape[:2]) >= 1
