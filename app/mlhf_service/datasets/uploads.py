"""From uploaded files to a folder that a data set family reads."""

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol
from uuid import uuid4

from mlhf.core.errors import DataError
from mlhf.data.formats import IMAGE_SUFFIXES
from mlhf_service.datasets import archives
from mlhf_service.settings import Settings

_MOST_ARRAYS = 1000
_CHUNK = 2**20
_ABANDONED_SECONDS = 86_400.0  # no request takes a day
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][\w.\-]{0,99}", re.ASCII)


class UploadedFile(Protocol):
    """A file of a request."""

    @property
    def filename(self) -> str | None: ...
    @property
    def file(self) -> BinaryIO: ...


@contextmanager
def staging(settings: Settings) -> Iterator[Path]:
    """An empty folder that is gone at the end, unless it was moved away."""
    folder = staged(settings) / uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_abandoned(settings: Settings) -> None:
    """Remove the folders of uploads whose process was killed."""
    before = time.time() - _ABANDONED_SECONDS
    for folder in staged(settings).glob("*"):
        with suppress(OSError):  # another process may be removing it too
            if folder.stat().st_mtime < before:
                shutil.rmtree(folder)


def staged(settings: Settings) -> Path:
    """Where uploads lie until they are checked."""
    return settings.root / "uploads"


def place(
    files: Sequence[UploadedFile], format: str, folder: Path, settings: Settings
) -> list[str]:
    """Put the files into ``folder`` as the family ``format`` expects them.

    Returns:
        The names of what is left out.

    Raises:
        DataError: Too many files, too large, or not of the format at first sight.
    """
    if format != "hf_images" and len(files) != 1:
        raise DataError(f"{format} is uploaded as one file; {len(files)} were sent")
    if format in ("image_folder", "coco"):
        return archives.unpack_images(
            files[0].file,
            folder,
            IMAGE_SUFFIXES if format == "image_folder" else (*IMAGE_SUFFIXES, ".json"),
            settings.max_upload_entries,
            settings.max_expanded_bytes,
        )
    if format == "hf_images":
        for number, file in enumerate(files):
            _expect_parquet(file.file)
            path = folder / _parquet_name(file.filename, number)
            if path.exists():
                raise DataError(f"two files are named {path.name}")
            _copy(file.file, path, settings.max_upload_bytes)
    else:
        if format == "npz":
            archives.check_sizes(files[0].file, _MOST_ARRAYS, settings.max_expanded_bytes)
        name = {"npz": "data.npz", "text": "text.txt"}.get(format) or _table_name(files[0])
        _copy(files[0].file, folder / name, settings.max_upload_bytes)
    return []


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _copy(source: BinaryIO, path: Path, limit: int) -> None:
    source.seek(0)
    written = 0
    with path.open("xb") as out:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > limit:
                raise DataError(f"the file is larger than the {limit:,} bytes taken here")
            out.write(chunk)
    if not written:
        raise DataError("the file is empty")


def _expect_parquet(file: BinaryIO) -> None:
    file.seek(0)
    if file.read(4) != b"PAR1":
        raise DataError("not a Parquet file")


def _parquet_name(filename: str | None, number: int) -> str:
    """The file's own name, which names the split; a generated one if it is not plain."""
    name = PurePosixPath((filename or "").replace("\\", "/")).name
    if _PLAIN_NAME.fullmatch(name) and name.endswith(".parquet"):
        return name
    split = "test" if name.lower().startswith(("test", "val")) else "train"
    return f"{split}-{number:05d}.parquet"


def _table_name(file: UploadedFile) -> str:
    """Parquet is recognised by content; the file name only decides between TSV and CSV."""
    file.file.seek(0)
    if file.file.read(4) == b"PAR1":
        return "table.parquet"
    return "table.tsv" if (file.filename or "").lower().endswith(".tsv") else "table.csv"
