"""Decoding and resizing images. Hostile files raise DataError before much memory is used."""

from io import BytesIO
from pathlib import Path

import numpy as np

from mlhf.core.errors import DataError
from mlhf.core.optional import from_extra
from mlhf.data.arrays import Array

with from_extra("data"):
    from PIL import Image, ImageOps

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
MAX_PIXELS = 25_000_000


def decode(source: bytes | Path, where: str, channels: int, size: int | None = None) -> Array:
    """Return an image as uint8 of shape (C, H, W).

    Args:
        source: The encoded image or its file.
        where: What it is, for errors.
        channels: 3 for colour, 1 for grey.
        size: Resize the short side to this and keep the centre; None keeps the image's size.
    """
    # Decoders raise whatever they like on a broken file, so every error means "broken".
    try:
        with Image.open(
            BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS
        ) as image:
            mode = "RGB" if channels == 3 else "L"
            if size is not None:
                image.draft(mode, (size, size))  # JPEG: decode at a fraction of the size
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{where}: {image.width}x{image.height} pixels are too many; at most "
                    f"{MAX_PIXELS:,} are decoded"
                )
            pixels = image.convert(mode)
        if size is not None and pixels.size != (size, size):
            pixels = ImageOps.fit(pixels, (size, size), Image.Resampling.BILINEAR)
        array = np.asarray(pixels, dtype=np.uint8)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{where}: not a readable image ({', '.join(_FORMATS)}): {str(error)[:200]}"
        ) from None
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))
