"""The numbers of a report as JSON values, for ``numbers.json``."""

from collections.abc import Sequence
from typing import Any

from bench.harness.statistics import Curve
from bench.judge.criteria import Criterion
from bench.judge.measures import final, integral
from bench.judge.results import Reached, TaskResults


def as_json(criteria: Sequence[Criterion], results: Sequence[TaskResults]) -> dict[str, Any]:
    """Return criteria and tasks with all their numbers, as JSON values."""
    return {
        "aims": [
            {
                "aim": each.name,
                "met": each.met,
                "needed": each.needed,
                "families": dict(each.families),
                "tasks": [vars(f) for f in each.findings],
            }
            for each in criteria
        ],
        "tasks": {r.task.name: _task(r) for r in results if r.curves},
    }


def _task(results: TaskResults) -> dict[str, Any]:
    """Return settings, targets and, for each optimizer and seed, its curve and totals."""
    return {
        "targets": results.targets,
        "settings": results.pinned,
        "milliseconds": {name: vars(timing) for name, timing in results.timing.items()},
        "optimizers": {
            name: {
                "seeds": {str(seed): _seed(curve) for seed, curve in curves.items()},
                "reached": {
                    percent: {
                        "own horizon": _reached(results.reached(name, percent)),
                        "fastest": _reached(results.fastest(name, percent)),
                    }
                    for percent in results.targets
                },
            }
            for name, curves in results.curves.items()
        },
    }


def _seed(curve: Curve) -> dict[str, Any]:
    return {
        "status": curve.result["status"],
        "seconds": curve.seconds,
        "steps": curve.steps,
        "final": final(curve),
        "integral": integral(curve),
        "points": curve.points,
    }


def _reached(reached: Reached | None) -> dict[str, Any] | None:
    if reached is None:
        return None
    return {
        "samples": vars(reached.samples),
        "seconds": vars(reached.seconds),
        "missed": reached.missed,
        "factor": reached.factor,
    }
