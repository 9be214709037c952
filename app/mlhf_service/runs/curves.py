"""Curves of runs in memory: columns of numbers, one set a metric."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlhf.core.metrics import NonFinite, json_number, reaches
from mlhf_service.runs.downsample import select
from mlhf_service.runs.metrics import Axis, number

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Series:
    """One metric of one run, ordered by step; ``value`` may hold NaN and infinities.

    Attributes:
        total: How many points there were before any were left out.
    """

    run_id: str
    metric: str
    step: Ints
    samples: Ints
    epoch: Floats
    wall_seconds: Floats
    value: Floats
    total: int

    @classmethod
    def of(cls, run_id: str, metric: str, rows: Sequence[Any]) -> "Series":
        """Build it from rows (step, samples, epoch, wall_seconds, value, nonfinite)."""
        return cls(
            run_id,
            metric,
            np.array([r[0] for r in rows], dtype=np.int64),
            np.array([r[1] for r in rows], dtype=np.int64),
            np.array([r[2] for r in rows], dtype=np.float64),
            np.array([r[3] for r in rows], dtype=np.float64),
            np.array([number(r[4], r[5]) for r in rows], dtype=np.float64),
            len(rows),
        )

    def __len__(self) -> int:
        return len(self.step)

    def axis(self, x: Axis) -> Ints | Floats:
        """The points' places on the horizontal axis ``x``."""
        columns: dict[Axis, Ints | Floats] = {
            "steps": self.step,
            "samples": self.samples,
            "epochs": self.epoch,
            "wall_seconds": self.wall_seconds,
        }
        return columns[x]

    def at_most(self, limit: int | None) -> "Series":
        """Leave points out where there are more than ``limit``."""
        if limit is None or len(self) <= limit:
            return self
        keep = select(self.value, limit)
        return replace(
            self,
            step=self.step[keep],
            samples=self.samples[keep],
            epoch=self.epoch[keep],
            wall_seconds=self.wall_seconds[keep],
            value=self.value[keep],
        )

    @property
    def downsampled(self) -> bool:
        return len(self) < self.total

    def pairs(self, x: Axis) -> list[tuple[float, float | NonFinite]]:
        """The points as JSON values [x, value]."""
        return list(zip(self.axis(x).tolist(), map(json_number, self.value.tolist()), strict=True))

    def first_reaching(self, target: float) -> int | None:
        """Index of the first point that meets the target, or None."""
        hits = (i for i, v in enumerate(self.value.tolist()) if reaches(self.metric, v, target))
        return next((i for i in hits if np.isfinite(self.value[i])), None)

    def rows(self) -> Iterator[tuple[str, str, int, int, float, float, float]]:
        """The points in long format, in the order of ``curve_files.COLUMNS``."""
        columns = (self.step, self.samples, self.epoch, self.wall_seconds, self.value)
        for numbers in zip(*(c.tolist() for c in columns), strict=True):
            yield (self.run_id, self.metric, *numbers)
