"""A job in a list is the same as alone, whatever it has, on both databases."""

import json
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from mlhf_service.database import Database, now
from mlhf_service.jobs import listed, views
from mlhf_service.jobs.models import JobTag
from mlhf_service.jobs.schemas import RUN_IDS_IN_LISTS, JobView
from mlhf_service.kit.pagination import Page
from tests.app.conftest import Rows


@pytest.fixture
def jobs(rows: Rows, client: TestClient) -> list[str]:
    """A plain job, one with all that a job can have, and one of many runs, of which some wait."""
    project = client.post("/v1/projects", json={"name": "Größe"}).json()["id"]
    plain = rows.job()
    rows.run(plain)
    full = rows.job(
        kind="sweep",
        name='"quoted" \\ and ✓',
        status="failed",
        desired="cancel",
        spec={"lr": 1e-05, "deep": {"list": [1, None, True, 0.1]}, "text": "</script>"},
        error={"title": "No", "status": 422, "errors": [{"pointer": "/a", "detail": "b"}]},
        priority=-3,
        start_at=now() + timedelta(days=2),
        max_parallel_runs=2,
        retried_from="job_a",
        cloned_from="job_b",
        started_at=now(),
        finished_at=now(),
        archived_at=now(),
        project_id=project,
        notes="# Notes",
        tags=[JobTag(key=key, value=f'{key}: "✓"') for key in ("z", "a", "b")],
    )
    rows.run(full, status="failed", progress={"step": 3, "fraction": 0.5, "epoch": 1.5})
    many = rows.job(kind="sweep", status="running", started_at=now(), running_since=now())
    for position in range(RUN_IDS_IN_LISTS + 3):
        state = ("queued", "running", "succeeded")[position % 3]
        progress = {"step": 5, "total_steps": 10, "fraction": 0.5, "samples": 320, "epoch": 0.1}
        known = {"progress": progress} if position % 3 else {}
        rows.run(many, position=position, status=state, **known)
    return [plain, full, many]


def test_what_a_list_says_of_a_job(client: TestClient, jobs: list[str]) -> None:
    page = client.get("/v1/jobs?archived=any").json()
    assert page["next_cursor"] is None
    found = {job["id"]: job for job in page["data"]}
    assert set(found) == set(jobs)
    for job_id, shown in found.items():
        alone = client.get(f"/v1/jobs/{job_id}").json()
        assert list(shown) == list(JobView.model_fields)
        assert shown["run_ids"] == alone["run_ids"][:RUN_IDS_IN_LISTS]
        for one in (shown, alone):
            del one["run_ids"], one["waiting"]
            one["progress"]["eta_seconds"] = one["progress"]["eta_seconds"] is not None
        assert shown == alone
    assert list(found[jobs[1]]["tags"]) == ["a", "b", "z"]
    assert found[jobs[2]]["progress"]["eta_seconds"]


def test_a_page_is_what_its_model_says(database: Database, jobs: list[str]) -> None:
    with database.read() as session:
        made = listed.page(session, jobs[:2], 'cur"sor')
        as_models = Page(data=views.items(session, jobs[:2]), next_cursor='cur"sor')
    assert json.loads(made) == json.loads(Page[JobView].model_dump_json(as_models))
    assert Page[JobView].model_validate_json(made).model_dump(mode="json") == json.loads(made)


def test_a_job_that_is_gone_is_left_out(database: Database, jobs: list[str]) -> None:
    with database.read() as session:
        found = views.items(session, [jobs[2], "job_gone", jobs[0]])
    assert [job.id for job in found] == [jobs[2], jobs[0]]
