"""Decoding images, friendly and hostile."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mlhf.core.errors import DataError
from mlhf.data.image_decoder import decode, examine, probe


def test_a_colour_image_comes_as_channels_first(rng, encode):
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = decode(encode(pixels), "x", channels=3)
    assert np.array_equal(image, pixels.transpose(2, 0, 1))
    assert image.flags.c_contiguous


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_resizes_to_a_square(rng, encode, kind, channels):
    pixels = np.full((40, 90, 3), 77, np.uint8)
    image = decode(encode(pixels, kind), "x", channels, size=16)
    assert image.shape == (channels, 16, 16)
    assert np.abs(image.astype(int) - 77).max() <= 3


def test_the_centre_is_kept(encode):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    assert decode(encode(pixels), "x", channels=1, size=20).min() >= 250


def test_grey_and_transparent_images_become_colour(encode):
    for shape in ((4, 4), (4, 4, 4)):
        assert decode(encode(np.full(shape, 9, np.uint8)), "x", channels=3).shape == (3, 4, 4)


def png_bomb(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable image"),
        (b"GIF89a" + b"\0" * 50, "not a readable image"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 50, "not a readable image"),
        (png_bomb(6000), "pixels are too many"),
        (png_bomb(60_000), "not a readable image"),
        (png_bomb(0), "not a readable image"),
    ],
)
def test_broken_and_hostile_images_are_refused(content, message):
    with pytest.raises(DataError, match=f"^photo 3: .*{message}"):
        decode(content, "photo 3", channels=3, size=8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_image_is_refused(rng, encode, kind):
    content = encode(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), kind)
    with pytest.raises(DataError):
        decode(content[: len(content) // 2], "x", channels=3)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(mode="L"):
    """An image whose top is dark and whose bottom is bright, 16 wide and 32 high."""
    rows = np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[:, None], 16, 1)
    return Image.fromarray(rows).convert(mode)


# How to store an upright image so that the orientation makes it upright again.
STORED = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("size", [None, 16])
def test_images_are_upright(kind, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    stored = gradient("RGB").transpose(STORED[orientation])
    content = saved(stored, kind, exif=exif, **lossless)
    seen = []
    pixels = decode(content, "x", 1, size, seen=seen)
    assert pixels.shape == ((1, 32, 16) if size is None else (1, 16, 16))
    assert pixels[0, 0].mean() + 60 < pixels[0, -1].mean()
    assert np.ptp(pixels[0, 3]) < 20
    assert seen == ["turned upright by their EXIF orientation"]
    assert probe(content, "x").tolist() == [32, 16, 3]
    assert examine(content, "x").tolist() == [32, 16, 3]
    assert decode(content, "x", 1, rules=1).shape == (1, *stored.size[::-1])


@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0), ("grey", 128)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_laid_on_a_ground(mode, background, level):
    glyph = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    glyph.paste((40, 40, 40, 255), (2, 2, 5, 5))
    glyph.putpixel((0, 0), (40, 40, 40, 128))
    if mode == "P":
        glyph = Image.new("P", (8, 8), 0)
        glyph.putpalette([0, 0, 0, 40, 40, 40])
        glyph.paste(1, (2, 2, 5, 5))
        content = saved(glyph, "PNG", transparency=0)
    else:
        content = saved(glyph.convert(mode), "PNG")
    seen = []
    for channels in (1, 3):
        pixels = decode(content, "x", channels, background=background, seen=seen)
        assert pixels[:, 3, 3].tolist() == [40] * channels
        assert pixels[:, 7, 7].tolist() == [level] * channels
        if mode != "P":
            assert abs(int(pixels[0, 0, 0]) - (40 + level) / 2) <= 1
    assert f"transparent, laid on {background} (`background` changes that)" in seen


def test_an_alpha_channel_that_is_opaque_changes_nothing():
    seen = []
    pixels = decode(saved(gradient("RGBA"), "PNG"), "x", 1, seen=seen)
    assert np.array_equal(pixels[0], np.asarray(gradient()))
    assert seen == []


def test_sixteen_bits_become_eight():
    deep = np.linspace(0, 65_535, 256).round().astype(np.uint16).reshape(16, 16)
    content = saved(Image.fromarray(deep), "PNG")
    pixels = decode(content, "x", 1)
    assert pixels.ravel().tolist() == list(range(256))
    assert decode(content, "x", 3)[2].ravel().tolist() == list(range(256))
    assert probe(content, "x").tolist() == [16, 16, 1]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_other_modes_give_the_same_picture(mode):
    image = gradient("RGB").convert(mode)
    kind = {"CMYK": "JPEG"}.get(mode, "PNG")
    pixels = decode(saved(image, kind), "x", 3).astype(int)
    assert np.abs(pixels.mean(0) - np.asarray(image.convert("L"))).max() < 8
    assert pixels[:, 0].mean() < 30
    assert pixels[:, -1].mean() > 220
