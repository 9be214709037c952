"""The table of runs: one line of JSON a run, each a gzip member, so that lines are appended.

Processes append at the same time under a lock. A line that an interruption cut short is left out
when the table is read, and cut off when the next one is written.
"""

import fcntl
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.harness.statistics import Curve
from mlhf.core import atomic_files
from mlhf.core.metrics import json_number, parse_number

COLUMNS = ("step", "samples", "cpu_seconds", "train_loss", "test_loss")


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        key: What makes it this run and no other (``runner.key_of``).
        task: Of ``WideTask.name``.
        contender: Of ``Contender.name``.
        setting: Which of the contender's, by its place.
        params: Those of the setting, as they were.
        tuning: Whether it only serves to choose a setting.
        status: ``succeeded`` or ``diverged``; ``failed`` where it could not be run.
        reason: Why it ended.
        curve: For each evaluation a list in the order of ``COLUMNS``.
        code: Digest of what a candidate was made by; empty for peers.
        environment: Versions and the machine.
    """

    key: str
    task: str
    contender: str
    setting: int
    params: Mapping[str, Any]
    seed: int
    tuning: bool
    status: str
    reason: str
    curve: list[list[Any]]
    code: str
    environment: Mapping[str, Any]

    def measured(self, slowness: float = 1.0) -> Curve:
        """Return its curve as the statistics take it.

        Seconds are CPU seconds of training, divided by ``slowness``.
        """
        points = []
        for line in self.curve:
            at = dict(zip(COLUMNS, map(parse_number, line), strict=True))
            losses = {name: at.pop(name) for name in COLUMNS[3:]}
            seconds = at.pop("cpu_seconds") / slowness
            points.append({**at, "wall_seconds": seconds, "values": losses})
        last = points[-1] if points else {"step": 0, "wall_seconds": 0.0}
        totals = {"steps": last["step"], "wall_seconds": last["wall_seconds"]}
        status = "succeeded" if self.status == "succeeded" else "diverged"
        return Curve(points, {"status": status, "totals": totals})


class Table:
    """The runs of a file.

    Args:
        path: Of the file, which need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[Row]:
        """Return all runs, in the order in which they were made."""
        if not self.path.exists():
            return []
        return [Row(**json.loads(line)) for line, _ in _members(self.path.read_bytes())]

    def append(self, row: Row) -> None:
        """Add a run."""
        document = asdict(row)
        document["curve"] = [list(map(json_number, line)) for line in row.curve]
        line = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        with self._locked():
            content = self.path.read_bytes() if self.path.exists() else b""
            whole = max((end for _, end in _members(content)), default=0)
            member = gzip.compress(line + b"\n", mtime=0)
            atomic_files.write(self.path, content[:whole] + member)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _members(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield each whole gzip member, and where it ends."""
    at = 0
    while at < len(content):
        reader = zlib.decompressobj(wbits=31)
        try:
            line = reader.decompress(content[at:])
        except zlib.error:
            return
        if not reader.eof:
            return
        at = len(content) - len(reader.unused_data)
        yield line, at
