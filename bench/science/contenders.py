"""The contenders, each with the settings of its grid, and how one runs for so many seconds."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.science.catalogue import ALL
from bench.science.problems import Batch, Problem
from mlhf import MLHF, GaussNewton
from mlhf.optimizers.gauss_newton.memory_plan import VECTORS
from mlhf.optimizers.protocol import Averaging
from mlhf.optimizers.registry import build

Curve = list[tuple[float, int, float]]  # CPU seconds, steps, relative error
_FIRST, _GROWTH = 0.5, 1.3  # seconds until an error is measured, and by what they grow


@dataclass(frozen=True)
class Setting:
    """One entry of a contender's grid.

    Attributes:
        name: The optimizer, of the registry.
        params: Its parameters.
        cosine: Whether its rate falls to 0 along a cosine over the budget.
        first: The fraction of the budget that Adam takes before, at the rate ``first_lr``.
        first_lr: That rate.
        matrix_free: Whether neither rows nor a matrix fit in the memory that it is allowed.
    """

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    cosine: bool = False
    first: float = 0.0
    first_lr: float = 1e-2
    matrix_free: bool = False


_RATES = (1e-2, 3e-3, 1e-3)
CONTENDERS: dict[str, list[Setting]] = {
    "gauss_newton": [Setting("gauss_newton")],
    "mlhf": [Setting("mlhf")],
    "adam": [Setting("adam", {"lr": lr}, cosine=True) for lr in _RATES],
    "adam_lbfgs": [
        Setting("lbfgs", {"history": 50, "iterations": 10}, first=first, first_lr=lr)
        for first, lr in ((0.2, 1e-2), (0.4, 1e-2), (0.2, 3e-3))
    ],
    "soap": [Setting("soap", {"lr": lr, "weight_decay": 0.0}, cosine=True) for lr in _RATES],
    "lm": [Setting("lm", {"tau": tau}) for tau in (1e-3, 1e-1, 1e-5)],
    "engd_w": [Setting("engd_w", {"damping": d}) for d in (1e-9, 1e-6, 1e-11)],
    "spring": [
        Setting("spring", {"damping": d, "lr": lr, "norm_constraint": None}, cosine=True)
        for d, lr in ((1e-6, 0.3), (1e-3, 0.3), (1e-6, 0.05))
    ],
    "gauss_newton_matrix_free": [Setting("gauss_newton", matrix_free=True)],
    "mlhf_matrix_free": [Setting("mlhf", matrix_free=True)],
}


def run(
    problem: str,
    setting: Setting,
    seed: int,
    seconds: float,
    clock: Callable[[], float] = time.process_time,
) -> Curve:
    """Train from a seed; return the errors at ever longer times.

    Batches are drawn, and errors measured, outside of the time that counts. Contenders that
    average are measured by their average. L-BFGS keeps the points that it begins with.
    """
    torch.manual_seed(seed)
    made = ALL[problem](torch.float64)
    generator = torch.Generator().manual_seed(seed)
    curve: Curve = []
    spent, steps, due = 0.0, 0, _FIRST
    for name, params, cosine, end in _phases(setting, seconds):
        optimizer: Any = (
            _matrix_free(name, made, seed)
            if setting.matrix_free
            else build(name, params, made.model, made.loss, seed=seed)
        )
        inner, batch = optimizer.inner if cosine else optimizer, made.batch(generator)
        rate = inner.lr if cosine else 0.0
        while spent < end:
            if cosine:
                inner.lr = rate * 0.5 * (1 + math.cos(math.pi * spent / seconds))
            before = clock()
            inner.step(*batch)
            spent += clock() - before
            steps += 1
            if spent >= min(due, seconds):
                curve.append((round(spent, 3), steps, _error(made, inner)))
                due = max(_GROWTH * due, spent)
            if name != "lbfgs":
                batch = made.batch(generator)
    return curve


def _matrix_free(name: str, made: Problem, seed: int) -> MLHF | GaussNewton:
    """Return an optimizer that has no memory for rows, as if there were too many of them."""
    if name == "mlhf":
        return MLHF(made.model, made.loss, seed=seed, memory_bytes=1)
    parameters = list(made.model.parameters())
    number = parameters[0].itemsize
    vectors = VECTORS * number * sum(p.numel() for p in parameters)
    return GaussNewton(made.model, made.loss, seed=seed, memory_bytes=vectors)


def warm_up(setting: Setting) -> None:
    """Load what a first step loads, which is no contender's own time."""
    made = ALL["poisson2"](torch.float64)
    optimizer = build(setting.name, setting.params, made.model, made.loss)
    optimizer.step(*_few(made))


def _few(made: Problem) -> Batch:
    points, targets = made.batch(torch.Generator())
    return {name: t[:5] for name, t in points.items()}, targets


def _phases(setting: Setting, seconds: float) -> list[tuple[str, dict[str, Any], bool, float]]:
    own = (setting.name, setting.params, setting.cosine, seconds)
    if not setting.first:
        return [own]
    return [("adam", {"lr": setting.first_lr}, False, setting.first * seconds), own]


def _error(made: Problem, optimizer: object) -> float:
    if not isinstance(optimizer, Averaging):
        return made.error()
    optimizer.eval_mode()
    error = made.error()
    optimizer.train_mode()
    return error
