"""The Kronecker form's step and its parts, in steps of SGD and of Adam."""

import copy
from typing import Any
from unittest.mock import patch

import torch
from stepping import Case, Run, in_turns, sgd_step
from torch import Tensor, nn

from engine.curvature.ggn import GGN
from engine.mlhf.kronecker.optimizer import KroneckerMLHF
from engine.optimizers.registry import build as build_optimizer

STEPS = 200  # over which updates and turns of the basis are spread: their first are dense
_NEVER = 1 << 60


def measure(case: Case, rounds: int, device: str) -> None:
    """Print the step's parts; steps are timed between updates of the basis."""
    model, x, y = copy.deepcopy(case.model), case.x, case.y
    adam = build_optimizer("adam", {}, copy.deepcopy(model))
    optimizer, stepping = (KroneckerMLHF(m, lr=1e-6) for m in (model, copy.deepcopy(model)))
    for one in (optimizer, stepping):
        one.step(x, y)
        one._next_update = one._next_refresh = _NEVER  # these are timed by themselves
    basis = optimizer._basis
    ggn = GGN(model, "cross_entropy", x, y)
    vector = [torch.randn_like(p) for p in ggn.parameters]
    turned = basis.rotate(vector)

    def update() -> None:
        with basis.watching():
            GGN(model, "cross_entropy", x, y)
        basis.update(y)
        basis.forget()

    def tangents() -> list[list[Tensor]]:
        return [ggn.hessian(ggn.jvp(vector)) for _ in range(2)]

    def rotations() -> None:  # the gradient there, the new direction back
        basis.rotate(vector)
        basis.back(turned)

    runs: dict[str, Run] = {
        "SGD step": sgd_step(copy.deepcopy(model), x, y),
        "Adam step": lambda: adam.step(x, y),
        "gradient and graph": lambda: GGN(model, "cross_entropy", x, y),
        "tangents, 2": tangents,
        "rotations, there and back": rotations,
        "step, basis left as it is": lambda: stepping.step(x, y),
    }
    found = {name: s.median for name, s in in_turns(runs, rounds, device).items()}
    # Few rounds will do for what is spread over many steps.
    rare = in_turns({"update": update, "turn": basis.refresh}, max(2, rounds // 20), device)
    updates, turns = _due()
    update_alone = max(0.0, rare["update"].median - found["gradient and graph"])
    found["basis update, spread"] = update_alone * updates / STEPS
    found["basis turn, spread"] = rare["turn"].median * turns / STEPS
    whole = "step, all together"
    found[whole] = found["step, basis left as it is"]
    found[whole] += found["basis update, spread"] + found["basis turn, spread"]
    later = rare["turn"].median / optimizer._refresh_every
    later += update_alone / optimizer._update_every
    found["the same, later in a run"] = found["step, basis left as it is"] + later
    sgd, by_adam = found["SGD step"], found["Adam step"]
    print(f"\n{case.title}, kronecker: 1 SGD step = {sgd * 1e3:.2f} ms, {rounds} rounds")
    print(f"  {'':<28}{'ms':>9}{'SGD steps':>11}{'Adam steps':>12}")
    for name, value in found.items():
        print(f"  {name:<28}{value * 1e3:9.2f}{value / sgd:11.2f}{value / by_adam:12.2f}")
    print(f"  in {STEPS} steps {updates} updates of {rare['update'].median * 1e3:.1f} ms (with a "
          f"gradient), {turns} turns of {rare['turn'].median * 1e3:.1f} ms")  # fmt: skip
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
