"""Whether a worker is fit to train: checked before each claim, with a quarantine that grows."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from mlhf_service.workers.selfcheck import Check

log = logging.getLogger(__name__)

_CHECK_SECONDS = 2.0  # what was found holds this long
_FIRST_QUARANTINE, _LONGEST_QUARANTINE = 2.0, 120.0


class Fitness:
    """Checks a worker's machine; one that is unfit claims nothing, and recovers by itself.

    Args:
        checks: Cheap ones, repeated every few seconds.
        thorough: One that takes seconds, such as asking the device to compute. It is made after
            an attempt that the machine failed.
        suspected: Whether to make the thorough check before the first claim.
        clock: Counts seconds.
    """

    def __init__(
        self,
        checks: Sequence[Check],
        thorough: Check | None = None,
        suspected: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = checks
        self._thorough = thorough
        self._clock = clock
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._suspected = suspected
        self._failures = 0  # of the machine, since a run last ended without one
        self._failed_runs: set[str] = set()
        self._next_check = 0.0

    @property
    def reason(self) -> str | None:
        """Why the worker is unfit, as last found; None where it is fit."""
        return self._reason

    def check(self) -> str | None:
        """Return why the worker is unfit, or None. Checks again when that is due."""
        with self._lock:
            if self._clock() >= self._next_check:
                self._update(self._find())
            return self._reason

    def suspect(self, reason: str, run_id: str) -> None:
        """An attempt failed by a fault of this machine: claim nothing for a while.

        The wait grows with each further run that fails here, not with one that always does.
        """
        with self._lock:
            self._failed_runs.add(run_id)
            self._failures = len(self._failed_runs)
            self._suspected = True
            self._reason = reason
            self._next_check = self._clock() + self._quarantine()
            log.error("this worker takes no run for %.0f s: %s", self._quarantine(), reason)

    def trust(self) -> None:
        """A run was trained here without a fault of the machine."""
        with self._lock:
            self._failures = 0
            self._failed_runs.clear()

    def _find(self) -> str | None:
        for check in self._checks:
            if (reason := check()) is not None:
                return reason
        if self._suspected and self._thorough is not None:
            return self._thorough()
        return None

    def _update(self, reason: str | None) -> None:
        if reason is None:
            if self._reason is not None:
                log.warning("this worker is fit again; before: %s", self._reason)
            self._reason, self._suspected = None, False
            self._next_check = self._clock() + _CHECK_SECONDS
            return
        if reason != self._reason:
            log.error("this worker is unfit: %s", reason)
        if self._suspected:
            self._failures += 1
        self._reason = reason
        self._next_check = self._clock() + (
            self._quarantine() if self._suspected else _CHECK_SECONDS
        )

    def _quarantine(self) -> float:
        return min(_LONGEST_QUARANTINE, _FIRST_QUARANTINE * 2.0 ** (self._failures - 1))
