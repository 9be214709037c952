"""Faults that are no signal: a full disk, deleted folders, doorbells that ring too often.

Each is made in the middle of a run, in a service on SQLite of its own, and mended some seconds
later; the run must then end as an undisturbed one.
"""

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.faults.deployment import Deployment, wait_until
from bench.faults.jobs import SPEC, ended, faults_of, weights
from bench.faults.report import Report
from bench.faults.stages import wait_for
from mlhf_service.client import ServiceError

_FULL = "the disk is full for a while"
_FULL_SECONDS = 6.0
_DISK_BYTES = 96 * 2**20


def run(deployment: Deployment, expected: str, report: Report, folder: Path) -> None:
    """Make each fault once; ``folder`` is for a service whose disk is filled."""
    for name, fault in _FAULTS.items():
        if name not in report.made:
            report.special(name, fault(deployment, expected))
    if _FULL not in report.made:
        report.special(_FULL, full_disk(folder, report))


def deleted_spool(deployment: Deployment, expected: str) -> list[str]:
    """Every spool folder is deleted under the trainers."""
    job_id = _running(deployment, "spool")
    for path in (deployment.data / "spool").iterdir():
        shutil.rmtree(path, ignore_errors=True)
    return faults_of(deployment, ended(deployment, job_id), expected)


def deleted_artifacts(deployment: Deployment, expected: str) -> list[str]:
    """The whole store is deleted while a run has a checkpoint in it, and its trainer killed."""
    job_id = _running(deployment, "artifacts", "checkpointing")
    doomed = deployment.data / "deleted"
    (deployment.data / "artifacts").rename(doomed)  # at once: else a writer comes in between
    shutil.rmtree(doomed)
    for pid in deployment.pids("trainer"):
        deployment.kill("trainer", pid, 0.0)
    return faults_of(deployment, ended(deployment, job_id), expected)


def damaged_checkpoints(deployment: Deployment, expected: str) -> list[str]:
    """The middle of every checkpoint is overwritten, and the trainer killed."""
    job_id = _running(deployment, "damage", "checkpointing")
    time.sleep(1.0)
    for path in (deployment.data / "artifacts").glob("runs/*/*/step-*.safetensors"):
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"\xff" * 400)
    for pid in deployment.pids("trainer"):
        deployment.kill("trainer", pid, 0.0)
    return faults_of(deployment, ended(deployment, job_id), expected)


def many_doorbells(deployment: Deployment, expected: str) -> list[str]:
    """A doorbell for each of four jobs, delivered fifty times: each is trained once."""
    messages = deployment.data / "broker"
    jobs = [deployment.submit(SPEC, f"bells-{number}") for number in range(4)]
    for number in range(50):
        for path in list(messages.glob("*.msg"))[:4]:
            content = _read(path)
            if content:
                copy = messages / f"{time.monotonic_ns()}_{number}.mlhf.cpu.msg"
                copy.write_bytes(content)
        time.sleep(0.01)
    faults = []
    for job_id in jobs:
        job = ended(deployment, job_id)
        faults += faults_of(deployment, job, expected)
        if job["attempts"] != 1:
            faults.append(f"{job_id}: {job['attempts']} attempts, though nothing failed")
    return faults


_FAULTS: dict[str, Callable[[Deployment, str], list[str]]] = {
    "the spool is deleted": deleted_spool,
    "the store is deleted": deleted_artifacts,
    "all checkpoints are damaged": damaged_checkpoints,
    "doorbells are delivered many times": many_doorbells,
}


def full_disk(folder: Path, report: Report) -> list[str]:
    """A run's disk is full for some seconds; jobs are refused with 507 meanwhile."""
    with _small_disk(folder) as mounted:
        if not mounted:
            return report.skipped("no small file system can be mounted")
        deployment = Deployment(folder, {}, {"MLHF_MIN_FREE_BYTES": str(4 * 2**20)})
        try:
            first = ended(deployment, deployment.submit(SPEC, "before"))
            expected = weights(deployment, first)
            assert expected is not None, first["error"]
            job_id = _running(deployment, "full")
            filler = folder / "filler"
            _fill(filler)
            faults = _refusals(deployment)
            time.sleep(_FULL_SECONDS)
            filler.unlink()
            return faults + faults_of(deployment, ended(deployment, job_id), expected)
        finally:
            report.faults(deployment.end())


def _refusals(deployment: Deployment) -> list[str]:
    try:
        deployment.client.submit(SPEC, "while full")
    except ServiceError as error:
        return [] if "full" in str(error) else [f"a full disk is told as: {error}"]
    return ["a job was taken though the disk is full"]


def _running(deployment: Deployment, key: str, stage: str = "running") -> str:
    job_id = deployment.submit(SPEC, key)
    (run_id,) = deployment.patiently(lambda: deployment.client.job(job_id))["run_ids"]
    wait_for(deployment, run_id, stage, random.Random(key))
    return job_id


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            return


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    folder.mkdir(parents=True)
    options = f"size={_DISK_BYTES},mode=755"
    command = ["mount", "-t", "tmpfs", "-o", options, "mlhf-faults", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            wait_until(
                lambda: subprocess.run(["umount", str(folder)], check=False).returncode == 0,
                "the small disk could not be unmounted",
                10.0,
            )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
