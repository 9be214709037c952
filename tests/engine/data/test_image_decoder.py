"""Decoding images, friendly and hostile."""

import struct
import zlib

import numpy as np
import pytest

from mlhf.core.errors import DataError
from mlhf.data.image_decoder import decode


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
