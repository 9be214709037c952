"""What trajectories of an ablation came to, and the table and figure of it. Needs no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlhf.ablation.config import (
    FORMS,
    MEASURES,
    STEPPING,
    Form,
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
    """What one trajectory came to.

    Attributes:
        steps: How many were measured.
        l_p: By form, the mean over all steps.
        part: By form, the mean of its l_p as a part of the longest solve's of the same matrix.
        residual: By form, the mean ‖r‖/‖b‖.
        samples: Where the lines' points lie.
        lines: By ``Form.stat``, means over neighbouring steps.
        diverged: Then nothing is a number, and there are no lines: no mean hides a failed seed.
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
        forms: Sequence[Form] = FORMS,
    ) -> "Trajectory":
        """Sum up a curve.

        Args:
            samples: Seen, by step.
            values: By ``Form.stat``, a value a step.
            diverged: Whether the run's loss was not finite in the end.
            forms: What was measured.
        """
        if diverged or not samples:
            lost = dict.fromkeys((form.name for form in forms), math.nan)
            return cls(len(samples), lost, lost, lost, [], {}, diverged=True)
        names = [form.stat(measure) for form in forms for measure in MEASURES]
        return cls(
            steps=len(samples),
            l_p={form.name: mean(values[form.stat("l_p")]) for form in forms},
            part={form.name: _part(values, form, forms) for form in forms},
            residual={form.name: mean(values[form.stat("residual")]) for form in forms},
            samples=_binned(samples),
            lines={name: _binned(values[name]) for name in names},
        )

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Trajectory":
        """Undo ``vars``, also where what is not finite has become a string on its way."""
        values: dict[str, Any] = dict(document)
        for name in ("l_p", "part", "residual"):
            values[name] = {form: parse_number(value) for form, value in document[name].items()}
        values["lines"] = {
            k: [parse_number(v) for v in line] for k, line in document["lines"].items()
        }
        return cls(**values)


def rows(task: str, seeds: Sequence[Trajectory], forms: Sequence[Form] = FORMS) -> list[Row]:
    """Return a task's part of the table, a row a form."""
    return [
        {
            "task": task,
            "damping": form.matrix,
            "form": form.name,
            "seeds": len(seeds),
            "steps": max(seed.steps for seed in seeds),
            "mean l_p": summarize([seed.l_p[form.name] for seed in seeds]),
            "part of the longest solve's": summarize([seed.part[form.name] for seed in seeds], 3),
            "mean ‖r‖/‖b‖": summarize([seed.residual[form.name] for seed in seeds], 3),
        }
        for form in forms
    ]


def panels(
    task: str, seeds: Sequence[Trajectory], forms: Sequence[Form] = FORMS
) -> list[list[Panel]]:
    """Return a task's part of the figure: a row a damping, a column a measure.

    Lines are means over seeds; one that diverged is left out.
    """
    drawn = [seed for seed in seeds if not seed.diverged]
    xs = [mean(at) for at in zip(*(seed.samples for seed in drawn), strict=False)]

    def line(name: str) -> list[float]:
        return [mean(at) for at in zip(*(seed.lines[name] for seed in drawn), strict=False)]

    return [
        [
            (f"{task}: {title}", label, [(form.name, xs, line(form.stat(measure))) for form in of])
            for measure, label in MEASURES.items()
        ]
        for matrix, title in _MATRICES.items()
        if (of := [form for form in forms if form.matrix == matrix])
    ]


def _part(values: Mapping[str, Sequence[float]], form: Form, forms: Sequence[Form]) -> float:
    longest = max((f for f in forms if f.matrix == form.matrix), key=lambda f: f.iterations)
    pairs = zip(values[form.stat("l_p")], values[longest.stat("l_p")], strict=True)
    return mean([mine / most if most else math.nan for mine, most in pairs])


def _binned(values: Sequence[float]) -> list[float]:
    width = max(1, len(values) // _BINS)
    starts = range(0, len(values) - width + 1, width)
    return [mean(values[start : start + width]) for start in starts]
