"""Size and channels of decoded images: as told, else those of the files where they agree."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlhf.core.errors import DataError
from mlhf.data.arrays import Array
from mlhf.data.image_decoder import Background, decode, examine, probe
from mlhf.data.images import map_in_threads
from mlhf.data.params import CocoParams, ImageParams
from mlhf.data.report import Progress

SMALLEST, LARGEST = 4, 512


@dataclass(frozen=True)
class Decoding:
    """How the images of a data set are decoded.

    Attributes:
        settled: The parameters that the files decided.
        guessed: Why those were chosen, for the report.
        stretch: Images are resized whatever their proportions, as boxes are with them.
    """

    channels: int
    height: int
    width: int
    background: Background
    rules: int
    settled: dict[str, Any]
    guessed: tuple[str, ...] = ()
    stretch: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    def note(self) -> dict[str, Any]:
        """Return what a prediction on encoded images needs to know, as JSON values."""
        told: dict[str, Any] = {"background": self.background, "rules": self.rules}
        return told | ({"stretch": True} if self.stretch else {})

    def __call__(self, source: Any, where: str, seen: list[str] | None = None) -> Array:
        """Return one image as uint8 (C, H, W)."""
        size = self.height, self.width
        return decode(
            source, where, self.channels, size, self.background, self.rules, seen, self.stretch
        )


def decoding(params: ImageParams, side: int, items: Iterable[tuple[Any, str]]) -> Decoding:
    """Return how images are decoded, looking at the headers of all where that is not told.

    Args:
        side: Of the images where the files differ.
        items: All encoded images, each with what it is.
    """
    if params.rules == 1 or (params.channels is not None and params.size is not None):
        return _decoding(params, side, None)
    return _decoding(params, side, map_in_threads(lambda item: probe(*item), items))


def checked(
    params: ImageParams,
    side: int,
    items: Iterable[tuple[Any, str]],
    count: int,
    seen: list[str],
    progress: Progress | None = None,
) -> Decoding:
    """Return the same after decoding all ``count`` images once, keeping none.

    Args:
        seen: What had to be converted is appended here.
    """
    if params.rules == 1 or (params.channels is not None and params.size is not None):
        how = _decoding(params, side, None)
        stacks = map_in_threads(lambda item: how(*item, seen), items)
        for _ in _counted(stacks, count, progress):
            pass
        return how
    background = params.background
    stacks = map_in_threads(lambda item: examine(*item, background, seen), items)
    return _decoding(params, side, _counted(stacks, count, progress))


def _decoding(params: ImageParams, side: int, measured: Iterable[Array] | None) -> Decoding:
    channels, size = params.channels, params.size
    settled: dict[str, Any] = {}
    guessed: list[str] = []
    if measured is None:
        channels, size = channels or 3, size or side
    else:
        sizes = list(measured)
        if not sizes:  # a damaged file can promise rows that it does not hold
            raise DataError("there is no image in the files")
        found = np.concatenate(sizes)
        if channels is None:
            channels = 1 if found[:, 2].max() == 1 else 3
            settled["channels"] = channels
            why = "all files are grey" if channels == 1 else "files are in colour"
            guessed.append(f"`channels` is {channels}, as {why}")
        if size is None:
            size = _agreed(found[:, :2], side, guessed, params)
            settled["size"] = list(size) if isinstance(size, tuple) else size
    assert size is not None
    assert channels is not None
    height, width = (size, size) if isinstance(size, int) else size
    return Decoding(
        channels,
        height,
        width,
        params.background,
        params.rules,
        settled,
        tuple(guessed),
        isinstance(params, CocoParams),
    )


def _agreed(
    found: Array, side: int, guessed: list[str], params: ImageParams
) -> int | tuple[int, int]:
    low, high = found.min(0), found.max(0)
    height, width = map(int, low)
    if (low == high).all() and low.min() >= SMALLEST and high.max() <= LARGEST:
        guessed.append(f"`size` is {height}×{width}, that of all files")
        return height if height == width else (height, width)
    sizes = (
        f"{low[0]}×{low[1]}" if (low == high).all() else f"{low[0]}×{low[1]} to {high[0]}×{high[1]}"
    )
    how = "whatever their proportions" if isinstance(params, CocoParams) else "the centre kept"
    guessed.append(f"`size` is {side}: the files are of {sizes}; resized, {how}")
    return side


def conversions(seen: Iterable[str]) -> list[str]:
    """Count what had to be converted."""
    names = list(seen)
    return [f"{names.count(name)} images {name}" for name in sorted(set(names))]


def _counted(stacks: Iterable[Array], total: int, progress: Progress | None) -> Iterator[Array]:
    """Pass stacks on, and say how many images have gone by."""
    done = 0
    for stack in stacks:
        yield stack
        done += len(stack)
        if progress is not None:
            progress(done, total)
