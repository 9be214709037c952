"""A folder as one stream of bytes (tar), never whole in memory or on the disk."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from mlhf_service.storage.protocol import pieces


def pack(folder: Path) -> Iterator[bytes]:
    """The regular files below ``folder`` as a tar archive: names and content, nothing else."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        info = tarfile.TarInfo(path.relative_to(folder).as_posix())
        info.size = path.stat().st_size
        info.mode = 0o644
        yield info.tobuf(tarfile.PAX_FORMAT)
        yield from pieces(path)
        yield bytes(-info.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def unpack(stream: Iterator[bytes], folder: Path) -> None:
    """Write the files of an archive below ``folder``, which must not be there yet."""
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BufferedReader(_Readable(stream)), mode="r|") as archive:
        archive.extractall(folder, filter="data")


class _Readable(io.RawIOBase):
    """An iterator of bytes as a file."""

    def __init__(self, stream: Iterator[bytes]) -> None:
        self._stream = stream
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        while not self._left:
            piece = next(self._stream, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size
