"""Which matrix a Gauss-Newton step factorizes, by the memory that it needs. Needs no torch."""

from dataclasses import dataclass
from typing import Literal

Space = Literal["samples", "parameters", "iterative"]

MEMORY_BYTES = 2**30  # of rows and matrices, by default
_MOST_BLOCKS = 6  # pairs of blocks are computed for n² numbers; beyond, PCG is cheaper
VECTORS = 30  # of the parameters' size, that PCG with its sketch holds


@dataclass(frozen=True)
class MemoryPlan:
    """How a step is solved.

    Attributes:
        space: ``"samples"``: JJᵀ of n² numbers is factorized; ``"parameters"``: JᵀJ of p²;
            ``"iterative"``: neither, by products alone.
        block: How many of J's rows are held at once.
        bytes: What rows and matrices take together.
    """

    space: Space
    block: int
    bytes: int


def memory_plan(
    rows: int, parameters: int, itemsize: int, memory_bytes: int = MEMORY_BYTES
) -> MemoryPlan | None:
    """Return how a step of so many rows is solved within a bound; None where nothing fits.

    J has rows · parameters numbers, and a factorized matrix the square of the smaller of both,
    twice. Where all of J exceeds the bound it is computed in blocks of samples.

    Args:
        rows: n, samples times outputs.
        parameters: p.
        itemsize: Bytes of a number.
        memory_bytes: The bound.
    """
    small = min(rows, parameters)
    square = 2 * small * small * itemsize
    left = memory_bytes - square
    if left >= rows * parameters * itemsize:
        space: Space = "samples" if rows <= parameters else "parameters"
        return MemoryPlan(space, rows, square + rows * parameters * itemsize)
    row = parameters * itemsize
    if rows > parameters and left >= row:
        return MemoryPlan("parameters", min(rows, left // row), memory_bytes)
    if left >= 2 * row:
        block = left // (2 * row)
        if -(-rows // block) <= _MOST_BLOCKS:
            return MemoryPlan("samples", block, memory_bytes)
    if VECTORS * row <= memory_bytes:
        return MemoryPlan("iterative", 0, VECTORS * row)
    return None


def too_little(parameters: int, itemsize: int, memory_bytes: int) -> str:
    """Say that no plan fits into a bound, and what to do."""
    return (
        f"a Gauss-Newton step of {parameters:,} parameters takes "
        f"{VECTORS * parameters * itemsize:,} bytes even without a matrix, and "
        f"memory_bytes={memory_bytes:,} allows less: take mlhf, which needs no such matrix "
        "(mlhf.MLHF), or raise memory_bytes"
    )
