"""Waiting for what another process or thread does.

A deadline is there for what never happens, not to measure speed: it is met on a machine whose
cores are all kept busy by others.
"""

import time
from collections.abc import Callable
from typing import Any

DEADLINE = 240.0  # seconds; pytest's own timeout is longer


def until(condition: Callable[[], Any], message: str, seconds: float = DEADLINE) -> Any:
    """Return the first true value of a condition. Raises AssertionError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, message
        time.sleep(0.02)
    return value
