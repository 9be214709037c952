"""A run's checkpoints: when one is due, writing it, telling of it."""

import time
from collections.abc import Callable
from pathlib import Path

from mlhf.core.events import OnEvent, event
from mlhf.training import checkpoint
from mlhf.training.clock import Clock


class Checkpoints:
    """Those of one attempt at a run.

    Args:
        run_dir: The run's folder; None for no checkpoints.
        seconds: Least time between two; None for none on the way.
        clock: Counts the time they take, as ``checkpoint``.
        emit: Is told of each.
    """

    def __init__(
        self, run_dir: Path | None, seconds: float | None, clock: Clock, emit: OnEvent
    ) -> None:
        self._run_dir, self._seconds, self._clock, self._emit = run_dir, seconds, clock, emit
        self._last = time.monotonic()

    def due(self) -> bool:
        """Return whether it is time for the next."""
        if self._run_dir is None or self._seconds is None:
            return False
        return time.monotonic() - self._last >= self._seconds

    def write(self, step: int, state: Callable[[], checkpoint.Tree]) -> None:
        """Write what ``state`` returns, if there is a folder."""
        if self._run_dir is None:
            return
        with self._clock.section("checkpoint"):
            written = checkpoint.save_step(self._run_dir / "checkpoints", step, state())
        self._last = time.monotonic()
        self._emit(
            event(
                "checkpoint",
                path=str(written.path.relative_to(self._run_dir)),
                step=step,
                size=written.size,
                sha256=written.sha256,
            )
        )
