"""What exact steps gain where every step has all samples (docs/research.md#full-batches).

    python -m bench.full_batches [--seconds 2] [--seeds 2]    # six small tasks
    python -m bench.full_batches --surrogate 5 30 100     # bench.science's, by the first step

For each task the losses on the training set and on other samples at some CPU times (process time,
one thread): without exact steps, with them for every loss, and as they are (for squared errors).
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes, load_iris, load_wine, make_moons
from torch import Tensor, nn

from bench.science.contenders import CONTENDERS, run
from mlhf import MLHF
from mlhf.optimizers.mlhf.kronecker import exact_steps, repeated_batch

_TIMES = (0.1, 0.3, 1.0)  # seconds, beside the last
_NEVER = 1 << 60
_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "cross_entropy": F.cross_entropy,
}
Task = tuple[str, Callable[[], nn.Module], str, Tensor, Tensor, int]


def _standard(values: object) -> Tensor:
    found = torch.as_tensor(values).float()
    return (found - found.mean(0)) / (found.std(0) + 1e-8)


def tasks() -> Iterator[Task]:
    """Yield name, network, loss, inputs, targets, and how many samples are trained on."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1500, 8, generator=generator)
    y = (3 * x[:, :1]).sin() * x[:, 1:2] + x[:, 2:3] ** 2 + x[:, 3:4] * x[:, 4:5]
    yield "smooth", lambda: _mlp(8, 64, 64, 1), "mse", x, _standard(y), 500
    x = torch.rand(600, 2, generator=generator) * 6 - 3
    y = x[:, :1].sin() + 0.3 * torch.randn(600, 1, generator=generator)
    yield "noisy", lambda: _mlp(2, 64, 1, activation=nn.ReLU), "mse", x, y, 200
    found = load_diabetes()
    order = torch.randperm(len(found.data), generator=generator)
    x, y = _standard(found.data)[order], _standard(found.target[:, None])[order]
    yield "diabetes", lambda: _mlp(10, 32, 1, activation=nn.ReLU), "mse", x, y, 350
    for name, found in (("iris", load_iris()), ("wine", load_wine())):
        order = torch.randperm(len(found.data), generator=generator)
        x, y = _standard(found.data)[order], torch.as_tensor(found.target)[order]

        def network(inputs: int = x.shape[1]) -> nn.Module:
            return _mlp(inputs, 16, 3, activation=nn.ReLU)

        yield name, network, "cross_entropy", x, y, len(x) * 2 // 3
    points, labels = make_moons(600, noise=0.25, random_state=0)
    y = torch.as_tensor(labels)
    yield "moons", lambda: _mlp(2, 32, 32, 2), "cross_entropy", _standard(points), y, 200


def _mlp(*sizes: int, activation: type[nn.Module] = nn.Tanh) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


def measure(task: Task, seed: int, seconds: float) -> str:
    """Train; return time, steps and both losses at the times that are told."""
    _, make, loss, x, y, count = task
    torch.manual_seed(seed)
    model = make()
    optimizer = MLHF(model, loss)
    due, told, spent, steps = [*_TIMES, seconds], list[str](), 0.0, 0
    while due:
        began = time.process_time()
        optimizer.step(x[:count], y[:count])
        spent, steps = spent + time.process_time() - began, steps + 1
        if spent < due[0]:
            continue
        due = [each for each in due if each > spent]
        optimizer.eval_mode()
        with torch.no_grad():
            own, other = (
                _LOSSES[loss](model(x[part]), y[part]).item()
                for part in (slice(count), slice(count, None))
            )
        optimizer.train_mode()
        told.append(f"{spent:.1f} s, {steps} steps: {own:.1e} ({other:.3g})")
    return "; ".join(told)


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--surrogate", type=int, nargs="*", metavar="STEP")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for first in options.surrogate or ():
        for seed in (11, 12):
            with mock.patch.object(exact_steps, "_FIRST", first):
                curve = run("surrogate", CONTENDERS["mlhf"][0], seed, options.seconds)
            errors = ", ".join(f"{at:.1f} s {error:.1e}" for at, _, error in curve)
            print(f"exact from step {first}, seed {seed}: {errors}", flush=True)
    if options.surrogate is not None:
        return
    # By what is patched: for every loss they do not stall, and every loss passes for a square.
    forms: dict[str, list[tuple[Any, str, float]]] = {
        "never": [(exact_steps, "_FIRST", _NEVER)],
        "for every loss": [
            (repeated_batch, "_QUADRATIC", math.inf),
            (repeated_batch, "_STALL", -1),
        ],
        "as they are": [],
    }
    for task in tasks():
        for name, patches in forms.items():
            for seed in range(options.seeds):
                with ExitStack() as stack:
                    for owner, attribute, value in patches:
                        stack.enter_context(mock.patch.object(owner, attribute, value))
                    print(f"{task[0]}, {name}, seed {seed}: ", end="")
                    print(measure(task, seed, options.seconds), flush=True)


if __name__ == "__main__":
    main()
