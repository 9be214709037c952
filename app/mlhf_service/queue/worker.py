"""The Celery worker: on each doorbell it trains runs until none is waiting."""

import logging
import os
import secrets
import signal
import socket
from typing import Any

from celery.signals import worker_process_init, worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from mlhf.core.process import die_with_parent
from mlhf_service.database import Database
from mlhf_service.queue import stopping
from mlhf_service.queue.attempt import Attempt
from mlhf_service.queue.celery_app import celery_app
from mlhf_service.queue.leases import claim_next
from mlhf_service.queue.names import DOORBELL
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage

log = logging.getLogger(__name__)

WORKER_QUEUE = "MLHF_WORKER_QUEUE"


def drain(settings: Settings, database: Database, queue: str) -> int:
    """Claim and train runs until none waits or the worker stops. Returns how many."""
    storage = FolderStorage(settings.artifacts_dir)
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    trained = 0
    while not stopping.requested():
        claim = claim_next(database, queue, owner, settings.lease_seconds)
        if claim is None:
            break
        log.info("run %s, attempt %s", claim.run_id, claim.attempt)
        Attempt(settings, database, storage, claim, stopping.requested).run()
        trained += 1
    return trained


@celery_app.task(name=DOORBELL, ignore_result=True)  # type: ignore[untyped-decorator]
def answer() -> None:
    """Answer the doorbell. The message is empty: the work is in the database."""
    settings = Settings()
    database = Database(settings.database)
    try:
        drain(settings, database, os.environ[WORKER_QUEUE])
    except SQLAlchemyError as error:  # the sweeper rings again
        log.warning("database away: %s", type(error).__name__)
    finally:
        database.dispose()


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _in_child(**_: Any) -> None:
    # The trainer dies with this process, and this one with Celery's main process.
    die_with_parent(signal.SIGKILL)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop(**_: Any) -> None:
    stopping.request()
