"""Where unrolls start: experience replay (paper, algorithm 3)."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mlhf.meta.config import Replay
from mlhf.meta.inner_state import InnerState

Fresh = Callable[[random.Random], InnerState]


@dataclass(frozen=True)
class _Entry:
    state: InnerState
    error: float


class ExperienceReplay:
    """Stores states of inner trainings, and draws those that unrolls start from.

    After an unroll, with probability ``keep`` the next one continues where it ended.
    Otherwise that state is stored, and the next unroll starts from a stored one without the
    learned optimizer's state. Stored states are drawn by their rank in meta-error, worst
    first, so that the optimizer returns to where it does badly. With probability ``fresh`` the
    next start is a fresh initialization instead, which is stored too.

    When the storage is full, a state drawn uniformly is evicted, so that all stages of training
    stay in it. The authors' rule, by the error's sign, never stored anything with
    cross-entropy.

    Args:
        config: The probabilities and sizes.
        fresh: Draws a fresh initialization of some task.
        seed: Of the draws.
    """

    def __init__(self, config: Replay, fresh: Fresh, seed: int) -> None:
        self._config = config
        self._fresh = fresh
        self._random = random.Random(seed)
        self._stored: list[_Entry] = []
        self._current: InnerState | None = None

    def next(self) -> InnerState:
        """Return where the next unroll starts."""
        if self._current is not None:
            return self._current
        if not self._stored or self._random.random() < self._config.fresh:
            state = self._fresh(self._random)
            # Counts as bad as the worst until it has been tried.
            worst = max((e.error for e in self._stored), default=0.0)
            self._store(_Entry(state, worst))
            return state
        return self._sample().restart()

    def done(self, end: InnerState, error: float) -> None:
        """Record where an unroll ended, and its meta-error."""
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
            "stored": [{"point": e.state.state_dict(), "error": e.error} for e in self._stored],
            "current": None if self._current is None else self._current.state_dict(),
            "random": [version, list(numbers), gauss],
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self._stored = [
            _Entry(InnerState.of_state(e["point"], device), float(e["error"]))
            for e in state["stored"]
        ]
        current = state["current"]
        self._current = None if current is None else InnerState.of_state(current, device)
        version, numbers, gauss = state["random"]
        self._random.setstate((version, tuple(numbers), gauss))

    def _store(self, entry: _Entry) -> None:
        if len(self._stored) < self._config.capacity:
            self._stored.append(entry)
        else:
            self._stored[self._random.randrange(len(self._stored))] = entry

    def _sample(self) -> InnerState:
        ranked: Sequence[_Entry] = sorted(self._stored, key=lambda e: -e.error)
        chances = [(rank + 1) ** -self._config.exponent for rank in range(len(ranked))]
        (chosen,) = self._random.choices(ranked, chances)
        return chosen.state


def _finite(state: InnerState) -> bool:
    values = (state.theta, *(b for b in state.buffers.values() if b.is_floating_point()))
    return all(bool(torch.isfinite(v).all()) for v in values)
