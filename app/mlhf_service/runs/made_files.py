"""Files that are made of what a run left, when they are first asked for, and kept in the store."""

import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from mlhf_service.database import Database
from mlhf_service.kit.problems import NotFound
from mlhf_service.runs import (
    chunks,
    curve_files,
    curve_parquet,
    event_file,
    outcomes,
    reading,
    repository,
    solution_figure,
    trajectory_files,
)
from mlhf_service.runs.curve_files import CSV, PNG
from mlhf_service.runs.curve_parquet import PARQUET
from mlhf_service.runs.curves import Series
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.runs.status import TERMINAL
from mlhf_service.storage.protocol import Storage

log = logging.getLogger(__name__)

# Drawing takes memory and a processor: what else waits, waits here and not in the database.
_MAKING = threading.BoundedSemaphore(2)


@dataclass(frozen=True)
class MadeFile:
    """A file that is made of a run's curves, or of another file of it.

    Attributes:
        content: Gives it in pieces; database and store are those that the run is in.
    """

    name: str
    content_type: str
    content: Callable[[Database, Storage, Run], Iterable[bytes]]

    @property
    def kind(self) -> str:
        return self.name.partition(".")[0]  # curves, events or ablation


def made_files(run: Run) -> dict[str, MadeFile]:
    """The files that a run has by name, once it has ended and its curves change no more."""
    if run.status not in TERMINAL:
        return {}
    files = list(_CURVES)
    if run.kind == "ablation" and trajectory_files.has_files(run):
        files += [
            MadeFile(name, kind, _of_trajectory(name)) for name, kind in trajectory_files.FILES
        ]
    if solution_figure.has_solution(run):
        files.append(_SOLUTION)
    return {file.name: file for file in files}


def make(database: Database, storage: Storage, run: Run, file: MadeFile) -> Artifact | None:
    """Make a file, keep it, and return its record; None where the run was deleted meanwhile.

    What it is made of does not change: a second maker stores the same bytes.
    """
    key = f"runs/{run.id}/{run.attempt}/made/{file.name}"
    with _MAKING:
        stored = storage.put(
            key, cast(BinaryIO, _Pieces(iter(file.content(database, storage, run))))
        )
    with database.write() as session:
        if session.get(Run, run.id, with_for_update={"read": True}) is None:
            artifact = None
        else:
            artifact = repository.record_file(
                session, run.id, file.name, file.kind, stored, file.content_type
            )
    if artifact is None:
        storage.delete(key)
    return artifact


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, size: int = -1) -> bytes:
        """The next piece that is not empty, whatever its size; at the end nothing."""
        return next((piece for piece in self._pieces if piece), b"")


def _whole(database: Database, run: Run) -> Iterator[Series]:
    with database.read() as session:
        metrics = reading.metrics_of(chunks.heads(session, run.id))
    for metric in metrics:
        yield from reading.stream(database.read, run.id, metric)


def _csv(database: Database, storage: Storage, run: Run) -> Iterable[bytes]:
    return curve_files.csv_pieces(_whole(database, run))


def _parquet(database: Database, storage: Storage, run: Run) -> Iterable[bytes]:
    return curve_parquet.pieces(_whole(database, run))


def _png(database: Database, storage: Storage, run: Run) -> Iterable[bytes]:
    from mlhf_service.runs.figures import DRAWN_POINTS, run_figure

    with database.read() as session:
        series = reading.read(session, run.id, limit=DRAWN_POINTS)
    return [run_figure(run.name, series, outcomes.diverged_at(run))]


def _events(database: Database, storage: Storage, run: Run) -> Iterable[bytes]:
    began = (run.started_at or run.created_at).timestamp()
    return event_file.pieces(_whole(database, run), began)


def _of_trajectory(name: str) -> Callable[[Database, Storage, Run], Iterable[bytes]]:
    def content(database: Database, storage: Storage, run: Run) -> Iterable[bytes]:
        with database.read() as session:
            return [trajectory_files.render(session, run, name)]

    return content


def _solution(database: Database, storage: Storage, run: Run) -> Iterable[bytes]:
    with database.read() as session:
        source = repository.artifact(session, run.id, solution_figure.SOURCE)
    if source is None:
        raise NotFound("The run left no solution: it was stopped, or its record was deleted.")
    archive = b"".join(storage.read(source.storage_key))
    return [solution_figure.solution_png(run.name, archive)]


_SOLUTION = MadeFile(solution_figure.NAME, PNG, _solution)
_CURVES = (
    MadeFile("curves.csv", CSV, _csv),
    MadeFile("curves.parquet", PARQUET, _parquet),
    MadeFile("curves.png", PNG, _png),
    MadeFile(event_file.NAME, "application/octet-stream", _events),
)
