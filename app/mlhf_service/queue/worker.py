"""The Celery worker: on each doorbell it trains runs until none is waiting."""

import logging
import os
import secrets
import signal
import socket
import sys
import time
from functools import partial
from threading import Thread
from typing import Any

from celery.signals import worker_process_init, worker_process_shutdown, worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from mlhf.core.process import die_with_parent
from mlhf_service import logs, measures, tracing
from mlhf_service.database import Database
from mlhf_service.datasets.installed import here, not_here
from mlhf_service.queue import doorbell, stopping
from mlhf_service.queue.attempt import Attempt
from mlhf_service.queue.celery_app import celery_app
from mlhf_service.queue.claims import Limits, claim_next, could_claim
from mlhf_service.queue.hearing import Hearing
from mlhf_service.queue.names import DOORBELL, WORKER_SLOT
from mlhf_service.queue.prepare import default_threads
from mlhf_service.queue.spare import Spare
from mlhf_service.queue.sweeper import release
from mlhf_service.queue.trainer_process import trainer_environment
from mlhf_service.settings import Settings
from mlhf_service.storage.factory import open_storage
from mlhf_service.workers.fitness import Fitness
from mlhf_service.workers.registration import Identity, Registration
from mlhf_service.workers.selfcheck import DeviceCheck, checks

log = logging.getLogger(__name__)

# How Celery's main process tells its child who it is.
WORKER_QUEUE, WORKER_NAME, WORKER_ID = "MLHF_WORKER_QUEUE", "MLHF_WORKER_NAME", "MLHF_WORKER_ID"

_UNFIT_SECONDS = 0.5
_registration: Registration | None = None  # of this process, Celery's child
_hearing: Hearing | None = None

_spare = Spare()  # of this process
_process = secrets.token_hex(4)  # names it in its leases; a fork chooses another


def drain(
    settings: Settings,
    database: Database,
    queue: str,
    registration: Registration,
    spare: Spare | None = None,
) -> int:
    """Claim and train runs until none waits or the worker stops. Returns how many.

    An unfit worker waits here until it is fit again: meanwhile it takes no further doorbell,
    which a fit one may answer.
    """
    storage = open_storage(settings)
    owner = f"{socket.gethostname()}:{os.getpid()}:{os.environ.get(WORKER_SLOT, '')}:{_process}"
    limits = Limits.of(settings)
    trained = 0
    while not stopping.requested():
        if registration.fitness.check() is not None:
            registration.notify()
            time.sleep(_UNFIT_SECONDS)
            continue
        lacking = not_here(settings)
        began = time.monotonic()
        claim = claim_next(database, queue, owner, settings.lease_seconds, limits, lacking)
        if claim is None:
            break
        claimed = time.monotonic()
        measures.CLAIM_SECONDS.labels(queue).observe(claimed - began)
        taken = time.time()
        tracing.record("claim", taken - (claimed - began), taken, claim.traceparent)
        ids: dict[str, Any] = {
            "run_id": claim.run_id,
            "job_id": claim.job_id,
            "attempt": claim.attempt,
        }
        span = tracing.span("attempt", claim.traceparent, kind=claim.kind, **ids)
        with logs.bound(**ids), span, registration.training(claim.run_id):
            log.info("run %s, attempt %s", claim.run_id, claim.attempt)
            attempt = Attempt(settings, database, storage, claim, stopping.requested, spare)
            outcome = attempt.run()
        seconds, end = time.monotonic() - claimed, outcome.kind if outcome else "fenced"
        measures.ATTEMPT_SECONDS.labels(claim.kind, end).observe(seconds)
        if outcome is not None and outcome.kind == "unfit":
            registration.fitness.suspect(outcome.reason, claim.run_id)
            registration.notify()
        elif outcome is not None and outcome.kind != "lost":
            registration.fitness.trust()
        trained += 1
    return trained


@celery_app.task(name=DOORBELL, ignore_result=True)  # type: ignore[untyped-decorator]
def answer() -> None:
    """Answer the doorbell. The message is empty: the work is in the database."""
    assert _registration is not None
    assert _hearing is not None
    settings = Settings()
    database = Database(settings.database)
    spare = _spare if settings.spare else None
    try:
        with _hearing:
            drain(settings, database, os.environ[WORKER_QUEUE], _registration, spare)
    except SQLAlchemyError as error:  # the sweeper rings again
        log.warning("database away: %s", type(error).__name__)
    finally:
        database.dispose()
        tracing.flush()


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _in_child(**_: Any) -> None:
    # The trainer dies with this process, and this one with Celery's main process.
    die_with_parent(signal.SIGKILL)
    global _registration, _hearing, _process
    _process = secrets.token_hex(4)
    tracing.configure("worker")
    _registration = _register()
    _registration.start()
    settings = Settings()
    database = Database(settings.database)
    asked = partial(_could_claim, settings, database, _registration.fitness)
    ring = partial(doorbell.ring, os.environ[WORKER_QUEUE], expires=10.0)
    _hearing = Hearing(asked, ring, _start_anew)
    _hearing.start()
    if sys.platform.startswith("linux"):  # elsewhere processes outlive their parents
        Thread(target=_release, args=(settings,), name="release", daemon=True).start()
    if settings.spare:
        _spare.start(trainer_environment(default_threads(settings)))


def _could_claim(settings: Settings, database: Database, fitness: Fitness) -> bool:
    """Whether a run waits that this worker could take now."""
    if stopping.requested() or fitness.reason is not None:
        return False
    limits, lacking = Limits.of(settings), not_here(settings)
    return could_claim(database, os.environ[WORKER_QUEUE], socket.gethostname(), limits, lacking)


def _start_anew() -> None:
    """End Celery's main process, and this one with it: the supervisor starts another."""
    os.kill(os.getppid(), signal.SIGKILL)


def _release(settings: Settings) -> None:
    """Take back what a process killed before this one held, while its lease would still last.

    Celery's main process, or the supervisor, starts a process in a slot only when the one before
    has ended, so that nothing alive holds a lease in its name.
    """
    slot, began = os.environ[WORKER_SLOT], time.monotonic()
    database = Database(settings.database)
    while time.monotonic() - began < settings.lease_seconds:
        try:
            release(database, slot, _process, settings.max_attempts)
            break
        except SQLAlchemyError as error:
            log.warning("nothing taken back yet: %s", type(error).__name__)
            time.sleep(1.0)
    database.dispose()


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _sign_off(**_: Any) -> None:
    if _registration is not None:
        _registration.stop()


def _register() -> Registration:
    settings = Settings()
    who = Identity(
        id=os.environ[WORKER_ID],
        name=os.environ[WORKER_NAME],
        queue=os.environ[WORKER_QUEUE],
        pid=os.getppid(),
    )
    device: dict[str, Any] = {"type": "cuda" if who.queue == "gpu" else "cpu"}
    # A GPU that does not answer is known before the first run meets it.
    fitness = Fitness(checks(settings), DeviceCheck(who.queue, device.update), who.queue == "gpu")
    database = Database(settings.database)
    return Registration(
        settings, database, who, device, fitness, stopping.requested, partial(here, settings)
    )


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop(**_: Any) -> None:
    stopping.request()
