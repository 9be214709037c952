"""The commands that delete, archive and retain, and that show the workers."""

import json

import pytest
from fastapi.testclient import TestClient

from mlhf_service.client import ServiceError
from tests.app.cli.conftest import Call
from tests.app.conftest import Rows


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_delete_and_archive(call: Call, client: TestClient, rows: Rows) -> None:
    job = rows.job(status="failed")
    rows.run(job, status="failed")
    running = rows.job(status="running")
    rows.run(running, status="running")
    assert call("archive", job).output == f"archived {job}\n"
    assert client.get(f"/v1/jobs/{job}").json()["archived_at"]
    call("unarchive", job)
    tried = call("delete", "--status", "failed")
    assert tried.output == f"would delete {job}\nNothing was deleted: add --yes.\n"
    assert client.get(f"/v1/jobs/{job}").status_code == 200
    done = call("delete", job, running, "--yes")
    assert done.exit_code == 1, "one was kept"
    assert f"deleted {job}" in done.output
    assert f"kept {running}: 1 run of it has not ended" in done.output
    assert call("delete", running, "--cancel", "--yes").exit_code == 0
    assert client.get("/v1/jobs").json()["data"] == []
    refused = call("delete", "--yes")
    assert refused.exit_code == 2, "an empty filter would mean all jobs"
    assert "give ids, or --filter" in refused.output


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_retention_and_workers(call: Call, rows: Rows) -> None:
    from mlhf_service.database import now

    job = rows.job(finished_at=now())
    rows.run(job)
    rule = json.dumps({"keep_newest": 0})
    assert call("retention", "preview", rule).output.splitlines() == [
        job,
        "1 in all, 0 bytes of files",
    ]
    identity = call("retention", "add", "mine", rule).output.strip()
    assert "mine" in call("retention", "list").output
    assert call("retention", "run", identity).output == "1 dropped\n"
    assert json.loads(call("workers", "--json").output)["workers"] == []
    assert isinstance(call("retention", "preview", "{").exception, ServiceError)
