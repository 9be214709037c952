"""Logs: one line an event, as JSON or for people, with the ids of what it belongs to.

The code logs with the standard library. Here its records, and those of uvicorn, Celery and
SQLAlchemy, get time, process and the ids that are bound (``bound``), and lose what is secret.
"""

import logging
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

Format = Literal["text", "json"]

_HIDDEN = "***"
_SECRET_NAMES = re.compile(
    r"password|passwd|secret|token|authorization|cookie|credential|api_?key$", re.IGNORECASE
)
# The password in a URL, and what follows "Authorization: Bearer" wherever it is quoted.
_IN_URLS = re.compile(r"(?<=://)([^/@\s:]*):([^/\s]*)@")
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_KEYS = re.compile(r"\bmlhf_([a-z0-9]{12})_[A-Za-z0-9]{43}\b")  # ours: which is told
# password=…, 'token': '…' in the text of a line
_IN_PAIRS = re.compile(
    r"""\b(\w*(?:password|passwd|secret|token|api_?key)['"]?\s*[:=]\s*['"]?)[^\s'",;&}]+""",
    re.IGNORECASE,
)
_SHORTEST = 6  # a shorter secret would hide parts of words
# Their own handlers would print a line twice.
_LIBRARIES = ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "sqlalchemy", "alembic")


def configure(
    form: Format,
    *,
    process: str,
    level: str = "INFO",
    secrets: Collection[str] = (),
    stream: IO[str] | None = None,
    more: Collection[Processor] = (),
) -> None:
    """Send all records of this process to ``stream`` (standard error).

    Args:
        form: ``json`` for machines; ``text`` for people, in colours on a terminal.
        process: What this process is, said in every line: ``api``, ``worker-cpu-1``.
        secrets: Values that no line may show.
        more: Adds to lines, such as ids of traces.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _constant("process", process),
        *more,
    ]
    if form == "json":
        shown: list[Processor] = [
            structlog.processors.format_exc_info,
            Redactor(secrets),
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(ensure_ascii=True, default=str),
        ]
    else:
        shown = [
            structlog.processors.format_exc_info,
            Redactor(secrets),
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0),
        ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shown],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], True
    logging.captureWarnings(True)


@contextmanager
def bound(**ids: str | int | None) -> Iterator[None]:
    """Within this block, every line of this thread or task has these ids; None are left out."""
    with structlog.contextvars.bound_contextvars(
        **{name: value for name, value in ids.items() if value is not None}
    ):
        yield


class Redactor:
    """Hides what is secret: by its value, by the name it has, or by the place it stands in."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        known = sorted({s for s in secrets if len(s) >= _SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {
            name: _HIDDEN if _SECRET_NAMES.search(name) else self.clean(value)
            for name, value in event.items()
        }

    def clean(self, value: Any) -> Any:
        """``value`` with what is secret replaced, in strings at any depth."""
        if isinstance(value, str):
            if self._known is not None:
                value = self._known.sub(_HIDDEN, value)
            value = _IN_URLS.sub(rf"\1:{_HIDDEN}@", value)
            value = _KEYS.sub(rf"mlhf_\1_{_HIDDEN}", value)
            value = _IN_PAIRS.sub(rf"\1{_HIDDEN}", value)
            return _BEARER.sub(rf"\1 {_HIDDEN}", value)
        if isinstance(value, dict):
            return {
                name: _HIDDEN if _SECRET_NAMES.search(str(name)) else self.clean(one)
                for name, one in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.clean(one) for one in value]
        return value


def _constant(name: str, value: str) -> Processor:
    def add(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event.setdefault(name, value)
        return event

    return add
