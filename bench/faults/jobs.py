"""The jobs that are disturbed, and what must hold of each when it has ended."""

import time
from collections import Counter
from typing import Any

from bench.faults.deployment import Deployment
from mlhf_service.client.records import TERMINAL

STEPS = 400  # some 2 s of a free core, and several checkpoints
_END_SECONDS = 1200.0  # on a busy machine one worker has some six of them before it
# Dropout, and an optimizer with state: what a resumed run must restore.
SPEC: dict[str, Any] = {
    "kind": "train",
    "model": {"name": "mlp", "params": {"hidden": [64, 64], "dropout": 0.1}},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "hf_adam"},
    "budget": {"steps": STEPS},
    "batch_size": 64,
    "evaluation": {"every_epochs": 20},
    "seed": 7,
}


def weights(deployment: Deployment, job: dict[str, Any]) -> str | None:
    """The SHA-256 of a job's model, if it has one."""
    (run_id,) = job["run_ids"]
    files = deployment.patiently(lambda: deployment.client.get(f"/v1/runs/{run_id}/artifacts"))
    found = [f["sha256"] for f in files["data"] if f["name"] == "model.safetensors"]
    return str(found[0]) if found else None


def undisturbed(deployment: Deployment) -> str:
    """Train once without a fault; returns the SHA-256 of the weights."""
    job = ended(deployment, deployment.submit(SPEC, "undisturbed"))
    found = weights(deployment, job)
    assert found is not None, f"not even an undisturbed run succeeded: {job['error']}"
    return found


def ended(deployment: Deployment, job_id: str) -> dict[str, Any]:
    """Wait until a job has ended, whatever becomes of the service meanwhile."""
    deadline = time.monotonic() + _END_SECONDS
    while True:
        job = deployment.patiently(lambda: deployment.client.job(job_id))
        if job["status"] in TERMINAL:
            return job
        if time.monotonic() > deadline:
            raise TimeoutError(f"{job_id} is still {job['status']}: {job['progress']}")
        time.sleep(0.3)


def faults_of(deployment: Deployment, job: dict[str, Any], expected: str) -> list[str]:
    """What is wrong with a job that has ended.

    Args:
        expected: The SHA-256 of the weights of an undisturbed run.
    """
    client, name = deployment.client, f"{deployment.folder.name}/{job['id']}"
    if job["status"] != "succeeded":
        return [f"{name}: {job['status']}, {job['error']}"]
    faults = []
    (run_id,) = job["run_ids"]
    curves = deployment.patiently(
        lambda: client.get(f"/v1/runs/{run_id}/curves", metric="batch_loss", x="steps")
    )
    steps = Counter(int(point[0]) for point in curves["series"][0]["points"])
    if steps != Counter(range(1, STEPS + 1)):
        lost = sorted(set(range(1, STEPS + 1)) - set(steps))[:5]
        doubled = [step for step, count in steps.items() if count > 1][:5]
        faults.append(f"{name}: {steps.total()} points of {STEPS}; lost {lost}, doubled {doubled}")
    events = deployment.patiently(lambda: list(client.events(job["id"])))
    if [int(event["id"]) for event in events] != list(range(1, len(events) + 1)):
        faults.append(f"{name}: its events have gaps")
    ends = [
        event["data"]["status"]
        for event in events
        if event["event"] == "status"
        and event["data"]["status"] in ("succeeded", "failed", "cancelled")
    ]
    if ends != ["succeeded", "succeeded"]:  # one of the run, one of the job
        faults.append(f"{name}: ended {len(ends)} times: {ends}")
    if weights(deployment, job) != expected:
        faults.append(f"{name}: its weights are not those of an undisturbed run")
    return faults
