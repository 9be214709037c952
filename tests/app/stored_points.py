"""What the database holds of curves, point by point."""

from typing import Any, NamedTuple

from sqlalchemy import select

from mlhf_service.database import Database
from mlhf_service.runs import reading
from mlhf_service.runs.models import CurveChunk


class Point(NamedTuple):
    """A value of a metric of a run, with its places on the axes."""

    run_id: str
    metric: str
    step: int
    samples: int
    epoch: float
    wall_seconds: float
    cpu_seconds: float | None
    value: float


def stored_points(database: Database, run_id: str | None = None) -> list[Point]:
    """All points, or those of a run, by run, metric and step."""
    with database.read() as session:
        runs = session.scalars(select(CurveChunk.run_id).distinct().order_by(CurveChunk.run_id))
        found: list[Any] = []
        for one in runs if run_id is None else [run_id]:
            for series in reading.read(session, one):
                found.extend(Point(*row) for row in series.rows())
    return found
