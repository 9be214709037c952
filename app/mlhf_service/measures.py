"""What processes count and time, for Prometheus.

The processes of one supervisor write into one folder, where ``measures_folder`` made one before
this module was first imported; any of them can then give the numbers of all.
"""

import os
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from mlhf_service.measures_folder import FOLDER

_LONG = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
# As prometheus_client decided when it was imported: a folder named later is not written to.
_SHARED = FOLDER in os.environ
_OWN = CollectorRegistry()  # of this process, where no folder is shared

REQUESTS = Counter("mlhf_http_requests", "Requests.", ("method", "route", "status"), registry=_OWN)
REQUEST_SECONDS = Histogram(
    "mlhf_http_request_seconds", "Time to a response's start.", ("method", "route"), registry=_OWN
)
CLAIM_SECONDS = Histogram(
    "mlhf_claim_seconds", "What it took a worker to take a run.", ("queue",), registry=_OWN
)
WAIT_SECONDS = Histogram(
    "mlhf_run_wait_seconds",
    "From when a run could start to when a worker took it.",
    ("queue",),
    buckets=_LONG,
    registry=_OWN,
)
ATTEMPT_SECONDS = Histogram(
    "mlhf_attempt_seconds",
    "What attempts at runs took, by how they ended.",
    ("kind", "outcome"),
    buckets=_LONG,
    registry=_OWN,
)
RETRIES = Counter(
    "mlhf_retries", "Attempts after which a run waits again.", ("reason",), registry=_OWN
)
LEASES_EXPIRED = Counter("mlhf_leases_expired", "Runs taken from silent workers.", registry=_OWN)
INGEST_LAG_SECONDS = Histogram(
    "mlhf_ingest_lag_seconds",
    "Age of the oldest of a batch of a trainer's events when it is in the database.",
    buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600),
    registry=_OWN,
)
EVENTS = Counter("mlhf_events_ingested", "Trainers' events written.", ("type",), registry=_OWN)


def text() -> bytes:
    """All numbers in Prometheus' text format."""
    return generate_latest(_of_all())


def serve(host: str, port: int) -> Callable[[], None]:
    """Answer Prometheus on a port of its own, in a thread; returns what stops it."""
    server, thread = start_http_server(port, host, _of_all())

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return stop


def _of_all() -> CollectorRegistry:
    if not _SHARED:
        return _OWN
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry
