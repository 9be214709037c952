"""Lists at a terminal: filters, columns, CSV, the catalogue."""

import csv
import io
import json

import pytest

from tests.app.cli.conftest import Call
from tests.app.conftest import Rows

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def run_of(rows: Rows, job: str, lr: float, loss: float, **fields: object) -> str:
    return rows.run(
        job,
        config={"optimizer": {"name": "adam", "params": {"lr": lr}}},
        summary={"test_loss": {"last": loss, "best": loss / 2, "best_step": 3}},
        totals={"wall_seconds": 1.5, "steps": 3},
        **fields,
    )


def test_runs_by_hyperparameters_and_metrics(call: Call, rows: Rows) -> None:
    job = rows.job(name="a sweep")
    low = run_of(rows, job, 0.001, 0.5, name="low", tags={"team": "vision"})
    high = run_of(rows, job, 0.1, 0.25, name="high", position=1)
    worst = run_of(rows, job, 1.0, 2.0, name="worst", position=2)
    shown = ["--columns", "optimizer.lr,test_loss.best,seconds,tags.team"]
    found = call("runs", "--filter", "optimizer.lr < 0.5", "--sort", "test_loss.best", *shown)
    head, *lines = found.output.splitlines()
    assert head.split()[2:6] == ["optimizer.lr", "test", "loss.best", "seconds"]
    assert [line.split() for line in lines] == [
        [high, "succeeded", "0.1", "0.125", "1.5", "–", "high"],
        [low, "succeeded", "0.001", "0.25", "1.5", "vision", "low"],
    ]
    listed = json.loads(call("runs", "--sort", "-optimizer.lr", "--limit", "1", "--json").output)
    assert [one["id"] for one in listed] == [worst]
    text = call("runs", "--csv", "--columns", "id,optimizer.lr", "--sort", "optimizer.lr").output
    assert list(csv.reader(io.StringIO(text)))[1:] == [
        [low, "0.001"],
        [high, "0.1"],
        [worst, "1.0"],
    ]
    fields = call("runs", "--fields").output
    assert "optimizer.lr" in fields
    assert "tags.team" in fields


def test_a_column_that_is_no_field_is_refused(call: Call, rows: Rows) -> None:
    run_of(rows, rows.job(), 0.1, 0.5)
    refused = call("runs", "--columns", "optimizer.lrr")
    assert refused.exit_code == 2
    assert "optimizer.lr'" in refused.output
    assert call("runs", "--columns", "optimizer.momentum,test_accuracy").exit_code in (0, 2)
    assert call("runs", "--columns", "tags.absent").exit_code == 0


def test_jobs_are_filtered(call: Call, rows: Rows) -> None:
    wanted = rows.job(name="vision sweep", kind="sweep", status="failed")
    rows.run(wanted, optimizer="hf")
    rows.run(rows.job(name="other"))

    def ids(*options: str) -> list[str]:
        return [one["id"] for one in json.loads(call("jobs", *options, "--json").output)]

    for options in (
        ("--status", "failed"),
        ("--kind", "sweep"),
        ("--optimizer", "hf"),
        ("--name", "VISION"),
        ("--status", "failed", "--status", "cancelled", "--sort", "name"),
    ):
        assert ids(*options) == [wanted]
    assert len(ids("--model", "mlp")) == 2
    assert wanted in call("jobs").output


def test_the_catalogue(call: Call) -> None:
    assert "sequential" in call("models").output
    parameters = call("optimizers", "adam").output
    assert "lr" in parameters
    assert "> 0" in parameters
    target = next(s for s in call("formats", "table").output.splitlines() if "target" in s)
    assert "must be given" in target
    assert "params_schema" in json.loads(call("models", "mlp", "--json").output)
    assert "did you mean" in str(call("models", "mlpp").exception)


def test_queued_jobs_without_a_worker_are_explained(call: Call, rows: Rows) -> None:
    rows.run(rows.job(status="succeeded"))
    assert "No worker" not in call("jobs").output
    rows.run(rows.job(status="queued"), status="queued")
    told = call("jobs")
    assert "note: No worker is there" in told.stderr
    assert "note" not in told.stdout
