"""/metrics: what processes measured, and the state of queue, workers and disk."""

import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from sqlalchemy import case, extract, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlhf_service import measures
from mlhf_service.api.hosts import route_path
from mlhf_service.api.policy import decide
from mlhf_service.database import Database, db_now
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.queue.names import QUEUES
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import ACTIVE, STATUSES, TERMINAL
from mlhf_service.settings import Settings
from mlhf_service.workers import repository as workers

_RARELY = 50  # at most so little of the time, one part of so many, is spent on counting what ended


class StateCollector(Collector):
    """Read from the database at each scrape, so that every process gives the same.

    What has ended is most of what there is, and counting it takes as long as there is much of it:
    each process keeps those numbers for ``_RARELY`` times as long as counting them took.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._ended: dict[str, tuple[dict[str, int], float]] = {}  # and until when it is taken

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("mlhf_database_up", "Whether the database answers.")
        try:
            with self._database.read() as session:
                found = [*self._counts(session), *_queues(session), self._workers(session)]
        except SQLAlchemyError:
            found = []
        up.add_metric([], float(bool(found)))
        yield from (up, *found, self._disk())

    def _counts(self, session: Session) -> Iterator[Metric]:
        for name, table in (("jobs", Job), ("runs", Run)):
            family = GaugeMetricFamily(f"mlhf_{name}", f"{name} by status.", labels=["status"])
            counts = self._count_ended(session, table) | _by_status(session, table, ACTIVE)
            for status in STATUSES:
                family.add_metric([status], counts.get(status, 0))
            yield family
        waiting = session.scalar(select(func.count()).select_from(Outbox)) or 0
        yield GaugeMetricFamily("mlhf_outbox", "Doorbells not yet rung.", value=waiting)

    def _count_ended(self, session: Session, table: type[Job | Run]) -> dict[str, int]:
        began = time.monotonic()
        counts, until = self._ended.get(table.__tablename__, ({}, 0.0))
        if began >= until:
            counts = _by_status(session, table, TERMINAL)
            ended = time.monotonic()
            self._ended[table.__tablename__] = counts, ended + _RARELY * (ended - began)
        return counts

    def _workers(self, session: Session) -> Metric:
        family = GaugeMetricFamily(
            "mlhf_workers", "Workers seen within a lease.", labels=["queue", "state"]
        )
        alive = workers.alive(session, self._settings.lease_seconds)
        for (queue, state), count in Counter((w.queue, w.state) for w in alive).items():
            family.add_metric([queue, state], count)
        return family

    def _disk(self) -> Metric:
        family = GaugeMetricFamily(
            "mlhf_disk_free_bytes",
            "Room left where this process keeps its state.",
            labels=["folder"],
        )
        family.add_metric(["data"], shutil.disk_usage(self._settings.root).free)
        return family


def _by_status(session: Session, table: type[Job | Run], of: Collection[str]) -> dict[str, int]:
    statement = select(table.status, func.count()).where(table.status.in_(of))
    return {row[0]: row[1] for row in session.execute(statement.group_by(table.status))}


def _queues(session: Session) -> Iterator[Metric]:
    """How many runs could start now, and since when the one that waits longest could."""
    depth = GaugeMetricFamily("mlhf_queue_depth", "Runs that wait for a worker.", labels=["queue"])
    age = GaugeMetricFamily(
        "mlhf_queue_age_seconds", "How long the longest of them has waited.", labels=["queue"]
    )
    created = extract("epoch", Run.created_at)
    since = case((Run.available_at > created, Run.available_at), else_=created)
    rows = session.execute(
        select(Run.queue, func.count(), db_now() - func.min(since))
        .where(Run.status == "queued", Run.available_at <= db_now())
        .group_by(Run.queue)
    )
    found = {queue: (count, float(seconds)) for queue, count, seconds in rows}
    for queue in QUEUES:
        count, seconds = found.get(queue, (0, 0.0))
        depth.add_metric([queue], count)
        age.add_metric([queue], max(0.0, seconds))
    yield from (depth, age)


class RequestMetrics:
    """Count and time each request under the pattern of its route, never its raw path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                method, route = _labels(scope)
                measures.REQUESTS.labels(method, route, message["status"]).inc()
                seconds = time.perf_counter() - began
                measures.REQUEST_SECONDS.labels(method, route).observe(seconds)
            await send(message)

        await self.app(scope, receive, observed)


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def _labels(scope: Scope) -> tuple[str, str]:
    """Of bounded number, whatever is sent."""
    method = scope["method"]
    route = decide("GET" if method == "HEAD" else method, route_path(scope))
    return method if method in _METHODS else "other", route[0] if route else "unmatched"


def install(app: FastAPI) -> None:
    """Measure ``app`` and serve /metrics."""
    state = CollectorRegistry()
    state.register(StateCollector(app.state.settings, app.state.database))
    app.add_middleware(RequestMetrics)

    @app.get(
        "/metrics",
        tags=["health"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(generate_latest(state) + measures.text(), media_type=CONTENT_TYPE_LATEST)
