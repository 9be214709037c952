"""The registry of losses, and which fits which data. Needs no torch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from mlhf.core.config import Component
from mlhf.core.errors import SpecError, under
from mlhf.core.registry import Registry, Spec
from mlhf.data.info import DataInfo, TargetInfo, Task
from mlhf.losses.params import (
    BinaryCrossEntropyParams,
    CrossEntropyParams,
    DetectionParams,
    HeadsParams,
    HuberParams,
    PoissonParams,
    QuantileParams,
    SquaredErrorParams,
)


def _as_many(params: Any, target: TargetInfo) -> int:
    return target.outputs


def _fits(params: Any, target: TargetInfo) -> None:
    pass


@dataclass(frozen=True)
class LossSpec(Spec[Any]):
    """One loss.

    Attributes:
        tasks: Those it is for.
        outputs: How many outputs a position of the target needs.
        check: Raises SpecError where the parameters do not fit the target.
    """

    tasks: tuple[Task, ...]
    outputs: Callable[[Any, TargetInfo], int] = _as_many
    check: Callable[[Any, TargetInfo], None] = _fits


def _check_classes(params: CrossEntropyParams, target: TargetInfo) -> None:
    count, weights = target.outputs, params.class_weights
    if weights is not None and len(weights) != count:
        raise SpecError(
            "/params/class_weights", f"{len(weights)} weights, but the data has {count} classes"
        )
    if weights is not None and not any(weights):
        raise SpecError("/params/class_weights", "at least one weight must be above 0")
    ignored = params.ignore_index
    if ignored is not None and not 0 <= ignored < count:
        raise SpecError(
            "/params/ignore_index",
            f"{ignored} is no class of the data, which has 0 to {count - 1}; labels outside of "
            "them are left out by the data set's own `ignore_index`",
        )


def _check_binary(params: BinaryCrossEntropyParams, target: TargetInfo) -> None:
    if target.task == "classification" and target.outputs != 2:
        raise SpecError(
            "/name",
            f"binary_cross_entropy is for two classes or several labels; the data has "
            f"{target.outputs} classes: take cross_entropy",
        )
    labels = _binary_outputs(params, target)
    weights = params.positive_weights
    if weights is not None and len(weights) != labels:
        raise SpecError(
            "/params/positive_weights", f"{len(weights)} weights, but there are {labels} labels"
        )


def _binary_outputs(params: BinaryCrossEntropyParams, target: TargetInfo) -> int:
    return 1 if target.task == "classification" else target.outputs


def _check_counts(params: PoissonParams, target: TargetInfo) -> None:
    if target.least is not None and target.least < 0:
        raise SpecError(
            "/name",
            f"poisson is for counts of 0 and more, but the least target is {target.least:g}: take "
            "mse, huber or quantile",
        )


def _quantile_outputs(params: QuantileParams, target: TargetInfo) -> int:
    return target.outputs * len(params.quantiles)


_REAL: tuple[Task, ...] = ("regression",)
LOSSES = Registry(
    "loss",
    (
        LossSpec(
            "cross_entropy",
            "Softmax cross-entropy of classes, tokens or pixels.",
            CrossEntropyParams,
            "mlhf.losses.cross_entropy:CrossEntropy",
            ("classification",),
            check=_check_classes,
        ),
        LossSpec(
            "binary_cross_entropy",
            "Cross-entropy of several labels of yes or no, or of two classes by one output.",
            BinaryCrossEntropyParams,
            "mlhf.losses.elementwise:BinaryCrossEntropy",
            ("multilabel", "classification"),
            outputs=_binary_outputs,
            check=_check_binary,
        ),
        LossSpec(
            "mse",
            "Squared error of numbers.",
            SquaredErrorParams,
            "mlhf.losses.elementwise:SquaredError",
            _REAL,
        ),
        LossSpec(
            "huber",
            "Squared error that is linear for outliers.",
            HuberParams,
            "mlhf.losses.elementwise:Huber",
            _REAL,
        ),
        LossSpec(
            "poisson",
            "Negative log-likelihood of counts; the outputs are logarithms of rates.",
            PoissonParams,
            "mlhf.losses.elementwise:Poisson",
            _REAL,
            check=_check_counts,
        ),
        LossSpec(
            "quantile",
            "Quantiles of numbers: the pinball loss, smoothed.",
            QuantileParams,
            "mlhf.losses.elementwise:Quantile",
            _REAL,
            outputs=_quantile_outputs,
        ),
        LossSpec(
            "heads",
            "Several targets, each with a loss and a weight.",
            HeadsParams,
            "mlhf.losses.heads:Heads",
            ("heads",),
        ),
        LossSpec(
            "detection",
            "Boxes with classes, by a detector of two stages.",
            DetectionParams,
            "mlhf.losses.detection:Detection",
            ("detection",),
        ),
    ),
)

_DEFAULT: dict[Task, str] = {
    "classification": "cross_entropy",
    "language": "cross_entropy",
    "multilabel": "binary_cross_entropy",
    "regression": "mse",
    "detection": "detection",
    "heads": "heads",
}


# What a detector of two stages returns.
DETECTOR_OUTPUTS = (
    "anchors",
    "objectness",
    "anchor_deltas",
    "regions",
    "classes",
    "region_deltas",
)


@dataclass(frozen=True)
class ChosenLoss:
    """A loss that fits its target.

    Attributes:
        name: Its registered name.
        params: Parsed.
        target: What it is of.
        outputs: How many outputs a position needs.
        weight: Its weight among heads.
    """

    name: str
    params: Any
    target: TargetInfo
    outputs: int
    weight: float = 1.0


def default_loss(task: Task) -> str:
    """Return the name of the loss that a task has where none is chosen."""
    return _DEFAULT[task]


def choose_losses(choice: Component | None, info: DataInfo) -> dict[str, ChosenLoss]:
    """Return the loss of each target by its name; a single one has the name ``""``.

    Args:
        choice: A loss; None: that of the task.
        info: The data.

    Raises:
        SpecError: at ``/name`` or under ``/params``: it does not fit the data.
    """
    choice = choice or Component(name=default_loss(info.task))
    if not info.heads:
        (target,) = info.targets.values()
        return {"": _chosen(choice, target)}
    params = _parsed(choice, "heads")
    for name in params.heads:
        if name not in info.heads:
            raise SpecError(
                f"/params/heads/{name}",
                f"the data has no target {name!r}; it has: {', '.join(info.heads)}",
            )
    found = {}
    for name, target in info.heads.items():
        head = params.heads.get(name)
        own = (head and head.loss) or Component(name=default_loss(target.task))
        with under(f"/params/heads/{name}/loss"):
            chosen = _chosen(own, target)
        found[name] = replace(chosen, weight=head.weight if head else 1.0)
    return found


def network_info(info: DataInfo, choice: Component | None) -> DataInfo:
    """Return the data as a network has to fit it: with the outputs that the loss needs.

    Raises:
        SpecError: as ``choose_losses``.
    """
    chosen = choose_losses(choice, info)
    if not info.heads:
        return replace(info, outputs=chosen[""].outputs)
    heads = {n: replace(target, outputs=chosen[n].outputs) for n, target in info.heads.items()}
    total = sum(head.outputs * prod(head.positions) for head in heads.values())
    return replace(info, outputs=total, heads=heads, positions=())


def raw_targets(choice: Component | None) -> frozenset[str]:
    """Return the targets that stay in their own units: those of a loss for counts.

    Raises:
        SpecError: the loss or its parameters are not known.
    """
    if choice is None:
        return frozenset()
    params = LOSSES.parse(choice.name, choice.params)
    if not isinstance(params, HeadsParams):
        return frozenset({""}) if choice.name == "poisson" else frozenset()
    heads = params.heads.items()
    return frozenset(n for n, head in heads if head.loss and head.loss.name == "poisson")


def _chosen(choice: Component, target: TargetInfo) -> ChosenLoss:
    params = _parsed(choice, target.task)
    spec = LOSSES[choice.name]
    spec.check(params, target)
    return ChosenLoss(choice.name, params, target, spec.outputs(params, target))


def _parsed(choice: Component, task: Task) -> Any:
    params = LOSSES.parse(choice.name, choice.params)
    if task not in LOSSES[choice.name].tasks:
        fitting = ", ".join(spec.name for spec in LOSSES.values() if task in spec.tasks)
        what = "several targets a sample" if task == "heads" else task
        told = f"{choice.name} is not a loss for {what}; take {fitting}"
        if task == "classification" and "regression" in LOSSES[choice.name].tasks:
            told += (
                ". Whole numbers are read as classes: where the targets are numbers, store them as "
                "floats, or give the data set task: regression"
            )
        raise SpecError("/name", told)
    return params
