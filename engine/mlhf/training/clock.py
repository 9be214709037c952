"""Where a run's seconds go. Only training counts as a run's wall-clock time."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

Section = Literal["training", "evaluation", "checkpoint", "compile"]


class Clock:
    """Adds up the seconds spent in each section, over all attempts of a run.

    Sections do not overlap: entering one suspends the one around it. Time outside all of
    them (start-up, writing events, pauses) belongs to none.

    Args:
        now: A monotonic time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._seconds: dict[Section, float] = dict.fromkeys(
            ("training", "evaluation", "checkpoint", "compile"), 0.0
        )
        self._section: Section | None = None
        self._since = 0.0

    @contextmanager
    def section(self, name: Section) -> Iterator[None]:
        """Count the time inside the ``with`` block as this section's."""
        outer = self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def seconds(self, name: Section) -> float:
        """Return a section's seconds so far."""
        running = self._now() - self._since if name == self._section else 0.0
        return self._seconds[name] + running

    def state_dict(self) -> dict[str, float]:
        return {name: self.seconds(name) for name in self._seconds}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        for name in self._seconds:
            self._seconds[name] = float(state[name])

    def _switch(self, name: Section | None) -> Section | None:
        now = self._now()
        outer = self._section
        if outer is not None:
            self._seconds[outer] += now - self._since
        self._section, self._since = name, now
        return outer
