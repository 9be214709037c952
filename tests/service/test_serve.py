"""``mlhf serve``: one command, everything under one folder, nothing left behind."""

import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from mlhf.core.process import TRAINER
from mlhf_service.client import ServiceError
from tests.service.conftest import (
    LONG_STEPS,
    Serving,
    checkpointed,
    long,
    train,
)
from tests.waiting import DEADLINE, until

pytestmark = pytest.mark.services


def steps_of(serving: Serving, run_id: str) -> list[int]:
    curves = serving.client.get(f"/v1/runs/{run_id}/curves", metric="batch_loss", x="steps")
    return [int(point[0]) for point in curves["series"][0]["points"]]


def test_from_a_job_to_its_model_and_a_clean_stop(serving: Serving, tmp_path: Path) -> None:
    """In a folder with modules of our names, which must not be imported."""
    process = serving.start("serve", cwd=folder_with_our_names(tmp_path / "project"))
    until(lambda: "MLHF serves" in serving.output(), "no address was printed")
    assert serving.client.get("/readyz")["status"] == "ok"
    until(lambda: "Ctrl-C stops it" in serving.output(), "the second line was not printed")
    lines = serving.output().splitlines()
    assert [line.split()[0] for line in lines] == ["MLHF", "Pages:"], lines
    client = serving.client
    job = client.submit(train())
    events = list(client.events(job["id"]))
    assert [e["id"] for e in events] == list(range(1, len(events) + 1))
    assert {e["event"] for e in events} == {"status", "metrics", "log"}
    done = client.job(job["id"])
    assert (done["status"], done["attempts"], done["progress"]["fraction"]) == ("succeeded", 1, 1.0)

    (run_id,) = done["run_ids"]
    run = client.get(f"/v1/runs/{run_id}")
    assert run["environment"]["threads"] >= 1
    assert steps_of(serving, run_id) == list(range(1, run["totals"]["steps"] + 1))
    names = {a["name"] for a in client.get(f"/v1/runs/{run_id}/artifacts")["data"]}
    assert names >= {
        "model.safetensors",
        "model.json",
        "config.json",
        "curves.csv",
        "curves.parquet",
        "curves.png",
        "events.out.tfevents.mlhf",
    }
    model = client.download(run_id, "model.safetensors", tmp_path / "model.safetensors")
    assert model.stat().st_size > 1000
    config = json.loads(client.download(run_id, "config.json", tmp_path / "c").read_text())
    assert str(serving.data_dir) not in json.dumps(config), "paths of the server leaked"

    paper = {"name": "mlhf", "params": {"variant": "paper"}}  # compiles a kernel where it can
    learned = client.submit(train(optimizer=paper))
    assert client.wait(learned["id"], timeout=DEADLINE)["status"] == "succeeded"

    refuse_a_second(serving)
    assert serving.stop(process) == 0
    assert serving.pids() == {}
    assert list(serving.home.iterdir()) == []
    beside = {path.name for path in serving.data_dir.parent.iterdir()}
    assert beside == {"data", "serve.out"}


def folder_with_our_names(folder: Path) -> Path:
    for package in ("app", "engine", "mlhf_service", "queue"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("raise RuntimeError('not meant')")
    for module in ("mlhf", "celery", "platform", "torch"):
        (folder / f"{module}.py").write_text("raise RuntimeError('not meant')")
    return folder


def refuse_a_second(serving: Serving) -> None:
    """Two services cannot share a folder or a port."""
    second = serving.start("serve")
    assert second.wait(timeout=DEADLINE) == 1
    assert "Another mlhf serve uses" in serving.output()
    elsewhere = Serving(serving.data_dir.parent.parent / "b" / "data", {})
    elsewhere.port = serving.port
    third = elsewhere.start("serve")
    assert third.wait(timeout=DEADLINE) == 1
    assert "Cannot listen on 127.0.0.1" in elsewhere.output()
    assert "Traceback" not in elsewhere.output() + serving.output()


@pytest.mark.long
def test_a_stop_queues_what_runs_and_the_next_start_goes_on(serving: Serving) -> None:
    first = serving.start("serve")
    serving.wait_until_ready()
    job = serving.client.submit(long())
    until(lambda: checkpointed(serving, job["id"]), "no checkpoint")
    assert serving.stop(first) == 0
    assert serving.pids() == {}

    serving.start("serve")
    serving.wait_until_ready()
    assert serving.client.wait(job["id"], timeout=DEADLINE)["status"] == "succeeded"
    (run_id,) = job["run_ids"]
    assert steps_of(serving, run_id) == list(range(1, LONG_STEPS + 1))
    pause_cancel_and_resume(serving)


def pause_cancel_and_resume(serving: Serving) -> None:
    """What runs is paused, goes on, and is cancelled."""
    client = serving.client
    job = client.submit(long())
    until(lambda: checkpointed(serving, job["id"]), "no checkpoint")
    client.act(job["id"], "pause")
    until(lambda: client.job(job["id"])["status"] == "paused", "not paused")
    other = client.submit(train())  # the worker is free
    assert client.wait(other["id"], timeout=DEADLINE)["status"] == "succeeded"
    client.act(job["id"], "resume")
    until(lambda: client.job(job["id"])["status"] == "running", "not resumed")
    client.act(job["id"], "cancel")
    assert client.wait(job["id"], timeout=DEADLINE)["status"] == "cancelled"


@pytest.mark.long
def test_whatever_is_killed_the_job_ends_once_and_whole(serving: Serving) -> None:
    """One job through the death of every kind of process, one after another."""
    # Whoever starts a worker again knows that it is dead, and does not wait for its lease.
    serving.environment["MLHF_LEASE_SECONDS"] = "600"
    supervisor = serving.start("serve")
    serving.wait_until_ready()
    client = serving.client
    steps = 4 * LONG_STEPS
    job = client.submit(long(steps))
    (run_id,) = job["run_ids"]
    worker = "mlhf_service.queue.worker_main"

    def checkpoints() -> set[str]:
        artifacts = client.get(f"/v1/runs/{run_id}/artifacts")["data"]
        return {str(a["sha256"]) for a in artifacts if a["kind"] == "checkpoint"}

    def go_on(attempts: int) -> None:
        """Wait until this attempt has left a checkpoint of its own."""
        known = checkpoints()
        until(lambda: client.job(job["id"])["attempts"] == attempts, f"no attempt {attempts}")
        until(lambda: checkpoints() - known, f"no checkpoint of attempt {attempts}")

    go_on(1)
    os.kill(serving.pid_of("mlhf_service.server"), signal.SIGKILL)
    serving.wait_until_ready()
    go_on(1)  # the trainer was not disturbed by the API's fall
    victims = (
        lambda: serving.pid_of(TRAINER),
        lambda: serving.children(serving.pid_of(worker))[-1],
        lambda: serving.pid_of(worker),
    )
    for fallen, pid in enumerate(victims, 1):
        os.kill(pid(), signal.SIGKILL)
        go_on(1 + fallen)
    supervisor.kill()
    supervisor.wait(timeout=DEADLINE)
    until(lambda: serving.pids() == {}, "processes outlived their supervisor")
    serving.start("serve")
    serving.wait_until_ready()

    done = client.wait(job["id"], timeout=DEADLINE)
    assert (done["status"], done["attempts"]) == ("succeeded", 5), done
    assert steps_of(serving, run_id) == list(range(1, steps + 1))
    events = list(client.events(job["id"]))
    said = [e["data"]["message"] for e in events if e["event"] == "log"]
    assert sum("its worker's process was killed" in message for message in said) == 2, said
    ends = [e for e in events if e["event"] == "status" and e["data"]["status"] == "succeeded"]
    assert len(ends) == 2, "one end of the run, one of the job"


@pytest.mark.long
def test_a_sweep_is_trained_by_several_workers_and_compared(
    serving: Serving, environment: dict[str, str]
) -> None:
    serving.start("serve", "--workers", "2", "--threads", "1")
    serving.wait_until_ready()
    sweep: dict[str, Any] = train(
        kind="sweep",
        optimizers=[{"name": "sgd", "grid": {"lr": [0.1, 1e6]}}, {"name": "hf_adam"}],
        seeds=[0, 1],
        target={"metric": "train_loss", "value": 0.5},
        budget={"epochs": 8},
    )
    del sweep["optimizer"]
    job = serving.client.submit(sweep)
    seen = 0

    def look(job: dict[str, Any]) -> None:
        nonlocal seen
        seen = max(seen, job["runs"]["running"])

    done = serving.client.wait(job["id"], on_change=look, poll_seconds=0.1, timeout=DEADLINE)
    assert seen == 2, "the runs were not trained side by side"
    assert done["status"] == "succeeded", "a diverged setting is a result, not a fault"
    assert (done["runs"]["succeeded"], done["runs"]["failed"]) == (4, 2)
    comparison = serving.client.compare(done["run_ids"])
    assert comparison["target"] == 0.5
    assert len(comparison["runs"]) == 6
    assert sorted(group["n"] for group in comparison["groups"]) == [2, 2, 2]
    for format in ("png", "svg", "csv"):
        assert len(serving.client.figure(done["run_ids"], format)) > 300


def test_without_keys_only_this_machine_is_served(serving: Serving) -> None:
    process = serving.start("serve", "--host", "0.0.0.0")
    assert process.wait(timeout=DEADLINE) == 1
    assert "Without keys" in serving.output()


def test_no_answer_is_said_in_words(serving: Serving) -> None:
    with pytest.raises(ServiceError, match="mlhf serve"):
        serving.client.job("job_0")


@pytest.mark.long
@pytest.mark.parametrize("module", ["uvicorn", "billiard"])
def test_a_child_that_cannot_start_ends_it(serving: Serving, tmp_path: Path, module: str) -> None:
    """A package of the API's, or of the worker's, that is broken as a bad upgrade leaves it."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import sys\n"
        "class Broken:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r} and 'serve' not in sys.argv:\n"
        "            raise ImportError('this module is broken')\n"
        "sys.meta_path.insert(0, Broken())\n"
    )
    path = os.pathsep.join([str(broken), os.environ.get("PYTHONPATH", "")])
    serving.environment["PYTHONPATH"] = path
    process = serving.start("serve")
    assert process.wait(timeout=DEADLINE) == 1
    (line,) = [line for line in serving.output().splitlines() if "cannot start" in line]
    assert "ImportError: this module is broken" in line
    if module == "uvicorn":
        assert "MLHF serves" not in serving.output(), "an address that never answered"
    assert "Traceback" not in serving.output()


@pytest.mark.long
def test_a_broker_that_is_away_is_waited_for_and_a_schema_that_is_newer_is_not(
    serving: Serving,
) -> None:
    serving.environment["MLHF_BROKER_URL"] = "redis://user:secret@127.0.0.1:9/0"
    process = serving.start("serve")
    serving.wait_until_ready()
    (line,) = [line for line in serving.output().splitlines() if "does not answer" in line]
    assert line.startswith("mlhf: redis://user:***@127.0.0.1:9/0")
    assert serving.client.submit(train())["status"] == "queued"
    assert "secret" not in serving.output()

    # As when a newer version contracts the schema while this one runs.
    with sqlite3.connect(serving.data_dir / "mlhf.sqlite3", timeout=60) as database:
        database.execute("update schema_floor set revision = '9999'")
        database.execute("update alembic_version set version_num = '9999'")
    assert process.wait(timeout=DEADLINE) == 1
    assert "written by a newer version of MLHF" in serving.output()
    assert "Traceback" not in serving.output()


@pytest.mark.long
def test_a_worker_that_no_message_reaches_starts_anew(serving: Serving) -> None:
    """As Celery's main process may be after its broker was away: alive, and deaf."""
    serving.start("serve", "--workers", "1")
    serving.wait_until_ready()
    until(lambda: serving.client.get("/v1/workers")["data"], "no worker")
    main = serving.client.get("/v1/workers")["data"][0]["pid"]
    os.kill(main, signal.SIGSTOP)
    job = serving.client.submit(train())
    assert serving.client.wait(job["id"], timeout=DEADLINE)["status"] == "succeeded"
    assert main not in serving.pids()
