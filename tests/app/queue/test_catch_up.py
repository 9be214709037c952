"""Runs that an earlier version made or ended are found as others are; on both databases."""

from fastapi.testclient import TestClient
from sqlalchemy import delete, select, update

from mlhf_service.database import Database
from mlhf_service.queue import catch_up
from mlhf_service.runs.models import Run
from mlhf_service.runs.values import RunValue

SPEC = {
    "kind": "train",
    "model": {"name": "mlp"},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "adam", "params": {"lr": 0.02}},
    "budget": {"steps": 1},
    "tags": {"team": "vision"},
}


def submit(client: TestClient) -> str:
    (run_id,) = client.post("/v1/jobs", json=SPEC).json()["run_ids"]
    return str(run_id)


def found(client: TestClient, text: str) -> list[str]:
    return [r["id"] for r in client.get("/v1/runs", params={"filter": text}).json()["data"]]


def test_what_older_code_leaves_out_is_completed(client: TestClient, database: Database) -> None:
    made, ended, present = submit(client), submit(client), submit(client)
    results = {
        "status": "succeeded",
        "totals": {"steps": 7, "wall_seconds": 2.5},
        "summary": {"test_loss": {"last": 0.5, "best": 0.25}},
    }
    with database.write() as session:  # past the unit of work: as code that knows no values
        session.connection().execute(update(Run).where(Run.id == ended), [results])
        session.connection().execute(update(Run).where(Run.id == made).values(tags=None))
        session.connection().execute(delete(RunValue).where(RunValue.run_id == made))
    assert found(client, "optimizer.lr = 0.02") == [present, ended]
    assert found(client, "test_loss.best < 0.3") == []

    assert catch_up.complete(database) == 2
    assert found(client, "optimizer.lr = 0.02 and tags.team = vision") == [present, ended, made]
    assert found(client, "test_loss.best < 0.3 and steps = 7 and seconds = 2.5") == [ended]
    with database.read() as session:
        assert session.scalar(select(Run.tags).where(Run.id == made)) == {"team": "vision"}
    assert catch_up.complete(database) == 0
