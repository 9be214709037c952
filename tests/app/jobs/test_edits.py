"""Jobs and runs are renamed, tagged, noted, moved to projects and archived, one or many."""

from fastapi.testclient import TestClient

from tests.app.conftest import Rows

JOB = {
    "kind": "sweep",
    "name": "mine",
    "model": {"name": "mlp"},
    "dataset": {"name": "digits"},
    "optimizers": [{"name": "adam"}],
    "seeds": [0, 1],
    "budget": {"steps": 5},
    "tags": {"team": "vision"},
}


def test_a_job_is_changed_with_its_runs(client: TestClient) -> None:
    job = client.post("/v1/jobs", json=JOB).json()
    assert client.get("/v1/runs?filter=tags.team=vision").json()["data"]
    change = {"name": "ours", "tags": {"team": None, "use": "paper"}, "notes": "# Why\n<b>"}
    changed = client.patch(f"/v1/jobs/{job['id']}", json=change).json()
    assert (changed["name"], changed["tags"]) == ("ours", {"use": "paper"})
    assert changed["notes"] == "# Why\n<b>"
    assert client.get("/v1/runs?filter=tags.team=vision").json()["data"] == []
    runs = client.get("/v1/runs?filter=tags.use=paper").json()["data"]
    assert sorted(run["name"] for run in runs) == ["ours: adam seed 0", "ours: adam seed 1"]


def test_a_run_is_changed_alone(client: TestClient) -> None:
    first, second = client.post("/v1/jobs", json=JOB).json()["run_ids"]
    changed = client.patch(f"/v1/runs/{first}", json={"tags": {"best": "yes"}, "name": "it"})
    assert changed.json()["tags"] == {"team": "vision", "best": "yes"}
    assert [r["id"] for r in client.get("/v1/runs?tag=best:yes").json()["data"]] == [first]
    assert client.get(f"/v1/runs/{second}").json()["tags"] == {"team": "vision"}
    assert client.patch(f"/v1/runs/{first}", json={}).status_code == 422
    assert client.patch(f"/v1/runs/{first}", json={"archived": True}).status_code == 409


def test_projects_group_jobs(client: TestClient) -> None:
    refused = client.post("/v1/jobs", json={**JOB, "project": "visoin"})
    assert refused.status_code == 422
    made = client.post("/v1/projects", json={"name": "vision", "description": "*all*"})
    assert made.status_code == 201
    assert client.post("/v1/projects", json={"name": "vision"}).status_code == 409
    hint = client.post("/v1/jobs", json={**JOB, "project": "visoin"}).json()["detail"]
    assert "did you mean 'vision'?" in hint
    inside = client.post("/v1/jobs", json={**JOB, "project": "vision"}).json()
    outside = client.post("/v1/jobs", json=JOB).json()
    assert (inside["project"], outside["project"]) == ("vision", "default")
    for path in ("jobs", "runs"):
        listed = client.get(f"/v1/{path}?project=vision").json()["data"]
        assert {each.get("job_id", each["id"]) for each in listed} == {inside["id"]}
        assert {each["project"] for each in listed} == {"vision"}
    address = made.headers["Location"]
    client.patch(address, json={"name": "sight", "archived": True})
    assert client.get("/v1/projects").json()["data"] == []
    assert client.get("/v1/projects?archived=true").json()["data"][0]["jobs"] == 1
    assert client.get(f"/v1/jobs/{inside['id']}").json()["project"] == "sight"
    assert client.post("/v1/jobs", json={**JOB, "project": "sight"}).status_code == 422
    assert client.delete(address).status_code == 409
    client.patch(f"/v1/jobs/{inside['id']}", json={"project": "default"})
    assert client.delete(address).status_code == 204


def test_many_are_changed_at_once_or_none(client: TestClient, rows: Rows) -> None:
    done = rows.run(status="succeeded")
    waiting = rows.run(status="queued")
    both = {"ids": [done, waiting], "changes": {"archived": True}}
    refused = client.post("/v1/edits", json=both)
    assert (refused.status_code, waiting in refused.json()["detail"]) == (409, True)
    assert client.get(f"/v1/runs/{done}").json()["archived_at"] is None
    by_filter = {"filter": "status = succeeded", "changes": {"tags": {"kept": "yes"}}}
    dry = client.post("/v1/edits", json={**by_filter, "dry_run": True}).json()
    assert dry == {"dry_run": True, "changed": [done], "more": False}
    assert client.get(f"/v1/runs/{done}").json()["tags"] == {}
    client.post("/v1/edits", json=by_filter)
    assert client.get(f"/v1/runs/{done}").json()["tags"] == {"kept": "yes"}


def test_runs_are_deleted_by_filter(client: TestClient, rows: Rows) -> None:
    job_id = rows.job()
    kept = rows.run(job_id, seed=0)
    dropped = rows.run(job_id, seed=1, position=1)
    asked = {"runs": "seed = 1"}
    dry = client.post("/v1/deletions", json=asked).json()
    assert (dry["dry_run"], dry["deleted"]) == (True, [dropped])
    client.post("/v1/deletions", json={**asked, "dry_run": False})
    assert [run["id"] for run in client.get("/v1/runs").json()["data"]] == [kept]
