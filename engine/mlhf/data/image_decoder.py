"""Decoding and resizing images. Hostile files raise DataError before much memory is used.

How any image becomes bytes of red, green and blue, or of grey, in this order:

- An EXIF orientation is applied: the image is as a viewer shows it (JPEG, PNG, WebP).
- 16 bits a channel become 8: the value divided by 257, rounded (grey), or its high byte (colour).
- A palette is looked up; CMYK and other colour spaces become RGB.
- A transparent image is laid on the ``background``, white unless told otherwise.
- Grey is .299 R + .587 G + .114 B (ITU-R 601-2); black and white are 0 and 255.

``rules=1`` is how images were read before: no orientation, transparency cut off, 16 bits clipped.
"""

from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np

from mlhf.core.errors import DataError
from mlhf.core.optional import from_extra
from mlhf.data.arrays import Array

with from_extra("data"):
    from PIL import Image, ImageOps

Background = Literal["white", "black", "grey"]

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
MAX_PIXELS = 25_000_000

_ORIENTATION = 0x0112
_GREY = ("L", "1", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N")
_LEVELS = {"white": 255, "black": 0, "grey": 128}


def decode(
    source: bytes | Path,
    where: str,
    channels: int,
    size: int | tuple[int, int] | None = None,
    background: Background = "white",
    rules: int = 2,
    seen: list[str] | None = None,
    stretch: bool = False,
) -> Array:
    """Return an image as uint8 of shape (C, H, W).

    Args:
        source: The encoded image or its file.
        where: What it is, for errors.
        channels: 3 for colour, 1 for grey.
        size: Side, or height and width: the image is resized until it covers them, and its
            centre is kept; None keeps the image's size.
        background: What a transparent image is laid on.
        seen: What had to be converted is appended here.
        stretch: Resize both sides to the size, whatever their proportions; nothing is cut off.
    """
    height, width = (size, size) if isinstance(size, int) else size or (None, None)
    # Decoders raise whatever they like on a broken file, so every error means "broken".
    try:
        with _opened(source) as image:
            mode = "RGB" if channels == 3 else "L"
            if height is not None and width is not None:
                # JPEG: decode at a fraction of the size
                image.draft(mode, (max(height, width), max(height, width)))
            _check_pixels(image, where)
            if rules == 1:
                pixels = image.convert(mode)
            else:
                pixels = _converted(image, mode, background, seen)
        if height is not None and width is not None and pixels.size != (width, height):
            how = Image.Resampling.BILINEAR
            if stretch:
                pixels = pixels.resize((width, height), how)
            else:
                pixels = ImageOps.fit(pixels, (width, height), how)
        array = np.asarray(pixels, dtype=np.uint8)
    except DataError:
        raise
    except Exception as error:
        raise _broken(where, error) from None
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def probe(source: bytes | Path, where: str) -> Array:
    """Return height, width and channels (1 or 3) of an image from its header, as int64 (3,)."""
    try:
        with _opened(source) as image:
            return _measured(image, where)
    except DataError:
        raise
    except Exception as error:
        raise _broken(where, error) from None


def examine(
    source: bytes | Path,
    where: str,
    background: Background = "white",
    seen: list[str] | None = None,
) -> Array:
    """Return the same after decoding the image; arguments and errors as of ``decode``."""
    try:
        with _opened(source) as image:
            found = _measured(image, where)
            _converted(image, "L" if found[2] == 1 else "RGB", background, seen)
            return found
    except DataError:
        raise
    except Exception as error:
        raise _broken(where, error) from None


def _measured(image: "Image.Image", where: str) -> Array:
    _check_pixels(image, where)
    width, height = image.size
    if _orientation(image) >= 5:
        width, height = height, width
    return np.array([height, width, 1 if image.mode in _GREY else 3])


def _opened(source: bytes | Path) -> "Image.Image":
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS)


def _check_pixels(image: "Image.Image", where: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{where}: {image.width}x{image.height} pixels are too many; at most "
            f"{MAX_PIXELS:,} are decoded"
        )


def _broken(where: str, error: Exception) -> DataError:
    return DataError(f"{where}: not a readable image ({', '.join(_FORMATS)}): {str(error)[:200]}")


def _orientation(image: "Image.Image") -> int:
    if "exif" not in image.info and image.format != "PNG":
        return 1
    found = image.getexif().get(_ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _converted(
    image: "Image.Image", mode: str, background: Background, seen: list[str] | None
) -> "Image.Image":
    notes = [] if seen is None else seen
    transparent = "A" in image.getbands() or "transparency" in image.info
    if not transparent and image.mode == mode and _orientation(image) == 1:
        return image.convert(mode)  # the usual case, at once; convert copies, and so loads
    if _orientation(image) != 1:
        notes.append("turned upright by their EXIF orientation")
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        notes.append("of 16 bits a pixel, taken to 8")
        deep = np.asarray(image).astype(np.int64)
        image = Image.fromarray(((deep.clip(0, 65_535) + 128) // 257).astype(np.uint8))
    elif image.mode not in ("RGB", "RGBA", "L", "LA"):
        notes.append(f"of mode {image.mode}, taken to {mode}")
    if not transparent:
        return image.convert(mode)
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema()[0] == 255:
        return image.convert(mode)
    notes.append(f"transparent, laid on {background} (`background` changes that)")
    level = _LEVELS[background]
    ground = Image.new("RGBA", image.size, (level, level, level, 255))
    return Image.alpha_composite(ground, image).convert(mode)
