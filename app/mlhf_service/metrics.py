"""Prometheus metrics: requests by route, jobs and runs by status."""

import time
from collections.abc import Iterator

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlhf_service.database import Database
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import STATUSES


class QueueCollector(Collector):
    """Counts read from the database at each scrape, so that every process gives the same."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        with self._database.read() as session:
            for name, table in (("jobs", Job), ("runs", Run)):
                family = GaugeMetricFamily(f"mlhf_{name}", f"{name} by status", labels=["status"])
                rows = session.execute(select(table.status, func.count()).group_by(table.status))
                counts: dict[str, int] = {row[0]: row[1] for row in rows}
                for status in STATUSES:
                    family.add_metric([status], counts.get(status, 0))
                yield family
            waiting = session.scalar(select(func.count()).select_from(Outbox)) or 0
            yield GaugeMetricFamily("mlhf_outbox", "doorbells not yet rung", value=waiting)


class RequestMetrics:
    """Count and time each request under the pattern of its route, never its raw path."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        labels = ("method", "route", "status")
        self._count = Counter("mlhf_http_requests", "requests", labels, registry=registry)
        self._seconds = Histogram(
            "mlhf_http_request_seconds",
            "time to the response's start",
            labels[:2],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unmatched")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._count.labels(method, route, message["status"]).inc()
                self._seconds.labels(method, route).observe(time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, observed)


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def install(app: FastAPI) -> None:
    """Measure ``app`` and serve /metrics."""
    registry = CollectorRegistry()
    registry.register(QueueCollector(app.state.database))
    app.add_middleware(RequestMetrics, registry=registry)

    @app.get(
        "/metrics",
        tags=["health"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
