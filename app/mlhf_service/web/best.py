"""Which group of a comparison has the best mean in each column."""

from collections.abc import Callable

from mlhf.core.metrics import higher_is_better
from mlhf_service.comparisons.schemas import Band, ComparedGroup, Comparison

_MEASURES = ("final_loss", "best_loss", "final_accuracy", "best_accuracy")
_EFFORTS = ("samples", "steps", "wall_seconds", "cpu_seconds")


def best_groups(comparison: Comparison) -> dict[str, list[str]]:
    """By column the labels of the groups whose mean over seeds is the best.

    Only where there are several groups, and only those with as many seeds as the largest: one
    lucky seed is no better mean.
    """
    most = max((group.n for group in comparison.groups), default=0)
    groups = [group for group in comparison.groups if group.n == most]
    if len(groups) < 2:
        return {}
    columns: dict[str, Callable[[ComparedGroup], Band | None]] = {
        **{name: _measure(name) for name in _MEASURES},
        **{name: _effort(name) for name in _EFFORTS},
    }
    found = {}
    for name, band_of in columns.items():
        means = {
            group.label: band.mean
            for group in groups
            if (band := band_of(group)) is not None and band.mean is not None
        }
        if means:
            best = (max if higher_is_better(name) else min)(means.values())
            found[name] = [label for label, mean in means.items() if mean == best]
    return found


def _measure(name: str) -> Callable[[ComparedGroup], Band | None]:
    def band_of(group: ComparedGroup) -> Band | None:
        band: Band = getattr(group, name)
        return band

    return band_of


def _effort(name: str) -> Callable[[ComparedGroup], Band | None]:
    def band_of(group: ComparedGroup) -> Band | None:
        band: Band | None = getattr(group.to_target, name) if group.to_target else None
        return band

    return band_of
