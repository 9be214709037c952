"""Ablations through the queue: killed, resumed, their table and figure there to download."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from bench.harness.contract import Context, Task
from bench.paper.ablation import Ablation
from mlhf.ablation.config import MEASURES, SOLVER_VARIANTS
from mlhf.core.budget import Budget
from mlhf.core.config import Component
from mlhf.core.events import EventFile, event
from mlhf_service.database import Database
from mlhf_service.jobs import service
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.queue import attempt
from mlhf_service.queue.trainer_process import TrainerProcess
from mlhf_service.runs.models import Run
from tests.app.queue.worker import Service, kill

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

TASK: dict[str, Any] = {
    "name": "small",
    "model": {"name": "mlp", "params": {"hidden": [8]}},
    "dataset": {"name": "digits", "params": {"train_samples": 256}},
    "budget": {"steps": 40},
    "batch_size": 32,
}
JOB: dict[str, Any] = {"kind": "ablation", "name": "forms", "tasks": [TASK], "seeds": [0, 1]}


def command(folder: Path, steps: int) -> list[dict[str, str]]:
    """The same by the command, undisturbed: the rows of its table."""
    task = Task(
        TASK["name"],
        Component(**TASK["model"]),
        Component(**TASK["dataset"]),
        Budget(steps=steps),
        TASK["batch_size"],
    )
    context = Context(output=folder, seeds=(0, 1), device="cpu")
    folder.mkdir()
    ablation = Ablation("alone", [task])
    assert ablation.run(context)
    ablation.report(context)
    return rows((folder / "table.csv").read_text())


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def is_figure(content: bytes, height: int) -> bool:
    with Image.open(io.BytesIO(content)) as image:
        return image.format == "PNG" and image.size == (1050, height)


@pytest.mark.long
def test_an_ablation_that_was_killed_ends_with_the_commands_table_and_figure(
    worker: Service, client: TestClient, tmp_path: Path
) -> None:
    created = client.post("/v1/jobs", json=JOB)
    assert created.status_code == 201, created.text
    job_id, run_ids = created.json()["id"], created.json()["run_ids"]
    asked = {"job": job_id}
    assert client.get("/v1/ablations", params=asked).json() == {
        "job_id": job_id,
        "runs": 2,
        "done": 0,
        "rows": [],
    }
    early = client.get("/v1/ablations", params={**asked, "format": "csv"})
    assert (early.status_code, early.headers["content-type"]) == (409, "application/problem+json")

    killer = worker.when_checkpointed(kill)
    assert worker.work().claim.run_id == run_ids[0]
    killer.join()
    assert worker.run(run_ids[0]).status == "queued", "it was not killed before its end"
    second = worker.work()
    assert second.claim.checkpoint is not None
    step = second.claim.checkpoint.step
    assert step is not None
    assert 0 < step < 40
    assert f"attempt 2 trains from step {step}" in worker.log(run_ids[0])
    half = client.get("/v1/ablations", params=asked).json()
    assert (half["done"], {row["seeds"] for row in half["rows"]}) == (1, {1})
    worker.work()
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["kind"], job["attempts"]) == ("succeeded", "ablation", 2)
    assert [j["id"] for j in client.get("/v1/jobs?kind=ablation").json()["data"]] == [job_id]
    run = client.get(f"/v1/runs/{run_ids[1]}").json()
    assert (run["name"], run["seed"], run["optimizer"]) == ("forms: small seed 1", 1, "mlhf")
    assert run["environment"]["data_digest"]
    assert run["data"]["train_samples"] == 256
    assert worker.run(run_ids[0]).meta_checkpoint_id == "mc_shipped_mlhf_paper"

    # All seeds: what the command prints, by its own hand, undisturbed.
    alone = command(tmp_path / "alone", 40)
    table = client.get("/v1/ablations", params={**asked, "format": "csv"})
    assert table.headers["content-type"].startswith("text/csv")
    assert 'filename="ablation.csv"' in table.headers["content-disposition"]
    assert rows(table.text) == alone
    assert {(row["seeds"], row["steps"]) for row in alone} == {("2", "40")}
    markdown = client.get("/v1/ablations", params={**asked, "format": "md"}).text
    for row in alone:
        assert f"| {' | '.join(row.values())} |" in markdown.splitlines()
    assert is_figure(client.get("/v1/ablations", params={**asked, "format": "png"}).content, 620)
    numbers = client.get("/v1/ablations", params=asked).json()
    assert [row["form"] for row in numbers["rows"]] == [form.name for form in SOLVER_VARIANTS]
    for row, same in zip(numbers["rows"], alone, strict=True):
        spread = row["l_p"]
        shown = "{mean:.4f} ({lowest:.4f} to {highest:.4f})".format(**spread)
        assert shown == same["mean l_p"]
        assert f"{row['part']['mean']:.3f}" == same["part of the longest solve's"].split()[0]
        assert f"{row['residual']['mean']:.3f}" == same["mean ‖r‖/‖b‖"].split()[0]

    # Each run's own are its artifacts, and its curves are those that the table is of.
    listed = client.get(f"/v1/runs/{run_ids[0]}/artifacts").json()["data"]
    kinds = {a["name"]: a["kind"] for a in listed if a["kind"] != "checkpoint"}
    assert kinds == {
        **dict.fromkeys(("curves.csv", "curves.parquet", "curves.png"), "curves"),
        "events.out.tfevents.mlhf": "events",
        **{f"ablation.{end}": "ablation" for end in ("json", "csv", "md", "png")},
    }
    files = {name: client.get(f"/v1/runs/{run_ids[0]}/artifacts/{name}").content for name in kinds}
    own = rows(files["ablation.csv"].decode())
    assert is_figure(files["ablation.png"], 620)
    assert files["ablation.md"].decode().startswith("# forms: small seed 0\n")
    metrics = [form.metric("l_p") for form in SOLVER_VARIANTS]
    curves = client.get(f"/v1/runs/{run_ids[0]}/curves", params={"metric": metrics, "x": "steps"})
    numbers = json.loads(files["ablation.json"])
    assert numbers["steps"] == 40
    for row, form, series in zip(own, SOLVER_VARIANTS, curves.json()["series"], strict=True):
        steps, values = zip(*series["points"], strict=True)
        assert list(steps) == list(range(1, 41)), "a point was lost or doubled"
        assert row["mean l_p"] == f"{sum(values) / 40:.4f}"
        assert numbers["lines"][form.stat("l_p")] == list(values)

    page = client.get(f"/jobs/{job_id}").text
    for end in ("md", "csv", "png"):
        assert f"/v1/ablations?job={job_id}&amp;format={end}" in page
    shown = client.get(f"/runs/{run_ids[0]}").text
    assert f"/v1/runs/{run_ids[0]}/artifacts/ablation.png" in shown


@pytest.mark.slow
def test_pause_cancel_and_retry_are_those_of_any_job(
    worker: Service, client: TestClient, database: Database
) -> None:
    long = {**JOB, "tasks": [{**TASK, "budget": {"epochs": 5000}}], "seeds": [0]}
    job_id = client.post("/v1/jobs", json=long).json()["id"]

    def ask(action: str) -> Any:
        def act(pid: int) -> None:
            with database.write() as session:
                getattr(service, action)(session, job_id)

        return worker.when_checkpointed(act)

    thread = ask("pause")
    run_id = worker.work().claim.run_id
    thread.join()
    assert worker.run(run_id).status == "paused"
    assert client.post(f"/v1/jobs/{job_id}/resume").status_code == 200
    thread = ask("cancel")
    assert worker.work().claim.checkpoint is not None
    thread.join()
    assert worker.run(run_id).status == "cancelled"
    names = {a["name"] for a in client.get(f"/v1/runs/{run_id}/artifacts").json()["data"]}
    assert not {name for name in names if name.startswith("ablation")}, "a table of half a run"
    again = client.post(f"/v1/jobs/{job_id}/retry")
    assert (again.status_code, again.json()["kind"]) == (201, "ablation")
    other = {"changes": {"seeds": [4]}}
    cloned = client.post(f"/v1/jobs/{job_id}/clone", json=other).json()
    assert (cloned["spec"]["seeds"], len(cloned["run_ids"])) == ([4], 1)


@pytest.mark.long
def test_untrained_networks_and_several_tasks(worker: Service, client: TestClient) -> None:
    short = {**TASK, "budget": {"steps": 2}, "name": None}
    other = {**short, "model": {"name": "mlp", "params": {"hidden": [4]}}, "name": "other"}
    body = {"kind": "ablation", "tasks": [short, other], "meta_checkpoint": "none"}
    created = client.post("/v1/jobs", json=body)
    assert created.status_code == 201, created.text
    job = created.json()
    assert job["name"] == "ablation of the learned preconditioner: mlp-digits, other"
    for run_id in job["run_ids"]:
        assert worker.work().claim.run_id == run_id
        run = worker.run(run_id)
        assert (run.status, run.meta_checkpoint_id) == ("succeeded", None), run.error
    asked = {"job": job["id"], "format": "csv"}
    table = rows(client.get("/v1/ablations", params=asked).text)
    assert [row["task"] for row in table] == ["mlp-digits"] * 10 + ["other"] * 10
    assert is_figure(client.get("/v1/ablations", params={**asked, "format": "png"}).content, 1240)


class Diverging(TrainerProcess):
    """Tells, without a process, of three steps and a loss that is not finite."""

    last = event("finished", status="diverged", reason="", totals={}, summary={})

    def start(self, *_: Any) -> None:
        self.folder.mkdir(parents=True)
        values = {form.metric(measure): -1.0 for form in SOLVER_VARIANTS for measure in MEASURES}
        points = [
            {
                "step": k,
                "samples": 32 * k,
                "epoch": k / 8,
                "wall_seconds": 0.1 * k,
                "values": {**values, "batch_loss": math.inf if k == 3 else 1.0},
            }
            for k in (1, 2, 3)
        ]
        with EventFile(self.folder / "events.jsonl") as tell:
            tell(event("points", points=points))
            tell(self.last)

    def exit_code(self) -> int:
        return 0


def test_a_trajectory_that_diverged_is_told(
    worker: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = client.post("/v1/jobs", json={**JOB, "seeds": [0]}).json()
    monkeypatch.setattr(attempt, "TrainerProcess", Diverging)
    run = worker.run(worker.work().claim.run_id)
    assert run.status == "failed"
    assert run.error["type"] == "/problems/diverged"  # type: ignore[index]
    asked = {"job": created["id"]}
    table = client.get("/v1/ablations", params=asked).json()
    assert table["rows"][0]["l_p"] == {"mean": "NaN", "lowest": "NaN", "highest": "NaN"}
    text = client.get("/v1/ablations", params={**asked, "format": "csv"}).text
    assert {row["mean l_p"] for row in rows(text)} == {"diverged (1 of 1)"}
    assert is_figure(client.get("/v1/ablations", params={**asked, "format": "png"}).content, 620)


class Failing(Diverging):
    last = event("failed", error={"type": "memory", "title": "Not enough memory"})


def test_a_trajectory_that_failed_leaves_its_curve_and_no_table(
    worker: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = client.post("/v1/jobs", json={**JOB, "seeds": [0]}).json()["id"]
    monkeypatch.setattr(attempt, "TrainerProcess", Failing)
    run = worker.run(worker.work().claim.run_id)
    assert run.status == "failed"
    listed = client.get(f"/v1/runs/{run.id}/artifacts").json()["data"]
    assert {a["kind"] for a in listed} == {"curves", "events"}
    assert client.get("/v1/ablations", params={"job": job_id}).json()["done"] == 0


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"tasks": []}, "/tasks"),
        ({"tasks": [{**TASK, "model": {"name": "x"}}]}, "/tasks/0/model/name"),
        ({"tasks": [{**TASK, "dataset": {"name": "x"}}]}, "/tasks/0/dataset/name"),
        ({"tasks": [{**TASK, "batch_size": 999}]}, "/tasks/0/batch_size"),
        ({"tasks": [{**TASK, "budget": {}}]}, "/tasks/0/budget"),
        ({"tasks": [{**TASK, "name": "a|b"}]}, "/tasks/0/name"),
        ({"tasks": [{**TASK, "name": "=1+1"}]}, "/tasks/0/name"),
        ({"tasks": [TASK, TASK]}, "/tasks/1/name"),
        ({"tasks": [{**TASK, "optimizer": {"name": "adam"}}]}, "/tasks/0/optimizer"),
        (
            {"tasks": [{**TASK, "dataset": {"name": "digits", "root": "/etc"}}]},
            "/tasks/0/dataset/root",
        ),
        (
            {"tasks": [{**TASK, "model": {"name": "mlp", "params": {"hidden": [60000, 60000]}}}]},
            "/tasks/0/model/params",
        ),
        ({"seeds": []}, "/seeds"),
        ({"seeds": [1, 1]}, "/seeds"),
        ({"seeds": [-1]}, "/seeds/0"),
        (
            {"tasks": [{**TASK, "name": f"t{i}"} for i in range(16)], "seeds": list(range(64))},
            "/tasks",
        ),
        ({"meta_checkpoint": "../../etc/passwd"}, "/meta_checkpoint"),
        ({"meta_checkpoint": "mc_shipped_mlhf"}, "/meta_checkpoint"),
        ({"meta_checkpoint": "mc_0000"}, "/meta_checkpoint"),
        ({"meta_checkpoint": "a\x00b"}, "/meta_checkpoint"),
        ({"forms": []}, "/forms"),
        ({"model": TASK["model"]}, "/model"),
        ({"resources": {"device": "cuda"}}, "/resources/device"),
    ],
)
def test_a_bad_ablation_is_refused_and_creates_nothing(
    client: TestClient, worker: Service, changes: dict[str, Any], pointer: str
) -> None:
    response = client.post("/v1/jobs", json={**JOB, **changes})
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert any(e["pointer"] == pointer for e in response.json()["errors"]), response.text
    assert worker.all(Job) == worker.all(Run) == worker.all(Outbox) == []


def test_it_is_checked_without_being_made(client: TestClient, worker: Service) -> None:
    larger = {**TASK, "name": "larger", "model": {"name": "mlp", "params": {"hidden": [16]}}}
    body = {**JOB, "tasks": [TASK, larger]}
    estimate = client.post("/v1/jobs?validate_only=true", json=body).json()
    assert (estimate["runs"], estimate["total_steps"]) == (4, 40)
    assert estimate["parameters"] == 64 * 16 + 16 + 16 * 10 + 10
    # The measured state: ten solutions, RNN_s's state, RNN_p's of two forms, r, Adam's v.
    assert estimate["memory_bytes"] > 4 * estimate["parameters"] * (10 + 3 * 16 + 2)
    assert worker.all(Job) == []


def test_only_an_ablation_has_its_table(client: TestClient) -> None:
    train = {key: TASK[key] for key in ("model", "dataset", "budget")}
    body = {"kind": "train", "optimizer": {"name": "adam"}, **train}
    job_id = client.post("/v1/jobs", json=body).json()["id"]
    for job, status in ((job_id, 422), ("job_0", 404), ("x", 422)):
        response = client.get("/v1/ablations", params={"job": job})
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
    assert "/v1/ablations" not in client.get(f"/jobs/{job_id}").text
