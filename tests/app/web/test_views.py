"""What pages show, as data."""

import pytest

from mlhf_service.database import Database
from mlhf_service.runs import chunks, reading
from mlhf_service.web import views
from tests.app.conftest import Rows

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_the_last_evaluations_are_read_from_the_end(
    rows: Rows, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = rows.run()
    monkeypatch.setattr(chunks, "ROWS", 100)
    rows.points(run, "train_loss", {step: 1.0 / (1 + step) for step in range(0, 3000, 10)})
    rows.points(run, "test_loss", dict.fromkeys(range(3000, 6000, 20), 2.0))
    windows: list[tuple[int, int]] = []
    read = reading.read

    def reads(*given: object, **more: object) -> object:
        windows.append(more["steps"])  # type: ignore[arg-type]
        return read(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "read", reads)
    with database.read() as session:
        found = views.evaluations(session, run, chunks.heads(session, run))
    assert [step for step, _ in found] == list(range(5000, 6000, 20))
    assert all(one.metrics == {"test_loss": 2.0} for _, one in found)
    assert min(first for first, _ in windows) > 3000, "more than the end was read"
