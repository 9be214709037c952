"""Curves from before chunks are moved into them, point for point, on both databases."""

from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from mlhf.core.metrics import json_number
from mlhf_service.database import Database
from mlhf_service.migrate import MIGRATIONS, migrate
from mlhf_service.runs import chunks, old_points
from tests.app.stored_points import stored_points
from tests.app.test_migrations import TIME, at_first, insert

__all__ = ["at_first"]


def expected(step: int, metric: str) -> tuple[float | None, str | None]:
    """A point's value and what the old table called one that is not finite."""
    if step % 97 == 0:
        return None, "NaN"
    if step == 5:
        return None, "-Infinity"
    return step / 7 + len(metric), None


CURVES: dict[str, dict[str, list[int]]] = {
    "run_a": {"batch_loss": list(range(1, 800)), "test_loss": [0, 100, 799], "damping": [5, 6]},
    "run_b": {"train_loss": [-3, 0, 5]},
    "run_c": {},
    "run_d": {"train_loss": [1], "test_loss": [1, 2]},
}


@pytest.mark.parametrize("at_once", [200_000, 300])
def test_every_point_is_moved(
    at_first: Database, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "ROWS", 128)
    monkeypatch.setattr(old_points, "_POINTS_AT_ONCE", at_once)
    scripts = ScriptDirectory(str(MIGRATIONS)).walk_revisions()
    moving = next(one for one in scripts if one.path.endswith("_curve_chunks.py"))
    migrate(at_first, str(moving.down_revision))
    wanted: set[Any] = set()
    with at_first.engine.begin() as connection:
        insert(
            connection, "jobs", id="job_a", kind="train", name="a", status="succeeded",
            spec="{}", event_seq=0, created_at=TIME,
        )  # fmt: skip
        for number, (run, curves) in enumerate(CURVES.items()):
            insert(
                connection, "runs", id=run, job_id="job_a", position=number, name=run,
                kind="train", status="succeeded", config="{}", model="mlp", dataset="digits",
                optimizer="adam", seed=0, queue="cpu", attempt=3, failures=0, available_at=0.0,
                spool_offset=0, created_at=TIME,
            )  # fmt: skip
            points = []
            for metric, steps in curves.items():
                for step in steps:
                    value, name = expected(step, metric)
                    cpu = None if step < 400 else 0.75 * step
                    wall = 0.5 * step + (0.25 if metric == "test_loss" else 0.0)
                    places = (step, 10 * step, step / 10, wall, cpu)
                    names = ("step", "samples", "epoch", "wall", "cpu")
                    points.append(
                        {"run": run, "metric": metric, "value": value, "nonfinite": name}
                        | dict(zip(names, places, strict=True))
                    )
                    said = value if name is None else name
                    wanted.add((run, metric, *places, said))
            if points:
                connection.execute(
                    text(
                        "insert into points values (:run, :metric, :step, :samples, :epoch, :wall,"
                        " :value, :nonfinite, :cpu)"
                    ),
                    points,
                )
    migrate(at_first)

    found = stored_points(at_first)
    told = {(*p[:-1], json_number(p.value)) for p in found}
    assert told == wanted
    assert len(found) == len(wanted)
    with at_first.engine.connect() as connection:
        assert not inspect(connection).has_table("points")
        attempts = connection.execute(text("select distinct attempt from curve_chunks")).all()
        chunked = connection.execute(text("select count(*) from curve_chunks where run_id='run_a'"))
        assert attempts == [(3,)]
        assert 3 <= (chunked.scalar() or 0) <= 9
