"""The Celery worker: on each doorbell it trains what waits, until nothing does."""

import argparse
import logging
import os
import secrets
import signal
import socket
import sys
from typing import Any

from celery.signals import worker_process_init, worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database
from app.queue import doorbell, stopping
from app.queue.celery_app import celery_app, configure
from app.queue.leases import claim_next
from app.queue.supervise import Supervision
from app.settings import Settings
from app.storage.folder import FolderStorage
from engine.training.process import die_with_parent

log = logging.getLogger(__name__)

_QUEUE = "MLHF_WORKER_QUEUE"


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
        Supervision(settings, database, storage, claim, stopping.requested).run()
        trained += 1
    return trained


@celery_app.task(name=doorbell.TASK, ignore_result=True)  # type: ignore[untyped-decorator]
def answer() -> None:
    """Answer the doorbell. The message says nothing; the database says all."""
    settings = Settings()
    database = Database(settings.database)
    try:
        drain(settings, database, os.environ[_QUEUE])
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


def main() -> None:
    """Run one worker of one queue in this process: ``python -m app.queue.worker``."""
    parser = argparse.ArgumentParser(prog="python -m app.queue.worker")
    parser.add_argument("--queue", choices=doorbell.QUEUES, default="cpu")
    parser.add_argument("--name", default="worker")
    parser.add_argument("--parent", type=int, default=None, help="Stop when this process ends.")
    options = parser.parse_args()
    if options.parent is not None:
        die_with_parent(signal.SIGTERM, options.parent)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    os.environ[_QUEUE] = options.queue
    configure(Settings())
    celery_app.worker_main(
        [
            "worker", "--pool=prefork", "--concurrency=1", "--without-gossip",
            "--without-mingle", "--without-heartbeat", "--loglevel=INFO",
            f"--queues=mlhf.{options.queue}", f"--hostname={options.name}@%h",
        ]
    )  # fmt: skip


if __name__ == "__main__":
    sys.modules.setdefault("app.queue.worker", sys.modules["__main__"])
    main()
