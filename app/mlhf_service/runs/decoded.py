"""Blocks of curves that were decoded before, found again by what they hold."""

from collections.abc import Sequence

from mlhf_service.kit.kept import Kept
from mlhf_service.runs.blocks import Block

_Key = tuple[str, bool, tuple[str, ...]]


class Decoded:
    """The blocks that were used last.

    A key holds the digest of the chunk's rows, so what is found is never out of date. Blocks are
    shared, so they become read-only.
    """

    def __init__(self, most_bytes: int) -> None:
        self._kept: Kept[_Key, Block] = Kept(most_bytes)

    def get(self, digest: str, whole: bool, metrics: Sequence[str]) -> Block | None:
        """These metrics of a chunk, all rows or its summary, if they are still here."""
        return self._kept.get((digest, whole, tuple(metrics)))

    def put(self, digest: str, whole: bool, metrics: Sequence[str], block: Block) -> None:
        """Keep a block; those that were not asked for longest make room for it."""
        self._kept.put((digest, whole, tuple(metrics)), block.read_only(), block.nbytes)
