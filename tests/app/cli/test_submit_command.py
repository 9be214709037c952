"""``mlhf submit`` and ``mlhf upload``: files of jobs, and of data."""

import json
from pathlib import Path

import pytest

from tests.app.cli.conftest import Call

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
JOB = """\
kind: sweep
model: {name: mlp, params: {hidden: [8]}}
dataset: digits
optimizers:
  - adam
  - name: adam
    params: {lr: 1e-2}
budget: {epochs: 1}
"""


def test_a_job_in_yaml(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    assert json.loads(call("submit", str(path), "--check").output)["runs"] == 2
    made = json.loads(call("submit", str(path), "--priority", "3", "--json").output)
    assert made["spec"]["optimizers"][1]["params"] == {"lr": 0.01}
    assert made["priority"] == 3
    assert call("submit", "-", input=JOB).output.startswith("job_")
    shown = call("submit", "-", "--check", input=JOB.replace("1e-2", "-1")).exception
    assert "stdin, line 7, optimizers.1.params.lr: " in str(shown)
    path.write_text(JOB.replace("epochs", "epoch"))
    assert f"{path}, line 8, budget.epoch: " in str(call("submit", str(path)).exception)


def test_an_upload_says_what_was_understood(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "flowers.csv"
    lines = [f"{i / 7:.3f},{i % 5},{'rose' if i % 2 else 'tulip'}" for i in range(40)]
    path.write_text("\n".join(["length,petals,species", *lines]))
    said = call("upload", str(path), "-p", "target=species").output
    assert "flowers" in said
    assert "classification with 2 outputs" in said
    assert "petals" in said
    assert "--param NAME=VALUE; `mlhf formats table`" in str(call("upload", str(path)).exception)
    assert call("upload", str(path), "-p", "target").exit_code == 2
    assert call("upload", str(path), "--params", "[1]").exit_code == 2
