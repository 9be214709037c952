"""Run one worker of one queue in this process: ``python -m mlhf_service.queue.worker_main``."""

import argparse
import logging
import os
import signal
import sys

from mlhf.core.process import die_with_parent
from mlhf_service.queue.celery_app import celery_app, configure
from mlhf_service.queue.names import QUEUES, broker_queue
from mlhf_service.queue.worker import WORKER_QUEUE
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
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    os.environ[WORKER_QUEUE] = options.queue
    configure(Settings())
    arguments = [
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


if __name__ == "__main__":
    main()
