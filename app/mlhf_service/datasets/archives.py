"""Zip files from untrusted users: checked before unpacking, and bounded during it."""

import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from mlhf.core.errors import DataError

# Images and numbers hardly compress; what shrinks to less than this is a bomb.
MOST_EXPANSION = 100
FREE_BYTES = 64 * 2**20  # below this the ratio does not matter
MOST_IMAGE_BYTES = 128 * 2**20
MOST_DEPTH = 8

_CHUNK = 2**20
_HEADER = 46  # bytes of an entry of the central directory, without its names
_SKIPPED = ("__MACOSX", ".DS_Store", "Thumbs.db")
_DOS = (0, 10, 14)  # FAT, NTFS, VFAT: where no file's name holds a backslash


def check_sizes(file: BinaryIO, max_entries: int, max_bytes: int) -> None:
    """Refuse a zip file with too many entries, or which would unpack to too much.

    Raises:
        DataError: It is no zip file, or goes beyond a limit.
    """
    with reading():
        _check_entries(file, max_entries)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        expanded = sum(entry.file_size for entry in entries)
        packed = sum(entry.compress_size for entry in entries)
    if not entries:
        raise DataError("the zip file is empty")
    if expanded > max_bytes:
        raise DataError(
            f"the zip file unpacks to {expanded:,} bytes; at most {max_bytes:,} are taken"
        )
    if expanded > max(FREE_BYTES, MOST_EXPANSION * packed):
        raise DataError("the zip file unpacks to a suspicious multiple of its size")


def unpack_images(
    file: BinaryIO, target: Path, suffixes: tuple[str, ...], max_entries: int, max_bytes: int
) -> list[str]:
    """Unpack a zip file of images in folders.

    A single folder around everything is left out. Bytes are counted as they are written:
    the sizes a zip file declares are only claims.

    Returns:
        What stays packed: how many files that systems add, and the names of the others that
        are no images.

    Raises:
        DataError: A name leads out of the folder, an entry is a link, or a limit is passed.
    """
    check_sizes(file, max_entries, max_bytes)
    left = max_bytes
    with reading(), zipfile.ZipFile(file) as archive:
        entries, others = _wanted(archive, suffixes)
        if not entries:
            raise DataError(f"the zip file holds no image; taken are {', '.join(suffixes)}")
        prefix = _common_folder([parts for _, parts in entries])
        made: set[Path] = set()
        for entry, parts in entries:
            path = target.joinpath(*parts[prefix:])
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            try:
                with archive.open(entry) as source:
                    left -= _copy(source, path, min(left, MOST_IMAGE_BYTES), _shown(entry))
            except FileExistsError:
                raise DataError(f"{_shown(entry)} is in the zip file twice") from None
    return others


@contextmanager
def reading() -> Iterator[None]:
    """Turn the errors of a broken zip file into DataError."""
    try:
        yield
    except DataError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"not a readable zip file: {str(error)[:200]}") from None
    except (ValueError, OverflowError, IndexError, UnicodeError) as error:
        raise DataError(f"not a readable zip file: {str(error)[:200]}") from None


def _check_entries(file: BinaryIO, most: int) -> None:
    """Count the entries of the central directory before zipfile keeps them all in memory."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if not end:
        raise DataError("not a zip file")
    size, location = end[5], end[9]
    if end[0] == b"PK\x06\x06":
        location -= 56 + 20  # the 64-bit record and its locator come in between
    at = location - size
    if at < 0:
        raise DataError("not a readable zip file: its directory is not where it should be")
    count = 0
    while at < location:
        file.seek(at)
        header = file.read(_HEADER)
        if len(header) < _HEADER or header[:4] != b"PK\x01\x02":
            return  # zipfile raises the error
        count += 1
        if count > most:
            raise DataError(f"the zip file has more than {most:,} entries")
        name, extra, comment = (int.from_bytes(header[i : i + 2], "little") for i in (28, 30, 32))
        at += _HEADER + name + extra + comment


_Entries = list[tuple[zipfile.ZipInfo, tuple[str, ...]]]


def _wanted(archive: zipfile.ZipFile, suffixes: tuple[str, ...]) -> tuple[_Entries, list[str]]:
    """Return the images and their paths, and what is said of the other files."""
    entries: _Entries = []
    others = []
    skipped = Counter[str]()
    slashes = any("/" in entry.orig_filename for entry in archive.infolist())
    for entry in archive.infolist():
        name = entry.orig_filename
        if "\\" in name and (entry.create_system in _DOS or not slashes):
            name = name.replace("\\", "/")
        parts = _parts(entry, name)
        if name.endswith("/"):
            continue
        if known := next((part for part in parts if part in _SKIPPED), None):
            skipped[known] += 1
            continue
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise DataError(f"{_shown(entry)} is a link or a device; only plain files are taken")
        if not parts[-1].lower().endswith(suffixes) or any(part.startswith(".") for part in parts):
            others.append("/".join(parts))
            continue
        if entry.file_size == 0:
            raise DataError(f"{_shown(entry)} is empty; an image is expected")
        if entry.flag_bits & 1:
            raise DataError(f"{_shown(entry)} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{_shown(entry)} is not compressed by deflate")
        entries.append((entry, parts))
    # Counts first: a long list is cut at its end.
    counts = [f"{name}: {count} files" for name, count in sorted(skipped.items())]
    return entries, counts + others


def _parts(entry: zipfile.ZipInfo, name: str) -> tuple[str, ...]:
    """The folders and the name of an entry, if they are harmless.

    Args:
        name: That of the entry, with a slash between folders.
    """
    if "\\" in name:
        raise DataError(
            f"{_shown(entry)} has a backslash in its name, and other names in the zip file have "
            "slashes between folders; rename the file, or pack the folder again"
        )
    path = PurePosixPath(name)
    bad = (
        not name
        or path.is_absolute()
        or ".." in path.parts
        or ":" in name
        or any(ord(c) < 32 for c in name)
        or len(path.parts) > MOST_DEPTH
        or any(len(part.encode()) > 200 for part in path.parts)
    )
    if bad or not path.parts:
        raise DataError(f"{_shown(entry)} is not a name that is unpacked")
    return path.parts


def _common_folder(names: list[tuple[str, ...]]) -> int:
    """1 if everything is in one folder around ``train`` or around folders of classes, else 0."""
    tops = {parts[0] for parts in names}
    if len(tops) != 1 or "train" in tops:
        return 0
    inside = {parts[1] for parts in names if len(parts) > 2}
    return 1 if "train" in inside or len(inside) > 1 else 0


def _copy(source: IO[bytes], path: Path, limit: int, shown: str) -> int:
    written = 0
    with path.open("xb") as out:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > limit:
                raise DataError(f"{shown} unpacks to more than is taken")
            out.write(chunk)
    return written


def _shown(entry: zipfile.ZipInfo) -> str:
    return repr(entry.orig_filename[:100])
