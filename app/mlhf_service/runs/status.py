"""The states of runs and jobs."""

from typing import Literal, get_args

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]

STATUSES: tuple[Status, ...] = get_args(Status)
ACTIVE = frozenset[str]({"queued", "running", "paused"})
WAITING = frozenset[str]({"queued", "paused"})
TERMINAL = frozenset[str](STATUSES) - ACTIVE
LOGGED = "logged"  # the kind of runs that are trained elsewhere, and logged by their own loop
DIVERGED = "/problems/diverged"  # the type of the error of a run that diverged

# Seconds since 1970: a run that is not available before is held back (``jobs.held``).
HELD_UNTIL = 253_402_300_800.0  # the year 10000
