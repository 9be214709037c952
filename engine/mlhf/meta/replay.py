"""Where unrolls start: experience replay (paper, algorithm 3)."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mlhf.meta.config import Replay
from mlhf.meta.trajectory import Point

Fresh = Callable[[random.Random], Point]


@dataclass(frozen=True)
class _Entry:
    point: Point
    error: float


class Starts:
    """A repository of places along inner trainings.

    After an unroll, with probability ``keep`` the next goes on where it ended. Else that
    place is stored and the next unroll starts from a stored one, with nothing remembered:
    drawn by its rank in meta-error, the worst first, so that a place the optimizer does badly
    at comes back. With probability ``fresh`` it is a fresh initialisation instead, and that is
    stored too. When the repository is full a stored place drawn evenly gives way, so that
    all stages of training stay in it: the authors' rule, by the error's sign, never stored
    anything with cross-entropy.

    Args:
        config: The probabilities and sizes.
        fresh: Draws a fresh initialisation of some task.
        seed: Of the draws.
    """

    def __init__(self, config: Replay, fresh: Fresh, seed: int) -> None:
        self._config = config
        self._fresh = fresh
        self._random = random.Random(seed)
        self._stored: list[_Entry] = []
        self._current: Point | None = None

    @property
    def depths(self) -> list[int]:
        """How many steps from its initialisation each stored place is."""
        return [entry.point.steps for entry in self._stored]

    def next(self) -> Point:
        """Return where the next unroll starts."""
        if self._current is not None:
            return self._current
        if not self._stored or self._random.random() < self._config.fresh:
            point = self._fresh(self._random)
            # As bad as the worst, until it was tried.
            worst = max((e.error for e in self._stored), default=0.0)
            self._store(_Entry(point, worst))
            return point
        return self._sample().restart()

    def done(self, end: Point, error: float) -> None:
        """Take note of where an unroll ended and how bad it was."""
        self._current = None
        if not _finite(end):
            return
        if self._random.random() < self._config.keep:
            self._current = end
        else:
            self._store(_Entry(end.restart(), error))

    def state_dict(self) -> dict[str, Any]:
        version, numbers, gauss = self._random.getstate()
        return {
            "stored": [{"point": e.point.state_dict(), "error": e.error} for e in self._stored],
            "current": None if self._current is None else self._current.state_dict(),
            "random": [version, list(numbers), gauss],
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self._stored = [
            _Entry(Point.of_state(e["point"], device), float(e["error"])) for e in state["stored"]
        ]
        current = state["current"]
        self._current = None if current is None else Point.of_state(current, device)
        version, numbers, gauss = state["random"]
        self._random.setstate((version, tuple(numbers), gauss))

    def _store(self, entry: _Entry) -> None:
        if len(self._stored) < self._config.capacity:
            self._stored.append(entry)
        else:
            self._stored[self._random.randrange(len(self._stored))] = entry

    def _sample(self) -> Point:
        ranked: Sequence[_Entry] = sorted(self._stored, key=lambda e: -e.error)
        chances = [(rank + 1) ** -self._config.exponent for rank in range(len(ranked))]
        (chosen,) = self._random.choices(ranked, chances)
        return chosen.point


def _finite(point: Point) -> bool:
    values = (point.theta, *(b for b in point.buffers.values() if b.is_floating_point()))
    return all(bool(torch.isfinite(v).all()) for v in values)
