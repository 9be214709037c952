"""How long after a fault the service gets on with its jobs."""

import time
from collections.abc import Sequence

import httpx

from bench.faults.deployment import Deployment, wait_until
from mlhf_service.client import ServiceError

_SECONDS = 1200.0


def seconds_to_get_on(deployment: Deployment, job_ids: Sequence[str]) -> float:
    """Seconds from now until one of these jobs has succeeded or is further than it was.

    Raises TimeoutError, with what became of them, where all have failed, or none gets on in twenty
    minutes: a start of all takes some 20 s of a core, and a busy machine gives each service little
    of one.
    """
    began = time.monotonic()
    seen: dict[str, list[float]] = {job_id: [] for job_id in job_ids}
    told: dict[str, str] = {}

    def gets_on() -> bool:
        for job_id, earlier in seen.items():
            try:
                job = deployment.client.job(job_id)
            except ServiceError:
                deployment.keep_running()
                return False
            told[job_id] = f"{job_id} is {job['status']}: {job['error'] or job['waiting']}"
            if job["status"] == "succeeded":
                return True
            if job["status"] != "running":
                continue
            progress = (job["progress"] or {}).get("step") or 0
            # After a fall-back to a checkpoint it is behind where it was, and gets on from there.
            if any(progress > before for before in earlier):
                return True
            earlier.append(progress)
        if all("is failed" in told.get(job_id, "") for job_id in seen):
            raise TimeoutError("\n".join(told.values()))
        return False

    try:
        wait_until(gets_on, "none got further", _SECONDS)
    except TimeoutError as error:
        states = "\n".join(told.values())
        raise TimeoutError(f"{error}\n{states}\n{_workers(deployment)}") from None
    return time.monotonic() - began


def _workers(deployment: Deployment) -> str:
    """What the service says of its workers that still report."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{deployment.port}/v1/workers", timeout=10)
        found = answer.json()["data"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return f"its workers are not told: {error}"
    return "\n".join(
        f"{each['name']} {each['state']}, run {each['run_id']}, seen "
        f"{each['seen_seconds_ago']:.0f} s ago, {each['reason']}"
        for each in found
        if each["state"] != "silent"
    )
