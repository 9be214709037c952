"""The commands on projects."""

import json

import pytest
from fastapi.testclient import TestClient

from mlhf_service.client import ServiceError
from tests.app.cli.conftest import Call
from tests.app.conftest import Rows

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_projects_are_made_filled_renamed_and_deleted(
    call: Call, client: TestClient, rows: Rows
) -> None:
    job = rows.job()
    run = rows.run(job)
    made = json.loads(
        call("projects", "create", "vision", "--description", "ours", "--json").output
    )
    assert (
        call("projects", "move", "vision", job).output.splitlines()[0] == f"moved {job} to vision"
    )
    assert client.get(f"/v1/runs/{run}").json()["project"] == "vision"
    assert run in call("runs", "--project", "vision").output
    listed = call("projects", "list").output
    assert all(part in listed for part in ("vision", "ours", made["id"]))
    refused = call("projects", "delete", "vision")
    assert "1 jobs are in the project" in str(refused.exception)
    call("projects", "change", made["id"], "--name", "pictures")
    assert client.get(f"/v1/jobs/{job}").json()["project"] == "pictures"
    assert "archived" in call("projects", "archive", "pictures").output
    assert "pictures" not in call("projects", "list").output
    assert "pictures" in call("projects", "list", "--archived").output
    assert (
        json.loads(call("projects", "unarchive", "pictures", "--json").output)["archived_at"]
        is None
    )
    call("projects", "move", "default", job)
    assert call("projects", "delete", "pictures").output == "deleted pictures\n"
    assert json.loads(call("projects", "list", "--json").output) == []


def test_a_project_that_there_is_not_is_named(call: Call) -> None:
    call("projects", "create", "vision")
    answer = call("projects", "archive", "visoin")
    assert isinstance(answer.exception, ServiceError)
    assert "unknown project 'visoin'; did you mean 'vision'?" in str(answer.exception)
    assert call("projects", "change", "vision").exit_code == 2
