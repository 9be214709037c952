"""Whether the service lives, and whether it can take work."""

import threading
import time
from collections.abc import Iterator
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlhf_service.data_folder import full_disk
from mlhf_service.errors import StartError
from mlhf_service.kit.problems import Unavailable
from mlhf_service.queue.celery_app import require_broker
from mlhf_service.runs.models import Run
from mlhf_service.settings import Settings
from mlhf_service.workers import repository as workers
from mlhf_service.workers.models import UNFIT

router = APIRouter(tags=["health"])

_BROKER_SECONDS = 5.0  # how long what was found about the broker holds


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Jobs can be taken; the warnings say what keeps them from being trained."""

    status: Literal["ok"] = "ok"
    warnings: list[str] = Field([], description="What is missing, and what to do about it.")


class BrokerWatch:
    """Asks a broker now and then, in a thread of its own: an answer may take seconds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._asked_at = -_BROKER_SECONDS
        self._warning: str | None = None

    def warning(self) -> str | None:
        """What was last found; asks again where that is some seconds ago."""
        with self._lock:
            if time.monotonic() - self._asked_at >= _BROKER_SECONDS:
                self._asked_at = time.monotonic()
                threading.Thread(target=self._ask, name="broker-watch", daemon=True).start()
        return self._warning

    def _ask(self) -> None:
        try:
            require_broker(self._settings)
        except StartError as error:
            self._warning = f"{error}. Jobs wait for the next poll instead of being rung for."
        else:
            self._warning = None


@router.get("/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz")
def readyz(request: Request) -> Readiness:
    """Jobs can be taken: the database answers, and there is room; 503 where not.

    What only keeps jobs from being trained (no broker, no worker) is a warning.
    """
    state = request.app.state
    with state.database.read() as session:
        warnings = list(_of_workers(session, state.settings))
    if (reason := full_disk(state.settings)) is not None:
        raise Unavailable(reason, headers={"Retry-After": "30"})
    broker = state.broker_watch.warning()
    return Readiness(warnings=warnings if broker is None else [broker, *warnings])


def _of_workers(session: Session, settings: Settings) -> Iterator[str]:
    there = workers.alive(session, settings.lease_seconds)
    unfit = [worker for worker in there if worker.state == UNFIT]
    if not there:
        yield "No worker is there: jobs wait until one starts (mlhf worker)."
    for worker in unfit:
        yield f"The worker {worker.name} on {worker.host} takes no runs. {worker.reason}"
    if there and len(unfit) == len(there):
        yield "No worker is fit to train: jobs wait until one is."
    served = {worker.queue for worker in there}
    counts = select(Run.queue, func.count()).where(Run.status == "queued").group_by(Run.queue)
    for queue, waiting in session.execute(counts):
        if there and queue not in served:
            yield (
                f"{waiting} runs wait in the queue {queue}, which has no worker: start one with "
                f"mlhf worker --queue {queue}."
            )
