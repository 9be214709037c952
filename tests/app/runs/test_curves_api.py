"""Curves over HTTP, in each format."""

import csv
import io
import math
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from mlhf_service.database import Database
from mlhf_service.runs import csv_text, curve_files
from tests.app.conftest import Rows

ODD = {0: 2.5, 1: math.nan, 2: math.inf, 3: -math.inf, 4: -0.125}


@pytest.fixture
def run(rows: Any) -> str:
    run = rows.run()
    rows.points(run, "train_loss", ODD)
    rows.points(run, "test_accuracy", {0: 0.1, 4: 0.9})
    return str(run)


def test_json_keeps_what_is_not_finite_by_name(client: TestClient, run: str) -> None:
    body = client.get(f"/v1/runs/{run}/curves", params={"metric": "train_loss"}).json()
    assert body == {
        "run_id": run,
        "x": "samples",
        "series": [
            {
                "metric": "train_loss",
                "points": [
                    [0, 2.5],
                    [10, "NaN"],
                    [20, "Infinity"],
                    [30, "-Infinity"],
                    [40, -0.125],
                ],
                "total_points": 5,
                "downsampled": False,
                "unplaced": 0,
                "method": None,
            }
        ],
    }


@pytest.mark.parametrize(
    ("x", "last"), [("samples", 40), ("steps", 4), ("epochs", 0.4), ("wall_seconds", 2.0)]
)
def test_every_axis(client: TestClient, run: str, x: str, last: float) -> None:
    body = client.get(f"/v1/runs/{run}/curves", params={"x": x}).json()
    assert [s["metric"] for s in body["series"]] == ["test_accuracy", "train_loss"]
    assert body["series"][0]["points"] == [[0, 0.1], [last, 0.9]]


def test_cpu_seconds_are_an_axis_and_a_column(client: TestClient, rows: Any) -> None:
    run = rows.run()
    rows.points(run, "train_loss", {0: 4.0, 10: 2.0}, seconds=0.5, cpu=0.75)
    url = f"/v1/runs/{run}/curves"
    body = client.get(url, params={"x": "cpu_seconds"}).json()
    assert body["series"][0]["points"] == [[0, 4.0], [7.5, 2.0]]
    table = list(csv.DictReader(io.StringIO(client.get(url, params={"format": "csv"}).text)))
    assert [(row["wall_seconds"], row["cpu_seconds"]) for row in table][1] == ("5.0", "7.5")


def test_points_from_before_cpu_seconds_say_that_they_have_none(
    client: TestClient, run: str
) -> None:
    body = client.get(f"/v1/runs/{run}/curves", params={"x": "cpu_seconds"}).json()
    assert [(s["points"], s["unplaced"]) for s in body["series"]] == [([], 2), ([], 5)]
    content = client.get(f"/v1/runs/{run}/curves", params={"format": "parquet"}).content
    column = pq.read_table(io.BytesIO(content)).column("cpu_seconds")
    assert column.null_count == len(column) == 7


def test_csv_in_long_format(client: TestClient, run: str) -> None:
    response = client.get(f"/v1/runs/{run}/curves", params={"format": "csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == f'attachment; filename="{run}.csv"'
    table = list(csv.DictReader(io.StringIO(response.text)))
    assert list(table[0]) == list(curve_files.COLUMNS)
    losses = [row for row in table if row["metric"] == "train_loss"]
    assert [row["value"] for row in losses] == ["2.5", "NaN", "Infinity", "-Infinity", "-0.125"]
    assert losses[4] == {
        "run_id": run,
        "metric": "train_loss",
        "step": "4",
        "samples": "40",
        "epoch": "0.4",
        "wall_seconds": "2.0",
        "cpu_seconds": "",
        "value": "-0.125",
    }


def test_parquet_holds_real_numbers(client: TestClient, run: str) -> None:
    response = client.get(f"/v1/runs/{run}/curves", params={"format": "parquet"})
    table = pq.read_table(io.BytesIO(response.content))
    assert table.column_names == list(curve_files.COLUMNS)
    rows = [row for row in table.to_pylist() if row["metric"] == "train_loss"]
    np.testing.assert_array_equal([row["value"] for row in rows], list(ODD.values()))
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert {row["run_id"] for row in table.to_pylist()} == {run}


def test_floats_survive_to_the_last_bit(client: TestClient, rows: Any) -> None:
    values = {0: 0.1 + 0.2, 1: 5e-324, 2: 1.7976931348623157e308, 3: 1 / 3}
    run = rows.run()
    rows.points(run, "batch_loss", values, seconds=0.1)
    body = client.get(f"/v1/runs/{run}/curves").json()
    assert [y for _, y in body["series"][0]["points"]] == list(values.values())
    text = client.get(f"/v1/runs/{run}/curves", params={"format": "csv"}).text
    assert [float(r["value"]) for r in csv.DictReader(io.StringIO(text))] == list(values.values())


def test_downsampling_is_announced(client: TestClient, rows: Any) -> None:
    run = rows.run()
    curve = {step: math.sin(step / 20) for step in range(500)}
    curve |= {123: 7.0, 321: -7.0, 400: math.nan}
    rows.points(run, "batch_loss", curve)
    rows.points(run, "train_loss", {0: 1.0, 499: 0.5})

    url = f"/v1/runs/{run}/curves"
    batch, train = client.get(url, params={"max_points": 20, "x": "steps"}).json()["series"]
    assert batch["downsampled"]
    assert batch["method"] == "min_max_buckets"
    assert batch["total_points"] == 500
    assert len(batch["points"]) <= 20
    steps = [x for x, _ in batch["points"]]
    assert {0, 123, 321, 400, 499} <= set(steps)
    assert all(curve[x] == y for x, y in batch["points"] if x != 400)
    assert not train["downsampled"]
    assert train["method"] is None

    response = client.get(url, params={"max_points": 20, "format": "csv"})
    assert response.headers["downsampled"] == "min_max_buckets"
    assert len(response.text.splitlines()) <= 1 + 20 + 2


def test_a_window_of_steps(client: TestClient, run: str) -> None:
    url = f"/v1/runs/{run}/curves"
    window = {"min_step": 1, "max_step": 3}
    body = client.get(url, params={**window, "x": "steps"}).json()
    none, series = body["series"]
    assert (none["metric"], none["points"]) == ("test_accuracy", [])
    assert (series["metric"], series["total_points"]) == ("train_loss", 3)
    assert series["points"] == [[1, "NaN"], [2, "Infinity"], [3, "-Infinity"]]
    text = client.get(url, params={**window, "format": "csv"}).text
    assert [row["step"] for row in csv.DictReader(io.StringIO(text))] == ["1", "2", "3"]
    some = client.get(url, params={**window, "x": "steps", "max_points": 1000}).json()
    assert some == body
    empty = client.get(url, params={"min_step": 9, "max_step": 1}).json()["series"]
    assert [one["points"] for one in empty] == [[], []]
    assert client.get(url, params={"min_step": 10**30}).status_code == 422


def test_a_metric_not_measured_is_empty_and_an_unknown_one_refused(
    client: TestClient, run: str
) -> None:
    url = f"/v1/runs/{run}/curves"
    wanted = {"metric": ["test_loss", "train_loss", "train_loss"]}
    series = client.get(url, params=wanted).json()["series"]
    assert [(s["metric"], s["total_points"]) for s in series] == [
        ("test_loss", 0),
        ("train_loss", 5),
    ]
    for params in (
        {"metric": "los"},
        {"metric": "a\0"},
        {"x": "time"},
        {"format": "xlsx"},
        {"max_points": 3},
        {"max_points": 10**40},
    ):
        assert client.get(url, params=params).status_code == 422, params


def test_a_run_without_points_gives_files_without_rows(client: TestClient, rows: Any) -> None:
    url = f"/v1/runs/{rows.run()}/curves"
    assert client.get(url).json()["series"] == []
    assert client.get(url, params={"format": "csv"}).text.count("\n") == 1
    parquet = client.get(url, params={"format": "parquet"}).content
    assert pq.read_table(io.BytesIO(parquet)).num_rows == 0


@pytest.mark.parametrize("form", ["json", "csv", "parquet"])
def test_unchanged_curves_are_not_sent_again(
    client: TestClient, rows: Rows, run: str, form: str
) -> None:
    url = f"/v1/runs/{run}/curves?format={form}"
    etag = client.get(url).headers["etag"]
    assert etag.startswith('W/"')
    again = client.get(url, headers={"If-None-Match": f'"x", {etag}'})
    assert again.status_code == 304
    assert again.content == b""
    assert client.get(url, headers={"If-None-Match": '"x"'}).status_code == 200
    rows.points(run, "train_loss", {5: 0.5})
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 200


def test_text_cells_are_no_formulas() -> None:
    row = ["=1+1", "+a", "-a", "@a", "\tx", "plain", -1.5, math.nan, None, True]
    table = csv_text.table(["x"] * len(row), [row]).decode()
    assert next(csv.reader(table.splitlines()[1:])) == [
        "'=1+1",
        "'+a",
        "'-a",
        "'@a",
        "'\tx",
        "plain",
        "-1.5",
        "NaN",
        "",
        "true",
    ]


def test_the_picture_of_meta_training_shows_its_losses(rows: Rows, database: Database) -> None:
    from mlhf_service.runs import reading
    from mlhf_service.runs.figures import run_figure

    run = rows.run()
    rows.points(run, "meta_loss_p", {1: -0.3, 2: -0.4, 3: float("nan")})
    with database.read() as session:
        drawn = run_figure("meta", reading.read(session, run))
    assert drawn.startswith(b"\x89PNG")
    assert drawn != run_figure("meta", [])


def test_a_window_of_an_axis(client: TestClient, rows: Any) -> None:
    """Between two places of any axis, both included; exact however long the curve is."""
    run = rows.run()
    rows.points(run, "batch_loss", {step: 1.0 / step for step in range(1, 20_001)}, seconds=0.1)
    rows.points(run, "test_loss", {step: 1.0 / step for step in range(100, 20_001, 100)}, 0.1)

    def steps(metric: str = "batch_loss", **asked: Any) -> list[float]:
        asked = {"metric": metric, "max_points": 1000, **asked}
        (series,) = client.get(f"/v1/runs/{run}/curves", params=asked).json()["series"]
        scale = {"samples": 10, "wall_seconds": 0.1, "epochs": 0.1}.get(asked["x"], 1)
        return [round(x / scale) for x, _ in series["points"]]

    for x, scale in (("wall_seconds", 0.1), ("samples", 10), ("epochs", 0.1), ("steps", 1)):
        window = {"x": x, "min_x": 7000.5 * scale, "max_x": 7300.5 * scale}
        assert steps(**window) == list(range(7001, 7301)), x
        assert steps("test_loss", **window) == [7100, 7200, 7300], x
    wide = steps(x="samples", min_x=50_000)
    assert (wide[0], wide[-1]) == (5000, 20_000)
    assert len(wide) <= 1000
    assert steps(x="samples", min_x=0, max_x=20) == [1, 2]
    assert steps(x="samples", min_x=201_000) == []
    assert steps(x="samples", max_x=1) == []
    assert steps(x="samples", min_x=30, max_x=60, min_step=5) == [5, 6]
    refused = client.get(f"/v1/runs/{run}/curves", params={"min_x": "nan"})
    assert refused.status_code == 422
