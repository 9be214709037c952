"""What an attempt at a run is given besides its configuration."""

from collections.abc import Callable
from pathlib import Path

from mlhf.core.events import OnEvent, event
from mlhf.data.cache import DataCache
from mlhf.training.clock import Clock


class Attempt:
    """One attempt at a run: where it reports and writes, and who may stop it.

    A run that was interrupted is resumed by a further attempt.

    Args:
        on_event: Called with every event.
        run_dir: Where checkpoints and artifacts go; None writes nothing.
        should_stop: Asked after every step; once true it must stay true.
        checkpoint_seconds: Least time between two checkpoints; None for none on the way.
        flush_seconds: Least time between two ``points`` events.
        clock: Counts the seconds.
        data_cache: Where decoded data sets are kept, or the folder for them; None keeps none.
    """

    def __init__(
        self,
        on_event: OnEvent | None = None,
        run_dir: str | Path | None = None,
        should_stop: Callable[[], bool] | None = None,
        checkpoint_seconds: float | None = None,
        flush_seconds: float = 0.25,
        clock: Clock | None = None,
        data_cache: DataCache | str | Path | None = None,
    ) -> None:
        self.emit: OnEvent = on_event or (lambda _: None)
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.should_stop = should_stop or (lambda: False)
        self.checkpoint_seconds = checkpoint_seconds
        self.flush_seconds = flush_seconds
        self.clock = clock or Clock()
        if isinstance(data_cache, str | Path):
            data_cache = DataCache(Path(data_cache))
        self.data_cache = data_cache

    def warn(self, message: str) -> None:
        """Report what the user of the run should know of."""
        self.emit(event("log", level="warning", message=message))
