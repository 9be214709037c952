"""The trainer's part of a trace, made of its events: the engine knows nothing of traces."""

import time
from typing import Any

from mlhf_service import tracing

_ENDS = {"finished", "failed", "interrupted"}


class TrainerSpans:
    """Sees each event once, and records what they tell: starting, then training.

    Args:
        parent: The ``traceparent`` of the attempt; None: nothing is recorded.
    """

    def __init__(self, parent: str | None) -> None:
        self._parent = parent
        self._began = time.time()
        self._started: float | None = None
        self._checkpoints: dict[str, float] = {}

    def see(self, event: dict[str, Any]) -> None:
        if self._parent is None:
            return
        kind, at = event["type"], event["at"]
        if kind == "started":
            self._started = at
            tracing.record("start trainer", self._began, at, self._parent)
        elif kind == "checkpoint":
            self._checkpoints[f"checkpoint of step {event['step']}"] = at
        elif kind in _ENDS:
            start = self._started if self._started is not None else self._began
            tracing.record("train", start, at, self._parent, self._checkpoints, outcome=kind)
