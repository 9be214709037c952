"""Comparisons over HTTP, with numbers computed by hand."""

import csv
import io
import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

SETTINGS: dict[str, dict[str, float]] = {"adam": {"lr": 0.25}, "hf": {}}
TARGET = {"metric": "train_loss", "value": 0.5}


@pytest.fixture
def job(rows: Any) -> str:
    """Adam on two seeds, both reaching 0.5; HF on two, of which one misses it."""
    job = rows.job()
    curves = [
        ("adam", 0, {0: 4.0, 10: 1.0, 20: 0.5, 30: 0.4}, 1.0),
        ("adam", 1, {0: 2.0, 10: 0.5, 20: 0.3, 30: 0.6}, 1.0),
        ("hf", 0, {0: 4.0, 10: 0.2, 20: 0.1, 30: 0.1}, 4.0),
        ("hf", 1, {0: 4.0, 10: 0.9, 20: 0.8, 30: math.nan}, 4.0),
    ]
    for position, (optimizer, seed, values, seconds) in enumerate(curves):
        run = rows.run(
            job,
            position=position,
            optimizer=optimizer,
            name=f"=cmd {optimizer}",
            dataset="ds_01",
            dataset_name="flowers",
            config={
                "seed": seed,
                "target": TARGET,
                "optimizer": {"name": optimizer, "params": SETTINGS[optimizer]},
            },
        )
        rows.points(run, "train_loss", values, seconds, cpu=1.5 if optimizer == "adam" else 0.5)
        rows.points(run, "test_accuracy", {0: 0.1, 30: 0.9 + seed / 100}, seconds)
    return str(job)


def _get(client: TestClient, **params: Any) -> Any:
    response = client.get("/v1/comparisons", params=params)
    assert response.status_code == 200, response.text
    return response.json()


def test_runs_by_hand(client: TestClient, job: str) -> None:
    body = _get(client, job=job)
    assert (body["metric"], body["target"]) == ("train_loss", 0.5)
    a0, a1, h0, h1 = body["runs"]
    assert a0["params"]["optimizer.lr"] == 0.25
    assert (a0["dataset"], a0["dataset_name"]) == ("ds_01", "flowers")
    assert a0["to_target"] == {
        "step": 20,
        "samples": 200,
        "epoch": 2.0,
        "wall_seconds": 20.0,
        "cpu_seconds": 30.0,
    }
    assert a1["to_target"]["step"] == 10
    assert h0["to_target"] == {
        "step": 10,
        "samples": 100,
        "epoch": 1.0,
        "wall_seconds": 40.0,
        "cpu_seconds": 5.0,
    }
    assert h1["to_target"] is None
    assert [run["target_status"] for run in body["runs"]] == ["reached"] * 3 + ["missed"]
    assert (a1["final_loss"], a1["best_loss"]) == (0.6, 0.3)
    assert (h1["final_loss"], h1["best_loss"]) == ("NaN", 0.8)
    assert (a1["final_accuracy"], a1["best_accuracy"]) == (0.91, 0.91)
    assert a0["ratio_to_best"] == {
        "final_loss": pytest.approx(4.0),
        "best_loss": pytest.approx(4.0),
        "final_accuracy": pytest.approx(0.9 / 0.91),
        "best_accuracy": pytest.approx(0.9 / 0.91),
        "steps": 2.0,
        "samples": 2.0,
        "wall_seconds": 2.0,
        "cpu_seconds": 6.0,
    }
    assert h0["ratio_to_best"]["final_loss"] == 1.0
    assert h0["ratio_to_best"]["wall_seconds"] == 4.0
    assert h1["ratio_to_best"]["samples"] is None
    assert h1["ratio_to_best"]["final_loss"] is None


def test_groups_by_hand(client: TestClient, job: str) -> None:
    adam, hf = _get(client, job=job)["groups"]
    assert (adam["label"], adam["n"], adam["seeds"]) == ("adam", 2, [0, 1])
    assert adam["final_loss"] == {
        "n": 2,
        "missing": 0,
        "unfinished": 0,
        "mean": 0.5,
        "std": pytest.approx(math.sqrt(0.02)),
        "min": 0.4,
        "max": 0.6,
    }
    assert adam["to_target"]["missed"] == 0
    assert adam["to_target"]["samples"]["mean"] == 150
    assert adam["to_target"]["wall_seconds"]["mean"] == 15
    assert adam["curve"]["mean"] == [3.0, 0.75, 0.4, 0.5]
    assert adam["curve"]["samples"] == [0, 100, 200, 300]

    assert hf["to_target"]["missed"] == 1
    assert hf["to_target"]["samples"]["mean"] is None
    assert hf["to_target"]["samples"]["min"] == 100
    assert (hf["final_loss"]["missing"], hf["final_loss"]["mean"]) == (1, None)
    assert hf["best_loss"]["mean"] == pytest.approx(0.45)
    assert hf["curve"]["mean"][3] is None


def test_a_target_and_metric_of_ones_own(client: TestClient, job: str) -> None:
    body = _get(client, job=job, target=0.3)
    assert [r["to_target"] and r["to_target"]["step"] for r in body["runs"]] == [None, 20, 10, None]
    body = _get(client, job=job, metric="test_accuracy", target=0.905)
    assert [r["to_target"] and r["to_target"]["step"] for r in body["runs"]] == [None, 30, None, 30]
    assert [r["ratio_to_best"]["final_accuracy"] for r in body["runs"]][1] == 1.0
    body = _get(client, job=job, metric="test_accuracy")
    assert body["target"] is None  # the common target is one of another metric
    assert body["groups"][0]["to_target"] is None


def test_the_common_target_is_used_only_if_common(client: TestClient, rows: Any, job: str) -> None:
    ids = [run["run_id"] for run in _get(client, job=job)["runs"]]
    assert _get(client, run=ids[:2])["target"] == 0.5
    assert _get(client, run=[ids[0], rows.run()])["target"] is None


def test_csv(client: TestClient, job: str) -> None:
    response = client.get("/v1/comparisons", params={"job": job, "format": "csv"})
    assert response.headers["content-type"].startswith("text/csv")
    table = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["optimizer.lr"] for row in table] == ["0.25"] * 2 + [""] * 2
    assert [row["samples_to_target"] for row in table] == ["200", "100", "100", ""]
    assert [row["seconds_to_target"] for row in table] == ["20.0", "10.0", "40.0", ""]
    assert [row["cpu_seconds_to_target"] for row in table] == ["30.0", "15.0", "5.0", ""]
    assert [row["target_status"] for row in table] == ["reached"] * 3 + ["missed"]
    assert table[3]["final_train_loss"] == "NaN"
    assert table[0]["final_test_accuracy"] == "0.9"
    assert table[0]["final_test_loss"] == ""
    assert not [name for name in table[0] if name.startswith(("final_loss", "final_acc"))]
    assert table[0]["name"] == "'=cmd adam"
    assert table[0]["samples_ratio"] == "2.0"


def test_every_number_names_its_split(client: TestClient, rows: Any, job: str) -> None:
    body = _get(client, job=job)
    assert (body["loss_metric"], body["accuracy_metric"]) == ("train_loss", "test_accuracy")
    assert body["runs"][0]["measures"] == {
        "train_loss": {"final": 0.4, "best": 0.4, "final_ratio": 4.0, "best_ratio": 4.0},
        "test_accuracy": {
            "final": 0.9,
            "best": 0.9,
            "final_ratio": pytest.approx(0.9 / 0.91),
            "best_ratio": pytest.approx(0.9 / 0.91),
        },
    }
    adam = body["groups"][0]["measures"]
    assert adam["test_accuracy"]["final"]["mean"] == pytest.approx(0.905)
    by_test = _get(client, job=job, metric="test_accuracy")
    assert (by_test["loss_metric"], by_test["accuracy_metric"]) == ("test_loss", "test_accuracy")
    assert by_test["runs"][0]["final_loss"] is None, "no test loss was measured"
    assert by_test["runs"][0]["measures"] == body["runs"][0]["measures"]


@pytest.fixture
def unfinished(rows: Any) -> str:
    """Three seeds: one has reached the target, one trains, one waits."""
    job = rows.job(kind="sweep", status="running")
    for seed, status in enumerate(["succeeded", "running", "queued"]):
        run = rows.run(job, position=seed, status=status, config={"seed": seed, "target": TARGET})
        if status != "queued":
            values = {0: 2.0, 10: 0.4} if status == "succeeded" else {0: 2.0, 10: 1.0}
            rows.points(run, "train_loss", values)
    return str(job)


def test_a_run_that_goes_on_has_not_missed_its_target(client: TestClient, unfinished: str) -> None:
    body = _get(client, job=unfinished)
    assert [r["target_status"] for r in body["runs"]] == ["reached", "unfinished", "unfinished"]
    (group,) = body["groups"]
    to = group["to_target"]
    assert (to["reached"], to["missed"], to["unfinished"]) == (1, 0, 2)
    assert (to["samples"]["mean"], to["samples"]["n"], to["samples"]["unfinished"]) == (100, 1, 2)
    assert group["final_loss"]["mean"] == pytest.approx(0.7), "of the two that have one"
    assert (group["final_loss"]["unfinished"], group["final_loss"]["missing"]) == (1, 0)
    assert group["curve"]["mean"] == [2.0, 0.7], "what waits hides nothing"
    text = client.get("/v1/comparisons", params={"job": unfinished, "format": "csv"}).text
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["target_status"] for row in table] == ["reached", "unfinished", "unfinished"]


def test_runs_of_one_seed_are_not_seeds(client: TestClient, rows: Any) -> None:
    job = rows.job()
    for position, (seed, loss, seconds) in enumerate([(0, 0.2, 1.0), (0, 0.4, 3.0), (1, 0.6, 1.0)]):
        run = rows.run(job, position=position, config={"seed": seed, "target": TARGET})
        rows.points(run, "train_loss", {0: 2.0, 10: loss}, seconds)
    body = _get(client, job=job)
    (group,) = body["groups"]
    assert (group["n"], group["repeats"], group["seeds"]) == (2, 1, [0, 1])
    assert len(group["run_ids"]) == 3
    assert group["final_loss"]["n"] == 2
    assert group["final_loss"]["mean"] == pytest.approx(0.45), "of 0.3 and 0.6"
    assert group["final_loss"]["std"] == pytest.approx(0.3 / math.sqrt(2))
    assert group["to_target"]["missed"] == 1, "one seed of two"
    assert "repeats" in _codes(body)
    repeated = body["warnings"][_codes(body).index("repeats")]["run_ids"]
    assert repeated == group["run_ids"][1:2]
    svg = client.get("/v1/comparisons", params={"job": job, "format": "svg"}).text
    assert "(2 seeds, 3 runs)" in svg


def test_repeats_of_a_single_seed_have_no_deviation(client: TestClient, rows: Any) -> None:
    runs = [rows.run(), rows.run(), rows.run(optimizer="hf")]
    for run, loss in zip(runs, (0.2, 0.4, 0.6), strict=True):
        rows.points(run, "train_loss", {0: 2.0, 10: loss})
    body = _get(client, run=runs)
    assert (body["groups"][0]["n"], body["groups"][0]["final_loss"]["std"]) == (1, None)
    assert {"repeats", "single_seed"} <= set(_codes(body))
    single = body["warnings"][_codes(body).index("single_seed")]
    assert single["message"].startswith("2 of 2"), "repeats do not make it several seeds"


@pytest.fixture
def diverged(rows: Any) -> str:
    """Two seeds whose evaluations are finite; the first diverged between two of them."""
    job = rows.job()
    end = {"steps": 15, "samples": 150, "epochs": 1.5, "wall_seconds": 7.5, "cpu_seconds": 9.0}
    fields = {"status": "failed", "error": {"type": "/problems/diverged"}, "totals": end}
    for seed in range(2):
        run = rows.run(job, position=seed, config={"seed": seed}, **({} if seed else fields))
        rows.points(
            run, "train_loss", {0: 2.0, 10: 1.0} if seed == 0 else {0: 2.0, 10: 1.0, 20: 0.5}
        )
    return str(job)


def test_a_run_that_diverged_has_no_final_value(client: TestClient, diverged: str) -> None:
    body = _get(client, job=diverged, target=0.1)
    first, second = body["runs"]
    assert (first["final_loss"], first["best_loss"]) == ("NaN", 1.0)
    assert first["diverged_at"]["step"] == 15
    assert second["diverged_at"] is None
    assert [run["target_status"] for run in body["runs"]] == ["missed", "missed"]
    assert body["groups"][0]["final_loss"]["mean"] is None
    assert (body["groups"][0]["final_loss"]["missing"]) == 1
    svg = client.get("/v1/comparisons", params={"job": diverged, "format": "svg"}).text
    assert "2 seeds, 1 diverged" in svg


SHARED = {"steps": 10, "samples": 100, "epochs": 1.0, "wall_seconds": 5.0, "processor_share": 0.5}


@pytest.mark.parametrize(
    ("share", "device", "shared"),
    [(0.5, "cpu", True), (0.79, "cpu", True), (0.81, "cpu", False), (0.5, "cuda", False)],
)
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_shared_machine_is_told(
    client: TestClient, rows: Any, share: float, device: str, shared: bool, threads: int
) -> None:
    environment = {"device": device, "threads": threads}
    runs = [
        rows.run(environment=environment, totals={**SHARED, "processor_share": 1.0}),
        rows.run(
            environment=environment, totals={**SHARED, "processor_share": share}, config={"seed": 1}
        ),
    ]
    body = _get(client, run=runs)
    assert ("shared_machine" in _codes(body)) is shared
    if shared:
        warning = body["warnings"][_codes(body).index("shared_machine")]
        assert warning["run_ids"] == [runs[1]]
        assert "cpu_seconds" in warning["message"]
    assert body["runs"][1]["processor_share"] == share


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_runs_without_cpu_seconds_are_named(client: TestClient, rows: Any) -> None:
    runs = [rows.run(), rows.run(config={"seed": 1})]
    for run in runs:
        rows.points(run, "train_loss", {0: 2.0, 10: 1.0})
    assert "cpu_seconds" not in _codes(_get(client, run=runs))
    by_cpu = _get(client, run=runs, x="cpu_seconds")
    assert by_cpu["warnings"][_codes(by_cpu).index("cpu_seconds")]["run_ids"] == runs
    newer = rows.run(config={"seed": 2}, environment={"device": "cuda"})
    rows.points(newer, "train_loss", {0: 2.0, 10: 1.0}, cpu=1.0)
    mixed = _get(client, run=[*runs, newer])
    assert mixed["warnings"][_codes(mixed).index("cpu_seconds")]["run_ids"] == runs
    by_cpu = _get(client, run=[*runs, newer], x="cpu_seconds")
    gpu = [w for w in by_cpu["warnings"] if "GPU" in w["message"]]
    assert [w["run_ids"] for w in gpu] == [[newer]]


def _codes(body: Any) -> list[str]:
    return [warning["code"] for warning in body["warnings"]]


def test_like_runs_give_no_warnings(client: TestClient, rows: Any) -> None:
    job = rows.job()
    for position in range(4):
        run = rows.run(
            job,
            position=position,
            optimizer=("adam", "hf")[position // 2],
            config={"seed": position % 2},
            environment={"device_name": "cpu A", "threads": 1, "data_digest": "aa"},
        )
        rows.points(run, "train_loss", {0: 1.0})
    assert _codes(_get(client, job=job)) == []


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("hardware", {"environment": {"device_name": "cpu B", "threads": 1, "data_digest": "aa"}}),
        ("threads", {"environment": {"device_name": "cpu A", "threads": 2, "data_digest": "aa"}}),
        ("data", {"environment": {"device_name": "cpu A", "threads": 1, "data_digest": "bb"}}),
        ("data", {"config": {"dataset": {"name": "cifar10", "params": {}}}}),
        ("batch_size", {"config": {"batch_size": 32}}),
        ("model", {"config": {"model": {"name": "mlp", "params": {"hidden": [33]}}}}),
        ("budget", {"config": {"budget": {"epochs": 2.0}}}),
        ("seeds", {"config": {"seed": 7}, "optimizer": "hf"}),
        ("unfinished", {"status": "running"}),
        ("unfinished", {"status": "cancelled"}),
        ("diverged", {"status": "failed", "error": {"type": "/problems/diverged"}}),
    ],
)
def test_warnings(client: TestClient, rows: Any, code: str, fields: dict[str, Any]) -> None:
    environment = {"device_name": "cpu A", "threads": 1, "data_digest": "aa"}
    runs = [rows.run(environment=environment), rows.run(**{"environment": environment, **fields})]
    for run in runs:
        rows.points(run, "train_loss", {0: 1.0})
    body = _get(client, run=runs)
    assert code in _codes(body)
    warning = body["warnings"][_codes(body).index(code)]
    assert warning["run_ids"] == [runs[1]]
    assert warning["message"].endswith(".")


def test_runs_that_measured_other_samples_are_told_apart(client: TestClient, rows: Any) -> None:
    def measured(samples: int) -> dict[str, Any]:
        part = {"train": {"samples": samples, "of": 12_000}, "test": {"samples": 512, "of": 2_000}}
        return {"data_digest": "aa", "evaluation": part}

    older = {"environment": {"data_digest": "aa"}, "config": {"evaluation": {"every_epochs": 1.0}}}
    info = {"train_samples": 12_000, "test_samples": 2_000}
    runs = [
        rows.run(environment=measured(1285)),
        rows.run(environment=measured(1285)),
        rows.run(environment=measured(12_000)),
        rows.run(**older, data_info=info),
    ]
    for run in runs:
        rows.points(run, "train_loss", {0: 1.0})
    (warning,) = [w for w in _get(client, run=runs)["warnings"] if w["code"] == "evaluation"]
    assert warning["run_ids"] == runs[2:]
    assert "1,285 of 12,000 train samples and 512 of 2,000 test samples" in warning["message"]
    assert "evaluation" not in _codes(_get(client, run=runs[:2]))


def test_a_run_that_measured_nothing(client: TestClient, rows: Any) -> None:
    runs = [rows.run(status="queued"), rows.run()]
    rows.points(runs[1], "train_loss", {0: 0.0})
    body = _get(client, run=runs, target=1)
    assert "not_measured" in _codes(body)
    assert body["runs"][0]["final_loss"] is None
    assert body["runs"][1]["ratio_to_best"]["final_loss"] is None  # 0 / 0
    for form in ("png", "svg", "csv"):
        assert client.get("/v1/comparisons", params={"run": runs, "format": form}).is_success


@pytest.mark.parametrize("x", [None, "samples", "steps", "epochs", "wall_seconds", "cpu_seconds"])
def test_pictures(client: TestClient, job: str, x: str | None) -> None:
    params = {"job": job, "format": "png", **({"x": x} if x else {})}
    response = client.get("/v1/comparisons", params=params)
    assert response.headers["content-type"] == "image/png"
    assert response.content.startswith(b"\x89PNG")
    etag = response.headers["etag"]
    again = client.get("/v1/comparisons", params=params, headers={"If-None-Match": etag})
    assert again.status_code == 304


def test_the_svg_has_labels_but_no_script(client: TestClient, rows: Any, job: str) -> None:
    response = client.get("/v1/comparisons", params={"job": job, "format": "svg"})
    assert response.headers["content-type"].startswith("image/svg+xml")
    assert response.headers["content-disposition"].startswith("attachment")
    assert "training time (s)" in response.text
    assert "adam (2 seeds)" in response.text
    assert "target 0.5" in response.text
    assert "<script" not in response.text


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, 422),
        ({"run": ["run_1"]}, 422),
        ({"run": ["run_1", "run_1"]}, 422),
        ({"run": ["run_1", "run_2"]}, 404),
        ({"run": [f"run_{i}" for i in range(101)]}, 422),
        ({"job": "job_1"}, 404),
        ({"job": "a\0"}, 422),
        ({"run": ["a\0", "b"]}, 422),
        ({"job": "job_1", "metric": "batch_loss"}, 422),
        ({"job": "job_1", "target": "nan"}, 422),
        ({"job": "job_1", "target": "1e999"}, 422),
        ({"job": "job_1", "format": "pdf"}, 422),
        ({"job": "job_1", "x": "time"}, 422),
    ],
)
# One database is enough for what is refused.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_bad_requests(client: TestClient, params: dict[str, Any], status: int) -> None:
    response = client.get("/v1/comparisons", params=params)
    assert response.status_code == status
    assert response.json()["errors"][0]["pointer"] == list(params or ["run"])[-1]


def test_long_curves_are_compared_by_fewer_points_but_exactly(
    client: TestClient, rows: Any
) -> None:
    values = dict.fromkeys(range(6001), 1.0) | {1234: 0.3, 3000: 0.1, 4000: 0.3, 6000: 0.7}
    runs = [rows.run(rows.job(), seed=seed) for seed in (0, 1)]
    for run in runs:
        rows.points(run, "train_loss", values)
    found = client.get(f"/v1/comparisons?run={runs[0]}&run={runs[1]}&target=0.5").json()
    for run in found["runs"]:
        assert (run["final_loss"], run["best_loss"]) == (0.7, 0.1)
        assert run["to_target"]["step"] == 1234
    (group,) = found["groups"]
    assert group["to_target"]["steps"]["mean"] == 1234
    curve = group["curve"]
    assert curve["downsampled"]
    assert curve["total_points"] == 6001
    assert (curve["steps"][0], curve["steps"][-1], min(curve["mean"])) == (0, 6000, 0.1)


def test_a_hundred_runs(client: TestClient, rows: Any) -> None:
    job = rows.job()
    runs = [rows.run(job, seed=seed, position=seed) for seed in range(101)]
    chosen = [("run", run) for run in runs]
    assert len(client.get("/v1/comparisons", params=chosen[:100]).json()["runs"]) == 100
