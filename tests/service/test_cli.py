"""``mlhf`` at a terminal: what a user types, against a running service."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Serving, train
from tests.waiting import DEADLINE

pytestmark = pytest.mark.services


def mlhf(*arguments: str, cwd: Path, code: int = 0, **variables: str) -> str:
    """Run a command; returns what it printed."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MLHF_")}
    done = subprocess.run(
        [sys.executable, "-m", "mlhf_service.cli.main", *arguments],
        cwd=cwd,
        env={**clean, "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    assert "Traceback" not in output
    return output


def test_a_user_s_way(serving: Serving, tmp_path: Path) -> None:
    serving.start("serve")
    serving.wait_until_ready()
    url = {"MLHF_URL": serving.client.url}

    def use(*arguments: str, code: int = 0) -> str:
        return mlhf(*arguments, cwd=tmp_path, code=code, **url)

    spec: dict[str, Any] = train(kind="sweep", optimizers=[{"name": "adam"}, {"name": "hf_adam"}])
    del spec["optimizer"]
    (tmp_path / "job.json").write_text(json.dumps(spec))
    assert json.loads(use("submit", "job.json", "--check"))["runs"] == 2
    job = use("submit", "job.json", "--watch").split()[0]
    assert "succeeded" in use("jobs")
    runs = json.loads(use("runs", "--job", job, "--json"))
    assert len(runs) == 2
    table = use("compare", "--job", job, "--target", "0.5", "--figure", "c.svg")
    assert "hf_adam" in table
    assert (tmp_path / "c.svg").read_text().count("<svg") == 1
    use("download", runs[0]["id"], "--output", "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"model.safetensors", "curves.png"}
    assert "digits" in use("datasets")
    assert "mc_shipped_mlhf" in use("meta-checkpoints")
    (paper,) = json.loads(use("meta-checkpoints", "--optimizer", "mlhf_paper", "--json"))
    assert paper["id"] == "mc_shipped_mlhf_paper"
    use("meta-checkpoints", "--download", "mc_shipped_mlhf")
    assert '"upload"' in use("meta-checkpoints", "--upload", "mc_shipped_mlhf.safetensors")
    (tmp_path / "t.csv").write_text(
        "a,b,y\n" + "".join(f"{i},{i % 7},{i % 2}\n" for i in range(60))
    )
    params = json.dumps({"target": "y"})
    upload = ("upload", "t.csv", "--name", "t", "--format", "table", "--params", params)
    assert json.loads(use(*upload, "--json"))["id"].startswith("ds_")
    shown = use(*upload)
    assert "train: 48 samples" in shown
    assert "whole numbers" in shown

    assert "already succeeded" in use("cancel", job, code=1)
    (tmp_path / "bad.json").write_text(json.dumps(train(optimizer={"name": "x"})))
    assert "bad.json, line 1, optimizer.name: unknown" in use("submit", "bad.json", code=1)
    assert "cannot read" in use("submit", "missing.json", code=1)


def test_no_service_is_said_in_a_line(tmp_path: Path) -> None:
    output = mlhf("jobs", "--url", "http://127.0.0.1:9", cwd=tmp_path, code=1)
    assert "mlhf serve" in output


def test_doctor_and_migrate(tmp_path: Path) -> None:
    secret = {"MLHF_BROKER_URL": "redis://user:s3cr3tword@127.0.0.1:9/0"}
    shown = mlhf("doctor", "--data-dir", "x", "--json", cwd=tmp_path, code=1, **secret)
    report = json.loads(shown)
    assert "s3cr3tword" not in shown
    assert report["settings"]["broker_url"] == "redis://user:***@127.0.0.1:9/0"
    assert not report["checks"]["broker"]["ok"]
    assert "mlhf migrate" in report["checks"]["database"]["detail"]
    assert "up to date" in mlhf("migrate", "--data-dir", "x", cwd=tmp_path)
    assert "schema up to date" in mlhf("doctor", "--data-dir", "x", cwd=tmp_path)


def test_settings_that_are_wrong_are_named(tmp_path: Path) -> None:
    output = mlhf("serve", cwd=tmp_path, code=1, MLHF_PORT="many")
    assert "MLHF_PORT" in output


@pytest.mark.long
def test_the_demonstration(tmp_path: Path) -> None:
    output = mlhf("demo", "--epochs", "3", "--data-dir", "d", "--output", "o", cwd=tmp_path)
    for name in ("momentum", "adam", "adamw", "hf", "hf_adam", "mlhf", "samples*", "seconds*"):
        assert name in output
    assert (tmp_path / "o" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in tmp_path.iterdir()} == {"d", "o"}
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True)
    assert left.stdout == ""
