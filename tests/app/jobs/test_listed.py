"""A job is written once for lists, and anew as soon as it changes at all."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, text

from mlhf_service.database import Database, now
from mlhf_service.jobs import listed, repository, views
from mlhf_service.jobs.models import Job, JobTag
from mlhf_service.jobs.repository import lock
from mlhf_service.jobs.state import move, settle
from mlhf_service.queue.claims import claim_next
from mlhf_service.runs.models import Run
from tests.app.conftest import Rows

SWEEP = {
    "kind": "sweep",
    "model": {"name": "mlp"},
    "dataset": {"name": "digits"},
    "optimizers": [{"name": "adam", "grid": {"lr": [0.001, 0.01, 0.1]}}],
    "budget": {"epochs": 1},
}
TALLY = {"counts": {"succeeded": 2}, "attempts": 1, "step": 8}


@pytest.fixture
def ended(rows: Rows) -> str:
    """A job of two runs that has ended."""
    job = rows.job(kind="sweep", tally=TALLY, tags=[JobTag(key="team", value="a")])
    for position in range(2):
        rows.run(job, position=position)
    return job


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the jobs that were written, each time they were."""
    found: list[str] = []
    write = views.listed

    def watched(session: Any, job_ids: Any) -> Any:
        found.extend(job_ids)
        return write(session, job_ids)

    monkeypatch.setattr(views, "listed", watched)
    return found


def of(client: TestClient, job_id: str) -> dict[str, Any]:
    page = client.get("/v1/jobs?archived=any").json()["data"]
    return dict(next(job for job in page if job["id"] == job_id))


def test_a_job_that_goes_on_is_always_written(
    client: TestClient, rows: Rows, ended: str, written: list[str]
) -> None:
    going = rows.job(status="running")
    rows.run(going, status="running")
    pages = [client.get("/v1/jobs").content for _ in range(3)]
    assert pages[0] == pages[1] == pages[2]
    assert written.count(ended) == 1
    assert written.count(going) == 3


@pytest.mark.parametrize(
    "change",
    [
        'update runs set progress = \'{"step": 9, "fraction": 0.5}\' where position = 1',
        "update runs set attempt = 2 where position = 0",
        "update runs set status = 'succeeded' where position = 0",
        "delete from runs where position = 0",
        "update jobs set name = 'another'",
    ],
)
def test_a_sweep_that_trains_is_written_anew_with_every_change_of_a_run(
    client: TestClient,
    database: Database,
    rows: Rows,
    written: list[str],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    """Its own row does not change with the progress of its runs."""
    monkeypatch.setattr(repository, "_TICK_SECONDS", 1e9)
    going = rows.job(kind="sweep", status="running", started_at=now())
    for position in range(3):
        rows.run(going, position=position, status="running", progress=None)
    before = [of(client, going) for _ in range(3)]
    assert before[0] == before[1] == before[2]
    assert written.count(going) == (3 if database.is_sqlite else 1)
    with database.write() as session:
        session.execute(text(change))
    after = of(client, going)
    assert after != before[0]
    with database.read() as session:
        shown = views.items(session, [going])[0].model_dump(mode="json")
    for found in (after, shown):
        found["progress"].pop("eta_seconds")  # it takes ever longer
    assert after == shown


def test_the_time_that_is_left_is_told_anew(
    client: TestClient, rows: Rows, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_TICK_SECONDS", 1e-9)
    going = rows.job(kind="sweep", status="running", started_at=now())
    rows.run(going, status="running", progress={"step": 1, "fraction": 0.5})
    times = [of(client, going)["progress"]["eta_seconds"] for _ in range(3)]
    assert times[0] < times[1] < times[2]


def test_a_job_that_waits_is_written_once_and_again_with_every_change_of_a_run(
    client: TestClient, database: Database, written: list[str]
) -> None:
    job = client.post("/v1/jobs", json=SWEEP).json()["id"]

    def shown() -> tuple[str, dict[str, int], int]:
        pages = [of(client, job) for _ in range(2)]
        assert pages[0] == pages[1]
        counts = {status: count for status, count in pages[0]["runs"].items() if count}
        return pages[0]["status"], counts, pages[0]["attempts"]

    assert shown() == ("queued", {"queued": 3}, 0)
    assert shown() == ("queued", {"queued": 3}, 0)
    assert written == [job]
    claim = claim_next(database, "cpu", "me", 30.0)
    assert claim is not None
    assert shown() == ("running", {"queued": 2, "running": 1}, 1)
    assert client.post(f"/v1/jobs/{job}/pause").is_success
    with database.write() as session:
        paused, run = lock(session, job), session.get_one(Run, claim.run_id)
        assert paused is not None
        run.progress = {"step": 7, "samples": 70, "fraction": 0.1}
        move(session, run, "paused")
        settle(session, paused)
    assert shown() == ("paused", {"paused": 3}, 1)
    assert of(client, job)["progress"]["step"] == 7
    assert client.post(f"/v1/jobs/{job}/resume").is_success
    assert shown() == ("queued", {"queued": 3}, 1)
    assert client.delete(f"/v1/runs/{claim.run_id}?cancel=true").is_success
    assert shown() == ("queued", {"queued": 2}, 0)
    assert client.post(f"/v1/jobs/{job}/cancel").is_success
    assert shown() == ("cancelled", {"cancelled": 2}, 0)


def test_ended_without_what_is_kept_of_its_runs(
    client: TestClient, rows: Rows, written: list[str]
) -> None:
    """As an older version may leave one: its runs are counted each time."""
    job = rows.job()
    rows.run(job)
    for _ in range(2):
        assert of(client, job)["runs"]["succeeded"] == 1
    assert written == [job, job]


CHANGES: dict[str, tuple[Callable[[TestClient, str], Any], Callable[[dict[str, Any]], Any]]] = {
    "name": (
        lambda client, job: client.patch(f"/v1/jobs/{job}", json={"name": "another"}),
        lambda shown: shown["name"] == "another",
    ),
    "tag": (
        lambda client, job: client.patch(f"/v1/jobs/{job}", json={"tags": {"team": "b"}}),
        lambda shown: shown["tags"] == {"team": "b"},
    ),
    "another tag": (
        lambda client, job: client.patch(f"/v1/jobs/{job}", json={"tags": {"x": "y"}}),
        lambda shown: shown["tags"] == {"team": "a", "x": "y"},
    ),
    "no tag": (
        lambda client, job: client.patch(f"/v1/jobs/{job}", json={"tags": {"team": None}}),
        lambda shown: shown["tags"] == {},
    ),
    "notes": (
        lambda client, job: client.patch(f"/v1/jobs/{job}", json={"notes": "# New"}),
        lambda shown: shown["notes"] == "# New",
    ),
    "archived": (
        lambda client, job: client.post(f"/v1/jobs/{job}/archive"),
        lambda shown: shown["archived_at"] is not None,
    ),
    "a run deleted": (
        lambda client, job: client.delete(
            f"/v1/runs/{client.get(f'/v1/jobs/{job}').json()['run_ids'][0]}"
        ),
        lambda shown: (shown["runs"]["succeeded"], len(shown["run_ids"])) == (1, 1),
    ),
}


@pytest.mark.parametrize(("change", "shows"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen(
    client: TestClient, ended: str, change: Callable[..., Any], shows: Callable[..., bool]
) -> None:
    assert not shows(of(client, ended))
    assert change(client, ended).is_success
    assert shows(of(client, ended))


def test_tags_are_the_same_in_whatever_order_they_lie(
    database: Database, rows: Rows, written: list[str]
) -> None:
    job = rows.job(tally=TALLY)
    tags = {"b": "1", "a": "2", "c": "3"}
    for keys in ("abc", "cab", "bca"):
        with database.write() as session:
            session.execute(delete(JobTag).where(JobTag.job_id == job))
        for key in keys:
            with database.write() as session:
                session.add(JobTag(job_id=job, key=key, value=tags[key]))
        with database.read() as session:
            if not database.is_sqlite:  # as they lie, not by their index
                for way in ("indexscan", "bitmapscan", "indexonlyscan"):
                    session.execute(text(f"set local enable_{way} = off"))
            (shown,) = json.loads(listed.page(session, [job], None))["data"]
        assert shown["tags"] == tags
    assert written == [job]


def test_a_project_is_called_by_its_new_name(client: TestClient, ended: str) -> None:
    project = client.post("/v1/projects", json={"name": "old"}).json()["id"]
    assert client.patch(f"/v1/jobs/{ended}", json={"project": "old"}).is_success
    assert of(client, ended)["project"] == "old"
    assert client.patch(f"/v1/projects/{project}", json={"name": "new"}).is_success
    assert of(client, ended)["project"] == "new"


@pytest.mark.parametrize("first", [True, False])
def test_what_changes_meanwhile_is_not_kept_as_what_it_was(
    database: Database, ended: str, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """Renamed before or after its details are read, between two looks at what has changed."""
    write = views.listed

    def called(name: str) -> None:
        with database.write() as session:
            session.get_one(Job, ended).name = name

    def renamed(session: Any, job_ids: Any) -> Any:
        if first:
            session.commit()
            called("meanwhile")
        found = write(session, job_ids)
        if not first:
            session.commit()
            called("meanwhile")
        return found

    def shown() -> str:
        with database.read() as session:
            (job,) = json.loads(listed.page(session, [ended], None))["data"]
        return str(job["name"])

    called("before")
    with monkeypatch.context() as patch:
        patch.setattr(views, "listed", renamed)
        assert shown() == ("meanwhile" if first else "before")
    assert shown() == "meanwhile"
    called("before")
    assert shown() == "before"
