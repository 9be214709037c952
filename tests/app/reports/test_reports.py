"""Reports are one file, which loads nothing and runs nothing."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient


@pytest.fixture
def run_ids(rows: Any) -> list[str]:
    job = rows.job(name="a <b>job</b>")
    ids = [rows.run(job, name=f"run {seed} <script>", position=seed) for seed in (0, 1)]
    for number, run_id in enumerate(ids):
        rows.points(run_id, "train_loss", {0: 2.0, 10: 1.0 / (number + 1)})
    return ids


def get(client: TestClient, **params: Any) -> str:
    answer = client.get("/v1/reports", params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert "attachment" in answer.headers["content-disposition"]
    return answer.text


def check_alone(text: str) -> None:
    assert "<script" not in text
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "data:image/png;base64,iVBOR" in text


def test_a_run(client: TestClient, run_ids: list[str]) -> None:
    text = get(client, run=run_ids[0])
    check_alone(text)
    assert "run 0 &lt;script&gt;" in text
    assert run_ids[0] in text
    assert "Configuration" in text


def test_a_comparison(client: TestClient, run_ids: list[str]) -> None:
    text = get(client, run=run_ids, target=0.6)
    check_alone(text)
    assert "2 runs compared" in text
    assert "samples to target" in text
    job = client.get(f"/v1/runs/{run_ids[0]}").json()["job_id"]
    assert "a &lt;b&gt;job&lt;/b&gt;" in get(client, job=job)


def test_what_is_not_there_is_said(client: TestClient) -> None:
    assert client.get("/v1/reports", params={"run": "run_absent"}).status_code == 404
    assert client.get("/v1/reports").status_code == 422
