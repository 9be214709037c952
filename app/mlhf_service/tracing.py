"""Traces by OpenTelemetry, from a request to the events of its trainers.

On where the standard variables name a collector (``OTEL_EXPORTER_OTLP_ENDPOINT``) and the extra
``telemetry`` is installed. While off, every call here is a comparison with None.

The context of a trace is stored with the job and travels with it: the worker that takes a run
may do so days later, on another machine.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer
    from starlette.applications import Starlette

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROBES = "healthz,readyz,metrics"
_NANOSECONDS = 1_000_000_000

_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None


def configure(process: str, exporter: "SpanExporter | None" = None) -> None:
    """Send the spans of this process to the collector, if one is named. Not before a fork.

    Args:
        process: ``api`` or ``worker``: ends the service's name, ``mlhf-api``.
        exporter: In place of the collector, and at once: for tests.
    """
    global _provider, _tracer
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if exporter is None and (disabled or not any(map(os.environ.get, _ENDPOINTS))):
        return
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    except ImportError:
        log.warning("no traces: pip install 'mlhf[telemetry]'")
        return
    name = os.environ.get("OTEL_SERVICE_NAME", "mlhf")
    _provider = TracerProvider(resource=Resource.create({"service.name": f"{name}-{process}"}))
    if exporter is not None:
        _provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("mlhf_service")


def stop() -> None:
    """Send what is left, and be off again."""
    global _provider, _tracer
    if _provider is not None:
        _provider.shutdown()
    _provider = _tracer = None


def flush() -> None:
    """Send what is left: before a process that may be killed waits for work."""
    if _provider is not None:
        _provider.force_flush(2000)


def instrument(app: "Starlette") -> None:
    """A span for each request, the child of the caller's (``traceparent``)."""
    if _provider is None:
        return
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.util.http import parse_excluded_urls

    app.add_middleware(
        OpenTelemetryMiddleware,
        excluded_urls=parse_excluded_urls(_PROBES),
        tracer_provider=_provider,
        exclude_spans=["receive", "send"],
    )


def current() -> str | None:
    """The present context as a ``traceparent``, to be stored; None while off or outside."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def span(name: str, parent: str | None = None, **attributes: Any) -> Iterator[None]:
    """A span around this block; with ``parent`` (a ``traceparent``) it goes on a stored trace."""
    if _tracer is None:
        yield
        return
    with _tracer.start_as_current_span(
        name, context=_context(parent), attributes=_shown(attributes)
    ):
        yield


def record(
    name: str,
    start: float,
    end: float,
    parent: str | None = None,
    moments: Mapping[str, float] | None = None,
    **attributes: Any,
) -> None:
    """A span of what has happened, in seconds since 1970.

    Args:
        moments: Events within it, by what happened.
    """
    if _tracer is None:
        return
    made = _tracer.start_span(
        name,
        context=_context(parent),
        start_time=int(start * _NANOSECONDS),
        attributes=_shown(attributes),
    )
    for moment, at in (moments or {}).items():
        made.add_event(moment, timestamp=int(at * _NANOSECONDS))
    made.end(int(max(start, end) * _NANOSECONDS))


def add_ids(logger: Any, method: str, event: Any) -> Any:
    """For a line of the log: the ids of the trace that it belongs to."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span

        context = get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"] = f"{context.trace_id:032x}"
            event["span_id"] = f"{context.span_id:016x}"
    return event


def _context(parent: str | None) -> "Context | None":
    """The context that a ``traceparent`` names; None: the present one."""
    if parent is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent})


def _shown(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"mlhf.{name}": value for name, value in attributes.items() if value is not None}
