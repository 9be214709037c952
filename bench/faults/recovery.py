"""How long after a fault the service gets on with its jobs."""

import time
from collections.abc import Sequence

from bench.faults.deployment import Deployment, wait_until
from mlhf_service.client import ServiceError

_SECONDS = 1200.0


def seconds_to_get_on(deployment: Deployment, job_ids: Sequence[str]) -> float:
    """Seconds from now until one of these jobs has succeeded or is further than it was.

    Raises TimeoutError where none gets on in twenty minutes: a start of all takes some 20 s of a
    core, and a busy machine gives each service little of one.
    """
    began = time.monotonic()
    seen: dict[str, list[float]] = {job_id: [] for job_id in job_ids}

    def gets_on() -> bool:
        for job_id, earlier in seen.items():
            try:
                job = deployment.client.job(job_id)
            except ServiceError:
                deployment.keep_running()
                return False
            if job["status"] == "succeeded":
                return True
            if job["status"] != "running":
                continue
            progress = (job["progress"] or {}).get("step") or 0
            # After a fall-back to a checkpoint it is behind where it was, and gets on from there.
            if any(progress > before for before in earlier):
                return True
            earlier.append(progress)
        return False

    wait_until(gets_on, f"none of {', '.join(job_ids)} got further", _SECONDS)
    return time.monotonic() - began
