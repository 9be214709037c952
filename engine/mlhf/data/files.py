"""Finding and hashing the files of a data set, and the bounds on what is read from them."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from mlhf.core.errors import DataError, SpecError

# What one data set may take in memory, decoded.
MAX_HELD_BYTES = 4 * 2**30

_CHUNK = 2**20


def need_root(root: Path | None) -> Path:
    """Return the folder. Raises DataError when there is none."""
    if root is None:
        raise DataError("the data set needs a folder with its files")
    return root


def only_file(root: Path | None, suffixes: tuple[str, ...]) -> Path:
    """Return ``root`` if it is a file, else the one file in it with one of the suffixes."""
    root = need_root(root)
    if root.is_file():
        return root
    if not root.is_dir():
        raise DataError(f"{root.name} does not exist")
    found = sorted(
        path
        for path in root.iterdir()
        if path.is_file() and path.suffix.lower() in suffixes and not path.name.startswith(".")
    )
    if len(found) != 1:
        raise DataError(
            f"exactly one file ending in {' or '.join(suffixes)} is needed; found {len(found)}"
        )
    return found[0]


def parquet_files(root: Path, *prefixes: str) -> list[Path]:
    """Return the Parquet files of a split: in the folder or its ``data`` folder, by prefix."""
    for folder in (root, root / "data"):
        for prefix in prefixes:
            found = sorted(p for p in folder.glob(f"{prefix}*.parquet") if p.is_file())
            if found:
                return found
    return []


def digest(files: Iterable[Path], root: Path) -> str:
    """Return the sha256, in hex, of names and content of the files, in order of their names."""
    total = hashlib.sha256()
    for name, path in sorted((_relative(path, root), path) for path in files):
        total.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
    return total.hexdigest()


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if root.is_dir() else path.name


def check_held(samples: int, bytes_each: int, pointer: str) -> None:
    """Raise SpecError when a set would not fit in memory."""
    if samples * bytes_each > MAX_HELD_BYTES:
        raise SpecError(
            pointer,
            f"{samples} samples of {bytes_each} bytes need more than "
            f"{MAX_HELD_BYTES // 2**30} GiB; choose fewer or smaller samples",
        )
