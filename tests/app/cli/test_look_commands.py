"""One thing at a terminal: in full, its log, its curves; and what is deleted."""

import json
from pathlib import Path

import pytest

from mlhf_service.database import Database
from mlhf_service.jobs.journal import add_event
from tests.app.cli.conftest import Call
from tests.app.conftest import Rows

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def job(rows: Rows) -> str:
    return rows.job(name="two", kind="sweep", spec={"seeds": [0, 1]}, tags=[])


def a_run(rows: Rows, job: str, place: int = 0) -> str:
    run = rows.run(
        job,
        name=f"two: adam seed {place}",
        position=place,
        seed=place,
        summary={"train_loss": {"last": 0.125, "best": 0.125, "best_step": 2}},
    )
    rows.points(run, "train_loss", {0: 2.0 + place, 1: 1.0, 2: 0.125})
    return run


def test_a_job_and_a_run_in_full(call: Call, rows: Rows, job: str) -> None:
    run = a_run(rows, job)
    shown = call("show", job).output
    assert f"{job}  two: succeeded" in shown
    assert "[0, 1]" in shown
    line = next(text for text in shown.splitlines() if text.startswith(run))
    assert line.split() == [run, "succeeded", "0.125", "–", "adam", "seed", "0"]
    shown = call("show", run).output
    assert ["train", "loss", "0.125", "0.125", "2"] in [s.split() for s in shown.splitlines()]
    assert "model.params.hidden" in shown
    assert json.loads(call("show", run, "--json").output)["id"] == run
    assert "no id of ours" in str(call("show", "nonsense").exception)
    assert "There is no run" in str(call("show", "run_0").exception)


def test_the_log_of_a_job_and_of_a_run(
    call: Call, rows: Rows, job: str, database: Database
) -> None:
    runs = [a_run(rows, job), a_run(rows, job, 1)]
    with database.write() as session:
        for run in runs:
            data = {"level": "warning", "message": f"of {run}", "run_id": run}
            add_event(session, job, "log", data)
    lines = call("logs", job, "--follow").output.splitlines()
    assert [line.split()[1:] for line in lines] == [["warning", run, "of", run] for run in runs]
    (line,) = call("logs", runs[1]).output.splitlines()
    assert line.endswith(f"warning  of {runs[1]}")
    (line,) = call("logs", runs[0], "--json").output.splitlines()
    assert json.loads(line)["message"] == f"of {runs[0]}"


def test_curves_are_drawn(call: Call, rows: Rows, job: str, tmp_path: Path) -> None:
    first, second = a_run(rows, job), a_run(rows, job, 1)
    drawn = call("curves", first, "--x", "steps").output.splitlines()
    assert drawn[0] == f"train loss of {first}  two: adam seed 0"
    assert drawn[1].startswith("    2 │⠉"), "from the corner above"
    assert drawn[12].startswith("0.125 │")
    assert drawn[14].split() == ["0", "steps", "2"]
    both = call("curves", job).output
    assert f"× {first}" in both
    assert f"• {second}" in both
    (series, _) = json.loads(call("curves", first, second, "--json").output)
    assert series["series"][0]["points"][-1] == [20.0, 0.125]
    path = tmp_path / "curve.csv"
    call("curves", first, "--csv", str(path))
    assert path.read_text().splitlines()[0].startswith("run_id,metric,")
    assert "Nothing has been measured" in call("curves", rows.run(name="new")).output
    assert call("curves", job, "--csv", str(path)).exit_code == 2


def test_runs_are_deleted_by_a_filter(call: Call, rows: Rows, job: str) -> None:
    keep, drop = a_run(rows, job), a_run(rows, job, 1)
    asked = call("delete", "--filter", "seed = 1")
    assert asked.output == f"would delete {drop}\nNothing was deleted: add --yes.\n"
    call("delete", "--filter", "seed = 1", "--yes")
    assert [one["id"] for one in json.loads(call("runs", "--json").output)] == [keep]
    assert call("delete").exit_code == 2
    assert call("delete", job, "--status", "failed").exit_code == 2
    assert call("delete", "--name", "nothing").output == "Nothing meets this.\n"


def test_a_comparison_of_a_job_by_its_id(call: Call, rows: Rows, job: str) -> None:
    runs = [a_run(rows, job), a_run(rows, job, 1)]
    found = json.loads(call("compare", job, "--json").output)
    assert [one["run_id"] for one in found["runs"]] == runs
    assert call("compare", runs[0]).exit_code == 2
