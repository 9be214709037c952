"""Events of a run: what the trainer process reports. Needs no torch.

One event is one JSON object on one line. Numbers that are not finite are written by name, as
``mlhf.core.metrics`` has it. A line without a final newline is one that was being written when
its writer died.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from mlhf.core.metrics import json_number

Event = dict[str, Any]
OnEvent = Callable[[Event], None]


def event(kind: str, **fields: Any) -> Event:
    """Return an event of type ``kind``, stamped with the current time."""
    return {"type": kind, "at": time.time(), **fields}


def encode(value: Event) -> bytes:
    """Return the event as one line of strict JSON, newline included."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", errors="backslashreplace") + b"\n"


def read(path: str | Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Yield each complete event from byte ``offset`` on, with the offset after it."""
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield json.loads(line), offset


class EventFile:
    """Appends events to a file, each whole and handed to the operating system at once."""

    def __init__(self, path: str | Path) -> None:
        self._file: BinaryIO = open(path, "ab", buffering=0)  # noqa: SIM115
        self._end_torn_line(Path(path))

    def __call__(self, value: Event) -> None:
        line = memoryview(encode(value))
        while line:
            line = line[self._file.write(line) :]

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _end_torn_line(self, path: Path) -> None:
        # A predecessor that was killed may have left half a line. Cut it, so that the first
        # event of this writer does not become its second half.
        size = path.stat().st_size
        if size == 0:
            return
        content = path.read_bytes()
        keep = content.rfind(b"\n") + 1
        if keep != size:
            os.truncate(path, keep)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return json_number(value)
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
