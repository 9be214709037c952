"""Curves of runs in memory: columns of numbers, one set a metric."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlhf.core.metrics import NonFinite, higher_is_better, json_number
from mlhf_service.runs.downsample import select
from mlhf_service.runs.metrics import Axis
from mlhf_service.runs.schemas import Position

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_COLUMNS = (
    ("step", np.int64),
    ("samples", np.int64),
    ("epoch", np.float64),
    ("wall_seconds", np.float64),
    ("cpu_seconds", np.float64),
    ("value", np.float64),
)


@dataclass(frozen=True)
class Series:
    """One metric of one run, ordered by step; ``value`` may hold NaN and infinities.

    Attributes:
        cpu_seconds: NaN where they were not counted.
        total: How many points there were before any were left out to draw fewer.
        unplaced: How many were left out because they have no place on an axis.
    """

    run_id: str
    metric: str
    step: Ints
    samples: Ints
    epoch: Floats
    wall_seconds: Floats
    cpu_seconds: Floats
    value: Floats
    total: int
    unplaced: int = 0

    @classmethod
    def joined(
        cls,
        run_id: str,
        metric: str,
        parts: Sequence["Series"] = (),
        total: int | None = None,
        unplaced: int = 0,
    ) -> "Series":
        """Put pieces of a curve one behind the other; without pieces it is empty."""
        columns: dict[str, Any] = {
            name: np.concatenate([np.empty(0, dtype=kind), *(getattr(one, name) for one in parts)])
            for name, kind in _COLUMNS
        }
        total = len(columns["step"]) if total is None else total
        return cls(run_id, metric, **columns, total=total, unplaced=unplaced)

    def __len__(self) -> int:
        return len(self.step)

    def axis(self, x: Axis) -> Ints | Floats:
        """The points' places on the horizontal axis ``x``."""
        columns: dict[Axis, Ints | Floats] = {
            "steps": self.step,
            "samples": self.samples,
            "epochs": self.epoch,
            "wall_seconds": self.wall_seconds,
            "cpu_seconds": self.cpu_seconds,
        }
        return columns[x]

    def at_most(self, limit: int | None, ranks: Floats | None = None) -> "Series":
        """Leave points out where there are more than ``limit``; see ``downsample.select``."""
        if limit is None or len(self) <= limit:
            return self
        return self._at(select(self.value, limit, ranks))

    def rows_between(self, start: int, stop: int) -> "Series":
        """The points of these indices, which count as all there are."""
        part = self._at(slice(start, stop))
        return replace(part, total=len(part), unplaced=0)

    def _at(self, rows: npt.NDArray[Any] | slice) -> "Series":
        return replace(
            self,
            step=self.step[rows],
            samples=self.samples[rows],
            epoch=self.epoch[rows],
            wall_seconds=self.wall_seconds[rows],
            cpu_seconds=self.cpu_seconds[rows],
            value=self.value[rows],
        )

    def on(self, x: Axis) -> "Series":
        """The points that have a place on the axis: those from before CPU time have no such."""
        placed = np.isfinite(self.axis(x))
        count = int(placed.sum())
        return replace(self._at(placed), total=count, unplaced=len(self) - count)

    def position(self, at: int) -> Position:
        """What it took to the point of this index."""
        cpu = float(self.cpu_seconds[at])
        return Position(
            step=int(self.step[at]),
            samples=int(self.samples[at]),
            epoch=float(self.epoch[at]),
            wall_seconds=float(self.wall_seconds[at]),
            cpu_seconds=cpu if np.isfinite(cpu) else None,
        )

    @property
    def downsampled(self) -> bool:
        return len(self) < self.total

    def pairs(self, x: Axis) -> list[tuple[float, float | NonFinite]]:
        """The points as JSON values [x, value]."""
        return list(zip(self.axis(x).tolist(), map(json_number, self.value.tolist()), strict=True))

    def first_reaching(self, target: float) -> int | None:
        """Index of the first point that meets the target, or None."""
        value = self.value
        beyond = value >= target if higher_is_better(self.metric) else value <= target
        hits = np.flatnonzero(beyond & np.isfinite(value))
        return int(hits[0]) if len(hits) else None

    def leaves(self, x: Axis, diverged_at: Position | None) -> tuple[float, float] | None:
        """Where to mark that a curve ends because its run diverged, as (x, value).

        The loss of some batch is the first that is not finite. A curve of evaluations may end
        long before, with numbers that look well: it is marked at the step of divergence, at the
        height of its last finite value. None for a curve that stays finite.
        """
        fine = np.isfinite(self.value)
        if not fine.any() or (fine.all() and diverged_at is None):
            return None
        before = fine if fine.all() else fine[: int(np.argmin(fine))]
        if not len(before):
            return None
        last = int(np.flatnonzero(before)[-1])
        place = None if diverged_at is None else diverged_at.on(x)
        at = float(self.axis(x)[last]) if place is None else place
        return (at, float(self.value[last])) if np.isfinite(at) else None

    def rows(self) -> Iterator[tuple[str, str, int, int, float, float, float | None, float]]:
        """The points in long format, in the order of ``curve_files.COLUMNS``."""
        columns = (self.step, self.samples, self.epoch, self.wall_seconds)
        cpu = [None if np.isnan(seconds) else seconds for seconds in self.cpu_seconds.tolist()]
        numbers = zip(*(c.tolist() for c in columns), cpu, self.value.tolist(), strict=True)
        for row in numbers:
            yield (self.run_id, self.metric, *row)
