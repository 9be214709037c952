"""When a run's next checkpoint is due, and writing it."""

import time
from collections.abc import Callable

from mlhf.core.events import event
from mlhf.training import checkpoint
from mlhf.training.attempt import Attempt


class CheckpointWriter:
    """Writes an attempt's checkpoints into its run folder, if it has one, and reports them.

    The clock counts the seconds that they take as ``checkpoint``.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._last = time.monotonic()

    def due(self) -> bool:
        """Return whether it is time for the next."""
        if self._attempt.run_dir is None or self._attempt.checkpoint_seconds is None:
            return False
        return time.monotonic() - self._last >= self._attempt.checkpoint_seconds

    def write(self, step: int, state: Callable[[], checkpoint.Tree]) -> None:
        """Write what ``state`` returns, if there is a folder."""
        run_dir = self._attempt.run_dir
        if run_dir is None:
            return
        with self._attempt.clock.section("checkpoint"):
            written = checkpoint.save_step(run_dir / "checkpoints", step, state())
        self._last = time.monotonic()
        self._attempt.emit(
            event(
                "checkpoint",
                path=str(written.path.relative_to(run_dir)),
                step=step,
                size=written.size,
                sha256=written.sha256,
            )
        )
