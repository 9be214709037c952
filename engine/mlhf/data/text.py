"""One text, character by character."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlhf.core.errors import DataError, SpecError
from mlhf.data import files
from mlhf.data.arrays import (
    Array,
    Arrays,
    Split,
    part_indices,
    subset_indices,
    subset_size,
)
from mlhf.data.info import DataInfo
from mlhf.data.params import TextParams
from mlhf.data.report import Inspection, Progress, Report, SplitReport

MAX_BYTES = 2**30
MAX_VOCABULARY = 65_536

_CHUNK = 2**20


@dataclass(frozen=True)
class _Scan:
    """What one pass over a text shows."""

    length: int
    characters: str


def describe(params: TextParams, root: Path | None) -> DataInfo:
    """Read the text once, in chunks: the vocabulary is in no header."""
    return _info(params, _scan(_file(root)))


def validate(params: TextParams, root: Path | None) -> DataInfo:
    """Read the text once, in chunks."""
    return describe(params, root)


def inspect(params: TextParams, root: Path | None, progress: Progress | None = None) -> Inspection:
    """Read the text once, and report its length and where it is split."""
    path = _file(root)
    scan = _scan(path)
    info = _info(params, scan)
    train = _train_length(scan.length, params)
    windows = f"samples of {params.sequence_length} characters"
    report = Report(
        splits=[
            SplitReport(
                name="train",
                samples=info.train_samples,
                source=f"the first {train} of {scan.length} characters, in {windows}",
            ),
            SplitReport(
                name="test",
                samples=info.test_samples,
                source=f"the last {scan.length - train} characters, in {windows}",
            ),
        ],
        sample=[{"text": next(_chunks(path))[:100]}],
    )
    return Inspection(info, report)


def read(params: TextParams, root: Path | None) -> Arrays:
    """Return the tokens of both splits, and where the samples start in them."""
    path = _file(root)
    scan = _scan(path)
    info = _info(params, scan)
    codes = _codes(scan.characters)
    small = np.uint8 if len(codes) <= 256 else np.uint16
    tokens = np.concatenate(
        [np.searchsorted(codes, _codes(chunk)).astype(small) for chunk in _chunks(path)]
    )
    train = _train_length(scan.length, params)
    return Arrays(
        info,
        Split(tokens[:train], _starts(train, params, "train_samples", params.split)),
        Split(tokens[train:], _starts(scan.length - train, params, "test_samples")),
        notes={"characters": scan.characters},
    )


def digest(root: Path | None) -> str:
    """Return the sha256 of the file."""
    path = _file(root)
    return files.digest([path], path)


def _info(params: TextParams, scan: _Scan) -> DataInfo:
    train = _train_length(scan.length, params)
    counts = [_windows(length, params) for length in (train, scan.length - train)]
    counts[0] = len(part_indices(params.split, counts[0]))
    vocabulary = len(scan.characters)
    return DataInfo(
        kind="text",
        input_shape=(params.sequence_length,),
        outputs=vocabulary,
        task="language",
        train_samples=subset_size(counts[0], params.train_samples, "train_samples"),
        test_samples=subset_size(counts[1], params.test_samples, "test_samples"),
        vocabulary=vocabulary,
    )


def _train_length(length: int, params: TextParams) -> int:
    return length - round(length * params.test_fraction)


def _windows(length: int, params: TextParams) -> int:
    """Return how many samples, each with the character after it, fit side by side."""
    count = (length - 1) // params.sequence_length
    if count < 1:
        raise SpecError(
            "/params/sequence_length",
            f"one split of the text has only {length} characters; choose shorter samples "
            "or add text",
        )
    return count


def _starts(length: int, params: TextParams, parameter: str, split: str = "all") -> Array:
    windows = part_indices(split, _windows(length, params))
    windows = windows[subset_indices(len(windows), getattr(params, parameter), parameter)]
    return windows.astype(np.int64) * params.sequence_length


def _scan(path: Path) -> _Scan:
    length, seen = 0, set[str]()
    for chunk in _chunks(path):
        length += len(chunk)
        seen.update(chunk)
        if len(seen) > MAX_VOCABULARY:
            raise DataError(f"{path.name}: more than {MAX_VOCABULARY} different characters")
    if "\0" in seen:
        raise DataError(f"{path.name}: contains NUL characters; is it a text file?")
    if len(seen) < 2:
        raise DataError(f"{path.name}: at least 2 different characters are needed")
    return _Scan(length, "".join(sorted(seen)))


def _chunks(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    with path.open("rb") as file:
        while True:
            content = file.read(_CHUNK)
            try:
                text = decoder.decode(content, final=not content)
            except UnicodeDecodeError:
                raise DataError(f"{path.name}: not UTF-8; convert it first") from None
            if text:
                yield text
            if not content:
                return


def _codes(text: str) -> Array:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _file(root: Path | None) -> Path:
    path = files.only_file(root, (".txt", ".text"))
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path.name}: larger than 1 GiB")
    return path
