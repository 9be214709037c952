"""Where a run's seconds go, by the wall and by the processor. Only training counts as a run's time.

On a machine that others use too, a run's wall-clock seconds grow and its CPU seconds do not.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

Section = Literal["training", "evaluation", "checkpoint", "compile"]
_SECTIONS: tuple[Section, ...] = ("training", "evaluation", "checkpoint", "compile")


class _Reading(NamedTuple):
    """The three clocks at one moment, or what passed on them; NaN where it is not known."""

    wall: float = 0.0
    cpu: float = 0.0
    thread: float = 0.0


class Clock:
    """Adds up the seconds spent in each section, over all attempts of a run.

    Sections do not overlap: entering one suspends the one around it. Time outside all of
    them (start-up, writing events, pauses) belongs to none. Enter them in one thread.

    Args:
        now: A monotonic time in seconds.
        cpu: CPU time of this process in seconds, of all its threads.
        thread: CPU time of the calling thread in seconds.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
        thread: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clocks = (now, cpu, thread)
        self._spent: dict[Section, _Reading] = dict.fromkeys(_SECTIONS, _Reading())
        self._section: Section | None = None
        self._since = _Reading()

    @contextmanager
    def section(self, name: Section) -> Iterator[None]:
        """Count the time inside the ``with`` block as this section's."""
        outer = self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def seconds(self, name: Section) -> float:
        """Return a section's seconds so far, by the wall clock."""
        return self._of(name).wall

    def cpu_seconds(self, name: Section) -> float | None:
        """Return the CPU seconds of all the process's threads, so far in a section.

        None where an earlier attempt did not count them.
        """
        return _known(self._of(name).cpu)

    def processor_share(self, name: Section) -> float | None:
        """Return which fraction of a section's seconds its thread spent on a processor.

        The thread that enters the sections computes in every operation on a CPU, whatever the
        number of threads. So on a machine of its own it nearly always runs. What is missing to
        1 it waited: for a processor that others used, or for a disk.
        None where nothing was counted, or not by an earlier attempt.
        """
        spent = self._of(name)
        return _known(spent.thread / spent.wall) if spent.wall > 0 else None

    def state_dict(self) -> dict[str, Any]:
        read = {name: self._of(name) for name in _SECTIONS}
        return {
            **{name: spent.wall for name, spent in read.items()},
            "cpu": {name: _known(spent.cpu) for name, spent in read.items()},
            "thread": {name: _known(spent.thread) for name, spent in read.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. One from before CPU time was counted leaves it unknown."""
        unknown: dict[str, float | None] = {}
        cpu, thread = state.get("cpu", unknown), state.get("thread", unknown)
        for name in _SECTIONS:
            self._spent[name] = _Reading(
                float(state[name]), _or_nan(cpu.get(name)), _or_nan(thread.get(name))
            )

    def _of(self, name: Section) -> _Reading:
        spent = self._spent[name]
        return _sum(spent, self._since, self._read()) if name == self._section else spent

    def _read(self) -> _Reading:
        now, cpu, thread = self._clocks
        return _Reading(now(), cpu(), thread())

    def _switch(self, name: Section | None) -> Section | None:
        now = self._read()
        outer = self._section
        if outer is not None:
            self._spent[outer] = _sum(self._spent[outer], self._since, now)
        self._section, self._since = name, now
        return outer


def _sum(spent: _Reading, since: _Reading, now: _Reading) -> _Reading:
    return _Reading(*(s + b - a for s, a, b in zip(spent, since, now, strict=True)))


def _known(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds


def _or_nan(seconds: float | None) -> float:
    return math.nan if seconds is None else float(seconds)
