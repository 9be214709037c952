"""A sweep over a differential equation, from its job to its comparison and its pictures."""

import urllib.request
from typing import Any

import pytest

from tests.service.conftest import Serving
from tests.waiting import DEADLINE

pytestmark = pytest.mark.services

PNG = b"\x89PNG"
JOB: dict[str, Any] = {
    "kind": "sweep",
    "model": {"name": "mlp", "params": {"hidden": [8], "activation": "tanh"}},
    "dataset": {
        "name": "pde",
        "params": {
            "equation": "heat",
            "points": {"interior": 60, "boundary": 20, "initial": 20},
            "test_points": 100,
            "resample_every": 2,
        },
    },
    "optimizers": [{"name": "gauss_newton"}, {"name": "adam", "grid": {"lr": [0.01]}}],
    "seeds": [0],
    "budget": {"steps": 30},
    "target": {"metric": "test_relative_l2", "value": 0.05},
}


@pytest.mark.long
def test_an_equation_is_solved_by_a_sweep_and_compared(serving: Serving) -> None:
    process = serving.start("serve")
    serving.wait_until_ready()
    client = serving.client
    job = client.submit(JOB)
    done = client.wait(job["id"], timeout=DEADLINE)
    assert done["status"] == "succeeded", done

    compared = client.get("/v1/comparisons", job=job["id"])
    assert (compared["metric"], compared["target"]) == ("test_relative_l2", 0.05)
    final = {run["run_id"]: run for run in compared["runs"]}
    solved, *others = done["run_ids"]
    assert final[solved]["to_target"] is not None
    assert len(others) == 1

    run = client.get(f"/v1/runs/{solved}")
    assert run["summary"]["test_relative_l2"]["last"] < 0.05
    assert run["config"]["dtype"] == "float64"
    steps = client.get(f"/v1/runs/{solved}/curves", metric="test_relative_l2", x="steps")
    assert [point[0] for point in steps["series"][0]["points"]] == [0, 10, 20, 30]

    base = f"http://127.0.0.1:{serving.port}"
    with urllib.request.urlopen(f"{base}/v1/runs/{solved}/artifacts/solution.png") as answer:
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.read().startswith(PNG)
    with urllib.request.urlopen(f"{base}/runs/{solved}") as answer:
        page = answer.read().decode()
    assert f'src="/v1/runs/{solved}/artifacts/solution.png"' in page
    with urllib.request.urlopen(f"{base}/compare?job={job['id']}") as answer:
        assert "relative" in answer.read().decode()

    rows: list[Any] = [{"x": 0.5, "t": 0.0}, {"x": 0.5, "t": 1.0}]
    found = client.request_json("POST", f"/v1/models/{solved}/predict", json={"rows": rows})[
        "predictions"
    ]
    assert found[0][0] == pytest.approx(1.0, abs=0.1)
    assert found[1][0] == pytest.approx(0.3727, abs=0.1)  # exp(−π²/10)
    assert serving.stop(process) == 0
