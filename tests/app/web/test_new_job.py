"""The page to start a job: by its form, as JSON, and without scripts."""

import json
from html import unescape
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.web.views import FIRST_JOB
from tests.app.conftest import Rows
from tests.app.web.conftest import Watched


def test_without_scripts_json_is_submitted(client: TestClient) -> None:
    answer = client.post("/new", data={"spec": json.dumps(FIRST_JOB)}, follow_redirects=False)
    assert answer.status_code == 303
    assert client.get(answer.headers["location"]).status_code == 200
    assert len(client.get("/v1/runs").json()["data"]) == 6


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("{", "This is not JSON"),
        ('{"kind": "train"}', "model"),
        (json.dumps({**FIRST_JOB, "budget": {"epochs": -1}}), "epochs"),
        (json.dumps({**FIRST_JOB, "model": {"name": "mpl"}}), "/model"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_lost(
    client: TestClient, spec: str, told: str
) -> None:
    answer = client.post("/new", data={"spec": spec})
    assert answer.status_code in (400, 422)
    html = unescape(answer.text)
    assert told in html.partition('role="alert">')[2].partition("</p>")[0]
    assert spec in html
    assert client.get("/v1/jobs").json()["data"] == []


def test_a_clone_begins_with_what_was_asked_for(client: TestClient) -> None:
    job = client.post("/v1/jobs", json={**FIRST_JOB, "batch_size": 77}).json()
    html = client.get(f"/new?from={job['id']}").text
    assert '"batch_size": 77' in unescape(html)
    assert "Clone with changes" in html
    assert f'href="/new?from={job["id"]}"' in client.get(f"/jobs/{job['id']}").text
    assert client.get("/new?from=job_none").status_code == 404


def test_seconds_are_estimated_by_runs_of_the_same_kind(client: TestClient, rows: Rows) -> None:
    def seconds() -> Any:
        return client.post("/v1/jobs?validate_only=true", json=FIRST_JOB).json()["seconds"]

    assert seconds() is None
    for optimizer in ("momentum", "adam", "hf_adam"):
        rows.run(optimizer=optimizer, totals={"steps": 100, "wall_seconds": 2.0})
    steps = client.post("/v1/jobs?validate_only=true", json=FIRST_JOB).json()["total_steps"]
    assert seconds() == pytest.approx(steps * 6 * 0.02)


def test_form_json_and_code_are_one_document(watched: Watched, url: str) -> None:
    page = watched.page
    page.goto(f"{url}/new")
    page.get_by_text("Valid: 6 runs").wait_for()
    page.locator('[data-pointer="/budget/epochs"]').fill("3")
    assert json.loads(page.locator("#spec").input_value())["budget"] == {"epochs": 3}
    page.get_by_role("button", name="Python").click()
    assert "client.submit({" in page.locator("#code").inner_text()
    page.get_by_role("button", name="JSON").click()
    page.locator("#kind").select_option("train")
    page.get_by_text("Valid: 1 run,").wait_for()
    page.locator('[data-pointer="/loss/name"]').select_option("cross_entropy")
    page.get_by_text("Valid: 1 run,").wait_for()
    page.locator('[data-pointer="/loss/name"]').select_option("")
    assert "loss" not in json.loads(page.locator("#spec").input_value())
    page.locator('[data-pointer="/optimizer/name"]').select_option("adam")
    page.get_by_text("Valid: 1 run,").wait_for()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/jobs/job_*")
    assert watched.wrong == []


def test_a_wrong_value_is_told_at_its_field(watched: Watched, url: str) -> None:
    page = watched.page
    page.goto(f"{url}/new")
    page.get_by_text("Valid: 6 runs").wait_for()
    page.locator('[data-pointer="/batch_size"]').fill("many")
    page.locator('[data-pointer="/batch_size"][aria-invalid=true]').wait_for()
    assert page.get_by_role("button", name="Start").is_disabled()
    spec = json.loads(page.locator("#spec").input_value())
    page.locator("#spec").fill(json.dumps({**spec, "batch_size": 32}))
    page.get_by_text("Valid: 6 runs").wait_for()
    assert page.locator('[data-pointer="/batch_size"]').input_value() == "32"
    assert [one for one in watched.wrong if "422" not in one] == []
