"""Jobs on differential equations: what is accepted, with which defaults, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from mlhf_service.database import Database
from mlhf_service.runs.models import Run

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "science.md").read_text(encoding="utf-8")
JOBS = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
TANH = {"name": "mlp", "params": {"hidden": [8], "activation": "tanh"}}
TRAIN: dict[str, Any] = {
    "kind": "train",
    "model": TANH,
    "dataset": {"name": "pde"},
    "optimizer": {"name": "gauss_newton"},
    "budget": {"steps": 10},
}


def test_jobs_of_the_documentation_are_accepted(client: TestClient) -> None:
    assert len(JOBS) == 5
    for job in JOBS:
        answer = client.post("/v1/jobs?validate_only=true", json=job)
        assert answer.status_code == 200, answer.text


def test_a_run_is_recorded_with_what_was_chosen_for_it(
    client: TestClient, database: Database
) -> None:
    assert client.post("/v1/jobs", json=TRAIN).status_code == 201
    with database.read() as session:
        config = session.scalars(select(Run)).one().config
    assert (config["batch_size"], config["dtype"]) == (1020, "float64")
    assert config["evaluation"]["every_epochs"] == 10
    single = client.post("/v1/jobs", json={**TRAIN, "dtype": "float32"}).json()
    assert client.get(f"/v1/runs/{single['run_ids'][0]}").json()["config"]["dtype"] == "float32"
    spec = client.get(f"/v1/jobs/{single['id']}").json()["spec"]
    assert (spec["dtype"], spec.get("batch_size")) == ("float32", None)
    estimate = client.post("/v1/jobs?validate_only=true", json=TRAIN).json()
    assert (estimate["input_shape"], estimate["test_samples"]) == ([2], 4096)
    assert estimate["total_steps"] == 10


def test_memory_grows_with_the_derivatives_that_are_taken(client: TestClient) -> None:
    def memory(dimension: int) -> int:
        params = {"dimension": dimension, "points": {"interior": 20_000}}
        job = {**TRAIN, "optimizer": {"name": "adam"}}
        job |= {"dataset": {"name": "pde", "params": params}}
        return int(client.post("/v1/jobs?validate_only=true", json=job).json()["memory_bytes"])

    assert memory(50) - memory(2) > 48 * 20_000 * 8 * 8


@pytest.mark.parametrize(
    ("change", "pointer", "words"),
    [
        ({"optimizer": {"name": "gauss_newton", "params": {"memory_bytes": 7}}},
         "/optimizer/params/memory_bytes", "take mlhf"),
        ({"dataset": {"name": "pde", "params": {"equation": "heat", "dimension": 0}}},
         "/dataset/params/dimension", "1"),
        ({"dataset": {"name": "pde", "params": {"equation": "poison"}}},
         "/dataset/params/equation", "poisson"),
        ({"dataset": {"name": "pde", "params": {"solution": "__import__('os')"}}},
         "/dataset/params", "__import__"),
        ({"dataset": {"name": "pde", "params": {"solution": "sqrt(x-2)"}}},
         "/dataset/params/solution", "no finite value"),
        ({"model": {"name": "mlp"}}, "/model/params/activation", "tanh"),
        ({"batch_size": 64}, "/batch_size", "all 1,020 points"),
        ({"optimizer": {"name": "kfac"}}, "/optimizer/params/fisher", "empirical"),
        ({"target": {"metric": "train_relative_l2", "value": 1}}, "/target/metric",
         "test_relative_l2"),
        ({"dataset": {"name": "pde", "params": {"source": "1"}},
          "target": {"metric": "test_relative_l2", "value": 1}}, "/target/metric",
         "no solution"),
        ({"evaluation": {"samples": 10}}, "/evaluation", "test_points"),
    ],
)  # fmt: skip
def test_what_cannot_be_solved_is_refused(
    client: TestClient, change: dict[str, Any], pointer: str, words: str
) -> None:
    answer = client.post("/v1/jobs", json={**TRAIN, **change})
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert words in error["detail"]


def test_other_kinds_refuse_equations(client: TestClient) -> None:
    task = {"model": TANH, "dataset": {"name": "pde"}}
    for job in (
        {"kind": "ablation", "tasks": [{**task, "budget": {"steps": 2}}]},
        {"kind": "meta_train", "optimizer": "mlhf", "tasks": [task], "iterations": 2},
    ):
        answer = client.post("/v1/jobs", json=job)
        assert answer.status_code == 422, answer.text
        found = {e["pointer"]: e["detail"] for e in answer.json()["errors"]}
        assert "kinds train and sweep" in found["/tasks/0/dataset/name"], found
