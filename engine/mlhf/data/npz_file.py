"""The arrays inside an .npz file: headers first, content in chunks, never a pickle."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from mlhf.core.errors import DataError
from mlhf.data.arrays import Array

_CHUNK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Member:
    """One array of the file: its header."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def where(self) -> str:
        return f"{self.file.name}, {self.name}"

    def chunks(self) -> Iterator[Array]:
        """Yield the rows a few at a time (a Fortran-ordered array at once)."""
        row = self.dtype.itemsize * math.prod(self.shape[1:])
        rows = self.shape[0] if self.fortran else max(1, _CHUNK_BYTES // max(row, 1))
        with _reading(self.where), _stream(self.file, self.name) as stream:
            _header(stream)
            for start in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - start)
                content = stream.read(count * row)
                if len(content) != count * row:
                    raise DataError(f"{self.where}: truncated")
                flat = np.frombuffer(content, self.dtype)
                shape = (count, *self.shape[1:])
                yield flat.reshape(shape[::-1]).T if self.fortran else flat.reshape(shape)
            stream.read(1)  # at the end zipfile compares the checksum

    def load(self) -> Array:
        """Return the whole array."""
        return np.concatenate(list(self.chunks()))


def listed(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return what the archive holds, by file name."""
    with _reading(path.name), zipfile.ZipFile(path) as archive:
        return {info.filename: info for info in archive.infolist()}


def member(path: Path, entry: zipfile.ZipInfo) -> Member:
    """Read one array's header. Raises DataError for objects, other types, or a wrong size."""
    name = entry.filename.removesuffix(".npy")
    where = f"{path.name}, {name}"
    with _reading(where), _stream(path, name) as stream:
        shape, fortran, dtype = _header(stream)
        offset = stream.tell()
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects (a pickle), which are never loaded")
    if dtype.kind not in "iufb" or dtype.itemsize > 8:
        raise DataError(f"{where}: values of type {dtype} are not numbers of at most 8 bytes")
    wrong = entry.file_size - offset != math.prod(shape) * dtype.itemsize
    if wrong or any(n < 0 for n in shape):
        raise DataError(f"{where}: truncated, or its header is wrong: it promises {shape}")
    return Member(path, name, shape, dtype, fortran)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    return tuple(int(n) for n in shape), fortran, dtype


@contextmanager
def _stream(path: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        yield stream


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn the errors of a broken archive into DataError."""
    try:
        yield
    except DataError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DataError(f"{where}: not a readable .npz file: {str(error)[:200]}") from None
