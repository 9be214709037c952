"""What the C++ operators of the Kronecker form save: a step with them and in torch alone.

    python -m bench.cpp_operators [--steps 600] [--only NAME ...]

Each network is trained on the same batches by AdamW (torch's default, one call a parameter) and
twice by ``mlhf``, with the operators and without, a step of each in turn on one CPU thread.
Printed are the mean step in AdamW's, over the first half of the steps, where the basis is worked
on often, and over the second; both losses at the end, which rounding alone tells apart.
"""

import argparse
import copy
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from bench.fused_kernels import Recurrent
from bench.stepping import timed
from mlhf import MLHF
from mlhf.core.process import keep_freed_memory
from mlhf.optimizers.mlhf.kernels import steps


class Case(NamedTuple):
    """A network, its loss's name, and its data; ``batch`` samples a step."""

    make: Callable[[], nn.Module]
    loss: str
    data: Callable[[], tuple[Tensor, Tensor]]
    batch: int


def _mlp(*sizes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inside, out in pairwise(sizes):
        layers += [nn.Linear(inside, out), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    return torch.tensor(found.data / 8 - 1, dtype=torch.float32), torch.tensor(found.target)


def _rows_of_digits() -> tuple[Tensor, Tensor]:
    x, y = _digits()
    return x.view(-1, 8, 8), y


def _function() -> tuple[Tensor, Tensor]:
    """Return a sine of a projection of eight numbers."""
    x = torch.rand(4096, 8)
    return x, torch.sin(3 * x @ torch.randn(8, 1))


def _blobs() -> tuple[Tensor, Tensor]:
    """Return sums of a few smooth bumps, 28 × 28, as their own targets."""
    at = torch.arange(28.0)
    center, width = 28 * torch.rand(2, 2048, 4, 1), 2 + 3 * torch.rand(2048, 4, 1)
    rows, columns = (torch.exp(-(((at - c) / width) ** 2)) for c in center)
    x = torch.einsum("bki,bkj->bij", rows, columns).clamp_max(1).flatten(1)
    return x, x


CASES = {
    "MLP 8-64-64-1": Case(lambda: _mlp(8, 64, 64, 1), "mse", _function, 64),
    "MLP 64-32-10": Case(lambda: _mlp(64, 32, 10), "cross_entropy", _digits, 64),
    "GRU 8-32": Case(lambda: Recurrent(nn.GRU, 32), "cross_entropy", _rows_of_digits, 64),
    "autoencoder 784-400-200-100-30": Case(
        lambda: _mlp(784, 400, 200, 100, 30, 100, 200, 400, 784), "mse", _blobs, 64
    ),
}


def compare(case: Case, count: int) -> tuple[list[list[float]], list[float]]:
    """Return each one's seconds a step (AdamW, with operators, without), and their last losses."""
    torch.manual_seed(0)
    x, y = case.data()
    models = [case.make()]
    models += [copy.deepcopy(models[0]) for _ in range(2)]
    adamw = torch.optim.AdamW(models[0].parameters(), 3e-3, foreach=False)
    optimizers = [MLHF(model, case.loss) for model in models[1:]]
    loss_of = F.mse_loss if case.loss == "mse" else F.cross_entropy
    seconds: list[list[float]] = [[], [], []]
    losses = [0.0, 0.0]
    for _ in range(count):
        which = torch.randint(len(x), (case.batch,))
        batch = x[which], y[which]

        def first(batch: tuple[Tensor, Tensor] = batch) -> None:
            adamw.zero_grad()
            loss_of(models[0](batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
            adamw.step()

        def second(which: int, batch: tuple[Tensor, Tensor] = batch) -> None:
            losses[which] = float(optimizers[which].step(*batch).loss)

        seconds[0].append(timed(first, "cpu"))
        seconds[1].append(timed(lambda: second(0), "cpu"))
        with patch.object(steps, "fits", lambda like: False):
            seconds[2].append(timed(lambda: second(1), "cpu"))
    return seconds, losses


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--only", action="append", default=[], choices=list(CASES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if not steps.fits(torch.zeros(1)):
        parser.error("there are no operators here: no compiler was found")
    print("| network | AdamW, ms | first half: torch alone → operators | second half | loss |")
    print("|---|---|---|---|---|")
    for name in options.only or CASES:
        (adamw, with_operators, without), losses = compare(CASES[name], options.steps)
        cut = options.steps // 2
        halves = [
            " → ".join(f"{sum(one[at]) / sum(adamw[at]):.2f}" for one in (without, with_operators))
            for at in (slice(cut), slice(cut, None))
        ]
        ms = 1e3 * sum(adamw) / len(adamw)
        print(f"| {name} | {ms:.2f} | {' | '.join(halves)} | {losses[1]:.2g}, {losses[0]:.2g} |")


if __name__ == "__main__":
    main()
