"""The Kronecker form's step and its parts, in steps of SGD and of Adam."""

import copy
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from bench.stepping import (
    Case,
    Run,
    in_turns,
    sgd_step,
)
from mlhf.curvature.ggn import GGN
from mlhf.optimizers.mlhf.kronecker import solver as module
from mlhf.optimizers.mlhf.kronecker.optimizer import KroneckerMLHF
from mlhf.optimizers.registry import build as build_optimizer

STEPS = 200  # over which updates and turns of the basis are spread: their first are dense
_NEVER = 1 << 60


def measure(case: Case, rounds: int, device: str) -> None:
    """Print the step's parts; steps are timed between updates of the basis.

    What a step measures depends on how far the loss has fallen, so there are two of it.
    """
    model, x, y = copy.deepcopy(case.model), case.x, case.y
    adam = build_optimizer("adam", {}, copy.deepcopy(model))
    optimizer, high, low = (KroneckerMLHF(copy.deepcopy(model), lr=1e-6) for _ in range(3))
    low._features.loss_reduction = lambda: float("inf")  # type: ignore[method-assign]
    for one in (optimizer, high, low):
        one.step(x, y)
        one._schedule.next_update = one._schedule.next_refresh = (
            _NEVER  # these are timed by themselves
        )
    basis, model = optimizer._basis, optimizer.model
    ggn = GGN(model, "cross_entropy", x, y)
    vector = [torch.randn_like(p) for p in ggn.parameters]
    rotated = basis.rotate(vector)

    # The optimizer watches passes of loops of one's own, too.
    with optimizer._recorder.paused(), basis.recording():
        watched = GGN(model, "cross_entropy", x, y, edges=lambda _: basis.edges)

    def two_updates() -> None:  # after the first every second looks at inputs, too
        basis.update(watched)
        basis.update(watched)

    def tangent() -> list[Tensor]:
        return ggn.output_hessian(ggn.jvp(vector))

    def tangents() -> list[list[Tensor]]:
        return [ggn.output_hessian(u) for u in ggn.jvps([vector, vector])]

    def rotations() -> None:  # the gradient there, the new direction back
        basis.rotate(vector)
        basis.rotate_back(rotated)

    runs: dict[str, Run] = {
        "SGD step": sgd_step(copy.deepcopy(model), x, y),
        "Adam step": lambda: adam.step(x, y),
        "gradient and graph": lambda: GGN(model, "cross_entropy", x, y),
        "tangent": tangent,
        "two tangents together": tangents,
        "rotations, there and back": rotations,
    }
    with optimizer._recorder.paused():
        found = {name: s.median for name, s in in_turns(runs, rounds, device).items()}
    # Of several steps some are solved, some measured along a line, some not at all: the mean.
    steps: dict[str, Run] = {
        "step, loss high": lambda: high.step(x, y),
        "step, loss low": lambda: low.step(x, y),
    }
    with (
        patch.object(module, "reusable", lambda *_: True),  # as nearly always in a run
        patch.object(module, "interval", lambda step, divisor, most: most),  # as after the first
    ):
        found |= {name: s.mean for name, s in in_turns(steps, max(18, rounds), device).items()}
    # Few rounds will do for what is spread over many steps.
    for _ in range(10):  # beyond the first, which all look at them
        two_updates()
    both: dict[str, Run] = {"updates": two_updates, "turn": basis.refresh}
    rare = in_turns(both, max(2, rounds // 20), device)
    updates, turns = _due()
    alone, turn = rare["updates"].median / 2, rare["turn"].median
    found["basis update, spread"] = alone * updates / STEPS
    found["basis turn, spread"] = turn * turns / STEPS
    found[f"all, first {STEPS} steps"] = found["step, loss high"]
    found[f"all, first {STEPS} steps"] += (alone * updates + turn * turns) / STEPS
    later = turn / optimizer._refresh_every + alone / optimizer._update_every
    found["all, later in a run"] = found["step, loss low"] + later
    sgd, by_adam = found["SGD step"], found["Adam step"]
    print(f"\n{case.title}, kronecker: 1 SGD step = {sgd * 1e3:.2f} ms, {rounds} rounds")
    print(f"  {'':<28}{'ms':>9}{'SGD steps':>11}{'Adam steps':>12}")
    for name, value in found.items():
        print(f"  {name:<28}{value * 1e3:9.2f}{value / sgd:11.2f}{value / by_adam:12.2f}")
    print(
        f"  in {STEPS} steps {updates} updates of {alone * 1e3:.1f} ms, "
        f"{turns} turns of {turn * 1e3:.1f} ms"
    )
    n = sum(p.numel() for p in ggn.parameters)
    numbers = _numbers(optimizer.state_dict())
    print(f"  state {numbers / n:.1f} numbers per parameter ({numbers * 4 / 1e6:.0f} MB)")


def _due() -> tuple[int, int]:
    """Return how many updates and turns of the basis a run's first steps take."""
    optimizer = KroneckerMLHF(nn.Linear(2, 2), meta_checkpoint=None)
    basis = optimizer._basis
    with (
        patch.object(basis, "update", wraps=basis.update) as update,
        patch.object(basis, "refresh", wraps=basis.refresh) as refresh,
    ):
        for _ in range(STEPS):
            optimizer.step(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))
    return update.call_count, refresh.call_count


def _numbers(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_numbers, value)) if isinstance(value, list) else 0
