"""Blocks of curves that were decoded before, found again by what they hold."""

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from mlhf_service.runs.blocks import Block

_Key = tuple[str, bool, tuple[str, ...]]


class Decoded:
    """The blocks that were used last, as many as fit into so many bytes.

    A key holds the digest of the chunk's rows, so what is found is never out of date. Safe to use
    from several threads. Blocks are shared, so they become read-only.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._blocks: OrderedDict[_Key, Block] = OrderedDict()
        self._lock = Lock()

    def get(self, digest: str, whole: bool, metrics: Sequence[str]) -> Block | None:
        """These metrics of a chunk, all rows or its summary, if they are still here."""
        key = (digest, whole, tuple(metrics))
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
            return self._blocks.get(key)

    def put(self, digest: str, whole: bool, metrics: Sequence[str], block: Block) -> None:
        """Keep a block; those that were not asked for longest make room for it."""
        key = (digest, whole, tuple(metrics))
        with self._lock:
            if key not in self._blocks and block.nbytes <= self._most:
                self._blocks[key] = block.read_only()
                self._bytes += block.nbytes
                while self._bytes > self._most:
                    self._bytes -= self._blocks.popitem(last=False)[1].nbytes
