"""Curves as files in long format: every point with all its axes."""

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from sqlalchemy.orm import Session

from mlhf_service.runs import csv_text, outcomes, repository
from mlhf_service.runs.curves import Series
from mlhf_service.runs.models import Run

COLUMNS = ("run_id", "metric", "step", "samples", "epoch", "wall_seconds", "cpu_seconds", "value")

CSV = "text/csv; charset=utf-8"
PARQUET = "application/vnd.apache.parquet"
PNG = "image/png"


def to_csv(series: Sequence[Series]) -> bytes:
    """CSV; values that are not finite are written NaN, Infinity, -Infinity."""
    return csv_text.table(COLUMNS, (row for one in series for row in one.rows()))


def to_parquet(series: Sequence[Series]) -> bytes:
    """Parquet; values that are not finite are stored as such."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.dictionary(pa.int32(), pa.string())
    kinds = (text, text, pa.int64(), pa.int64(), *[pa.float64()] * 4)
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
    tables = [
        pa.table(
            [
                pa.array([one.run_id] * len(one), text),
                pa.array([one.metric] * len(one), text),
                *(one.step, one.samples, one.epoch, one.wall_seconds),
                pa.array(one.cpu_seconds, mask=np.isnan(one.cpu_seconds)),
                pa.array(one.value),
            ],
            schema=schema,
        )
        for one in series
    ]
    out = io.BytesIO()
    pq.write_table(pa.concat_tables([schema.empty_table(), *tables]).unify_dictionaries(), out)
    return out.getvalue()


@cache
def warm_up() -> None:
    """Import what rendering needs, while there is time: half a second, once a process."""
    import pyarrow.parquet  # noqa: F401

    from mlhf_service.runs.figures import run_figure

    run_figure("", [])


def render_all(session: Session, run: Run, diverged: bool = False) -> dict[str, tuple[str, bytes]]:
    """The files stored with a run that has ended: name → (content type, content)."""
    from mlhf_service.runs.figures import run_figure

    series = repository.curves(session, run.id)
    at = outcomes.end(run) if diverged else None
    return {
        "curves.csv": (CSV, to_csv(series)),
        "curves.parquet": (PARQUET, to_parquet(series)),
        "curves.png": (PNG, run_figure(run.name, series, at)),
    }
