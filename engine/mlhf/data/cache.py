"""Decoded data sets on disk, by their content and parameters, shared by the runs of a machine.

An entry is one safetensors file: what a data set is after decoding and scaling, which every run
maps into its memory, so that its pages are there once. Its name ends in the sha256 of its content.
It is compared whenever an entry is opened: one that was cut short or changed is decoded anew.

Any number of processes may use a folder, and each may be killed at any moment. A file gets its
name when it is whole; what a killed writer left is known by its lock, which nobody holds.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

import safetensors
import safetensors.torch
from torch import Tensor

from mlhf.data.info import DataInfo

_PARTIAL, _LOCK = ".partial", "lock"
_LOCK_SECONDS = 60.0  # in which a writer locks the folder that it has made
# What decodes: another version may decode to other values.
_DECODERS = ("numpy", "pillow", "pyarrow")


@dataclass(frozen=True)
class Decoded:
    """A data set as training holds it.

    Attributes:
        preprocessing: What was, or is to be, done to raw inputs, as JSON values.
        tensors: ``inputs`` and ``targets`` of each split, such as ``train_inputs``.
    """

    info: DataInfo
    preprocessing: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True)
class DataCache:
    """A folder of decoded data sets.

    Attributes:
        folder: Made when it is first written to.
        max_bytes: What its entries may take; the longest unused are deleted.
        min_free_bytes: What is left free on the disk.
    """

    folder: Path
    max_bytes: int = 8 * 2**30
    min_free_bytes: int = 2**28

    def get(self, key: str) -> Decoded | None:
        """Return an entry, mapped into memory; None if there is none that is sound."""
        for path in self.folder.glob(f"{key}.*.safetensors"):
            with suppress(FileNotFoundError):  # deleted meanwhile, to make room
                found = _opened(path)
                if found is not None:
                    with suppress(OSError):
                        os.utime(path)  # it was used now
                    return found
                path.unlink(missing_ok=True)
        return None

    def put(self, key: str, decoded: Decoded) -> None:
        """Keep an entry, unless it is too large.

        Raises:
            OSError: where it cannot be written, or would fill the disk.
        """
        if decoded.bytes > self.max_bytes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_room(decoded.bytes)
        if shutil.disk_usage(self.folder).free < decoded.bytes + self.min_free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with _partial_folder(self.folder) as partial:
            path = partial / "entry"
            _write(path, decoded)
            os.replace(path, self.folder / f"{key}.{_sha256(path)}.safetensors")

    def _make_room(self, wanted: int) -> None:
        """Delete what killed writers left, and the longest unused entries above the bound."""
        entries = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                if path.suffix == _PARTIAL:
                    _delete_abandoned(path)
                elif path.suffix == ".safetensors":
                    found = path.stat()
                    entries.append((found.st_mtime_ns, found.st_size, path))
        entries.sort()
        total = wanted + sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)  # whoever has mapped it keeps it
            total -= size


def key_of(family: str, params: dict[str, Any], sha256: str) -> str:
    """Return the key of a data set.

    Args:
        params: The family's, with all defaults.
        sha256: Of the files' content.
    """
    values = [family, params, sha256, _decoders()]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:40]


@cache
def _decoders() -> list[str]:
    """Return what the values of an entry depend on besides its files: our code, and packages'."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total.update(path.read_bytes())
    found = [total.hexdigest()]
    for name in _DECODERS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return found


@contextmanager
def _partial_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to write in, locked for as long, and deleted afterwards."""
    path = folder / f"{uuid4().hex}{_PARTIAL}"
    path.mkdir()
    try:
        with (path / _LOCK).open("xb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _delete_abandoned(path: Path) -> None:
    if time.time() - path.stat().st_mtime < _LOCK_SECONDS:
        return
    if (path / _LOCK).exists():
        with (path / _LOCK).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # its writer lives
    shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, decoded: Decoded) -> None:
    about = {"info": decoded.info.to_dict(), "preprocessing": decoded.preprocessing}
    tensors = {name: tensor.contiguous() for name, tensor in decoded.tensors.items()}
    try:
        safetensors.torch.save_file(tensors, path, {"about": json.dumps(about)})
    except safetensors.SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from error


def _opened(path: Path) -> Decoded | None:
    try:
        if path.name.split(".")[1] != _sha256(path):
            return None
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, safetensors.SafetensorError):
        return None
    return Decoded(DataInfo.from_dict(about["info"]), about["preprocessing"], tensors)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
