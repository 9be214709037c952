"""Faults of an S3 store that is not simply down: refused, slow, failing, cut off, deleted from."""

import random
import time
from pathlib import Path
from typing import get_args

import httpx

from bench.faults.deployment import Deployment
from bench.faults.flaky import Mode
from bench.faults.jobs import SPEC, ended, faults_of
from bench.faults.report import Report
from bench.faults.servers import FlakyS3, PostgreSQL, Redis
from bench.faults.stages import wait_for

_SECONDS = 6.0
_MODES: list[Mode] = [mode for mode in get_args(Mode) if mode != "none"]


def on_flaky_store(folder: Path) -> Deployment:
    """A service on PostgreSQL, Redis, and a store that can be told to misbehave."""
    folder.mkdir(parents=True)
    servers = {
        "database": PostgreSQL(folder / "pg"),
        "broker": Redis(folder / "redis"),
        "store": FlakyS3(folder / "s3"),
    }
    return Deployment(folder, servers)


def run(deployment: Deployment, expected: str, report: Report) -> None:
    """Make each fault once, in the middle of a run and at its end."""
    store = deployment.servers["store"]
    assert isinstance(store, FlakyS3)
    for stage in ("checkpointing", "finishing"):
        for mode in _MODES:
            name = f"the store: {mode} for {_SECONDS:g} s while {stage}"
            if name not in report.made:
                report.special(name, _misbehaves(deployment, store, mode, stage, expected))
    for name, pattern in _DELETED.items():
        if name not in report.made:
            report.special(name, _deleted(deployment, store, pattern, name, expected))
    if _OF_AN_ENDED_RUN not in report.made:
        report.special(_OF_AN_ENDED_RUN, _model_deleted(deployment, store, expected))


def _misbehaves(
    deployment: Deployment, store: FlakyS3, mode: Mode, stage: str, expected: str
) -> list[str]:
    """Amid it the trainer is killed, so that a checkpoint is also asked for."""
    job_id = _started(deployment, f"{mode} {stage}", stage)
    try:
        store.proxy.become(mode)
        time.sleep(_SECONDS / 3)
        for pid in deployment.pids("trainer"):
            deployment.kill("trainer", pid, 0.0)
        time.sleep(2 * _SECONDS / 3)
    finally:
        store.proxy.become("none")
    return faults_of(deployment, ended(deployment, job_id), expected)


_DELETED = {
    "the store: the newest checkpoint is deleted": "newest",
    "the store: all checkpoints are deleted": "all",
}


def _deleted(
    deployment: Deployment, store: FlakyS3, which: str, key: str, expected: str
) -> list[str]:
    job_id = _started(deployment, key, "checkpointing")
    time.sleep(1.0)
    (run_id,) = deployment.patiently(lambda: deployment.client.job(job_id))["run_ids"]
    steps = f"runs/{run_id}/.*/step-"
    if which == "newest":
        newest = max(store.keys(steps), default="", key=lambda key: key.rpartition("step-")[2])
        steps = f"{newest}$"
    store.delete(steps)
    for pid in deployment.pids("trainer"):
        deployment.kill("trainer", pid, 0.0)
    return faults_of(deployment, ended(deployment, job_id), expected)


_OF_AN_ENDED_RUN = "the store: the model of an ended run is deleted"


def _model_deleted(deployment: Deployment, store: FlakyS3, expected: str) -> list[str]:
    """It is told as gone, by a 4xx, and all else of the run is given out."""
    job = ended(deployment, deployment.submit(SPEC, "ended"))
    faults = faults_of(deployment, job, expected)
    (run_id,) = job["run_ids"]
    store.delete(f"runs/{run_id}/.*model.safetensors")
    base = f"http://127.0.0.1:{deployment.port}/v1/runs/{run_id}/artifacts"
    answers = {
        name: httpx.get(f"{base}/{name}", timeout=60).status_code
        for name in ("model.safetensors", "model.json", "config.json", "curves.csv")
    }
    if not 400 <= answers.pop("model.safetensors") < 500 or set(answers.values()) != {200}:
        faults.append(f"{run_id}: without its model's file, its files answer {answers}")
    return faults


def _started(deployment: Deployment, key: str, stage: str) -> str:
    job_id = deployment.submit(SPEC, key)
    (run_id,) = deployment.patiently(lambda: deployment.client.job(job_id))["run_ids"]
    wait_for(deployment, run_id, stage, random.Random(key))
    return job_id
