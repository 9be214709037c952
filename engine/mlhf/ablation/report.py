"""Results of an ablation's trajectories, and their table and figure. Needs no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlhf.ablation.config import (
    MEASURES,
    SOLVER_VARIANTS,
    STEPPING,
    SolverVariant,
)
from mlhf.ablation.statistics import Row, mean, summarize
from mlhf.core.metrics import parse_number

Line = tuple[str, Sequence[float], Sequence[float]]  # label, x, y
Panel = tuple[str, str, Sequence[Line]]  # title, label of y, lines

_BINS = 50  # what a figure's line is averaged to
_MATRICES = {"learned": "Ĝ damped by RNN_s", "adam": "Ĝ damped as in hf_adam"}

NOTE = (
    f"Means over all steps of a trajectory, then over seeds (lowest to highest); θ is "
    f"moved by {STEPPING!r}. l_p and ‖r‖: lower is better. All forms of one damping "
    "solve the same systems; l_p does not compare between dampings, nor do its "
    "means where single steps dwarf the rest; its part of the longest solve's, taken "
    "step by step, does (higher is better). s: RNN_s in the learned damping, "
    "Adam-shaped and not learned in hf_adam's."
)


@dataclass(frozen=True)
class Trajectory:
    """The result of one trajectory.

    Attributes:
        steps: How many were measured.
        l_p: By variant, the mean over all steps.
        part: By variant, the mean of its l_p as a fraction of the l_p of the longest solve of
            the same matrix.
        residual: By variant, the mean ‖r‖/‖b‖.
        samples: Samples seen, at the lines' points.
        lines: By ``SolverVariant.stat``, means over neighbouring steps.
        diverged: Then all means are NaN and there are no lines: no mean hides a failed seed.
    """

    steps: int
    l_p: dict[str, float]
    part: dict[str, float]
    residual: dict[str, float]
    samples: list[float]
    lines: dict[str, list[float]]
    diverged: bool = False

    @classmethod
    def of(
        cls,
        samples: Sequence[float],
        values: Mapping[str, Sequence[float]],
        diverged: bool = False,
        variants: Sequence[SolverVariant] = SOLVER_VARIANTS,
    ) -> "Trajectory":
        """Summarize a curve.

        Args:
            samples: Samples seen, by step.
            values: By ``SolverVariant.stat``, one value per step.
            diverged: Whether the run's loss was not finite in the end.
            variants: What was measured.
        """
        if diverged or not samples:
            lost = dict.fromkeys((variant.name for variant in variants), math.nan)
            return cls(len(samples), lost, lost, lost, [], {}, diverged=True)
        names = [variant.stat(measure) for variant in variants for measure in MEASURES]
        return cls(
            steps=len(samples),
            l_p={variant.name: mean(values[variant.stat("l_p")]) for variant in variants},
            part={variant.name: _fraction(values, variant, variants) for variant in variants},
            residual={variant.name: mean(values[variant.stat("residual")]) for variant in variants},
            samples=_binned(samples),
            lines={name: _binned(values[name]) for name in names},
        )

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Trajectory":
        """Undo ``vars``; numbers that are not finite may be given by name."""
        values: dict[str, Any] = dict(document)
        for name in ("l_p", "part", "residual"):
            values[name] = {
                variant: parse_number(value) for variant, value in document[name].items()
            }
        values["lines"] = {
            k: [parse_number(v) for v in line] for k, line in document["lines"].items()
        }
        return cls(**values)


def rows(
    task: str, seeds: Sequence[Trajectory], variants: Sequence[SolverVariant] = SOLVER_VARIANTS
) -> list[Row]:
    """Return a task's rows of the table, one per variant."""
    return [
        {
            "task": task,
            "damping": variant.matrix,
            "form": variant.name,
            "seeds": len(seeds),
            "steps": max(seed.steps for seed in seeds),
            "mean l_p": summarize([seed.l_p[variant.name] for seed in seeds]),
            "part of the longest solve's": summarize(
                [seed.part[variant.name] for seed in seeds], 3
            ),
            "mean ‖r‖/‖b‖": summarize([seed.residual[variant.name] for seed in seeds], 3),
        }
        for variant in variants
    ]


def panels(
    task: str, seeds: Sequence[Trajectory], variants: Sequence[SolverVariant] = SOLVER_VARIANTS
) -> list[list[Panel]]:
    """Return a task's panels of the figure: one row per damping, one column per measure.

    Lines are means over seeds; one that diverged is left out.
    """
    drawn = [seed for seed in seeds if not seed.diverged]
    xs = [mean(at) for at in zip(*(seed.samples for seed in drawn), strict=False)]

    def line(name: str) -> list[float]:
        return [mean(at) for at in zip(*(seed.lines[name] for seed in drawn), strict=False)]

    return [
        [
            (
                f"{task}: {title}",
                label,
                [(variant.name, xs, line(variant.stat(measure))) for variant in of],
            )
            for measure, label in MEASURES.items()
        ]
        for matrix, title in _MATRICES.items()
        if (of := [variant for variant in variants if variant.matrix == matrix])
    ]


def _fraction(
    values: Mapping[str, Sequence[float]], variant: SolverVariant, variants: Sequence[SolverVariant]
) -> float:
    longest = max((f for f in variants if f.matrix == variant.matrix), key=lambda f: f.iterations)
    pairs = zip(values[variant.stat("l_p")], values[longest.stat("l_p")], strict=True)
    return mean([mine / most if most else math.nan for mine, most in pairs])


def _binned(values: Sequence[float]) -> list[float]:
    width = max(1, len(values) // _BINS)
    starts = range(0, len(values) - width + 1, width)
    return [mean(values[start : start + width]) for start in starts]
