"""Run one worker of one queue in this process: ``python -m mlhf_service.queue.worker_main``."""

import argparse
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from mlhf.core.imports import importing
from mlhf.core.process import die_with_parent
from mlhf_service import logs, tracing
from mlhf_service.kit.ids import new_id
from mlhf_service.queue.names import QUEUES, WORKER_SLOT, broker_queue
from mlhf_service.settings import Settings


def main() -> None:
    """Start Celery with one child, which trains one run at a time."""
    parser = argparse.ArgumentParser(prog="python -m mlhf_service.queue.worker_main")
    parser.add_argument("--queue", choices=QUEUES, default="cpu")
    parser.add_argument("--name", default="worker")
    parser.add_argument("--parent", type=int, default=None, help="Stop when this process ends.")
    options = parser.parse_args()
    if options.parent is not None:
        die_with_parent(signal.SIGTERM, options.parent)
    settings = Settings()
    with importing():
        from celery.signals import setup_logging

        from mlhf_service.queue.celery_app import celery_app, configure
        from mlhf_service.queue.worker import WORKER_ID, WORKER_NAME, WORKER_QUEUE
    logs.configure(
        settings.log_format,
        process=f"worker-{options.name}",
        level=settings.log_level,
        secrets=settings.secrets(),
        more=[tracing.add_ids],
    )
    os.environ |= {
        WORKER_ID: new_id("wrk"),
        WORKER_SLOT: os.environ.get(WORKER_SLOT) or new_id("slot"),
        WORKER_NAME: options.name,
        WORKER_QUEUE: options.queue,
    }
    _share_scratch_folder(options.name)
    configure(settings)
    setup_logging.connect(_keep_ours)
    arguments = [
        "--quiet",  # no banner, which is no line of a log
        "worker",
        "--pool=prefork",
        "--concurrency=1",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        "--loglevel=INFO",
        f"--queues={broker_queue(options.queue)}",
        f"--hostname={options.name}@%h",
    ]
    code = 1
    try:
        code = celery_app.start(arguments) or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        # Celery has stopped and its child has ended. Only a thread of its pool is left, which
        # would keep us for five seconds.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)


def _keep_ours(**_: Any) -> None:
    """Connected to this signal, Celery leaves logging as it is."""


def _share_scratch_folder(name: str) -> None:
    """Have Celery's pool use one folder however often this worker is killed and started.

    The pool makes one of a random name, and only a process that ends in order deletes it.
    """
    folder = Path(tempfile.gettempdir()) / f"pool-{name}"
    folder.mkdir(exist_ok=True)
    multiprocessing.current_process()._config["tempdir"] = str(folder)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
