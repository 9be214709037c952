"""Long vectors in pieces, so that what is done to each of them finds it in a core's cache.

Several operations on vectors of millions of numbers, one after the other, wait for memory most
of the time. Done piece by piece they read and write each number once.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

PIECE = 1 << 16  # numbers for each thread: a few vectors of them fit in a core's cache
_FEW = 4  # pieces, up to which a vector is one piece


def piece_size(vector: Tensor) -> int:
    """Return how many numbers of a vector (n,) a piece has: all where pieces gain nothing."""
    length = vector.numel()
    if length <= _FEW * PIECE or vector.device.type != "cpu":
        return max(1, length)
    size = PIECE * torch.get_num_threads()
    return length if length <= _FEW * size else size


def pieces(*vectors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Return the vectors' pieces, those of the same numbers together.

    Args:
        vectors: Of the same length and device, (n,).
    """
    size = piece_size(vectors[0])
    if size >= vectors[0].numel():
        return (vectors,)
    return zip(*(torch.split(v, size) for v in vectors), strict=True)


def pieces_of_segments(
    sizes: Sequence[int], values: Sequence[float], size: int
) -> Iterator[tuple[list[int], list[float]]]:
    """Yield for each piece the sizes of the segments within, and their values.

    Args:
        sizes: Of a vector's segments, in order.
        values: One for each.
        size: Of a piece; the last may be shorter.
    """
    own, of_own, free = list[int](), list[float](), size
    for length, value in zip(sizes, values, strict=True):
        left = length
        while left:
            taken = min(left, free)
            own.append(taken)
            of_own.append(value)
            left, free = left - taken, free - taken
            if not free:
                yield own, of_own
                own, of_own, free = [], [], size
    if own:
        yield own, of_own
