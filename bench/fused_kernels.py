"""What kernels with tangents by formula save: a gradient, a tangent, and a step of ``mlhf``.

    python -m bench.fused_kernels [--rounds 40]

Networks with an LSTM, a GRU and attention, once with the kernels that a step runs (``now``), and
once with those whose backward torch can differentiate (``before``), in turns on one CPU thread.
A gradient includes its forward pass. The network's plain forward and backward pass, as AdamW
needs it, is the unit of the last three columns; the step is the mean of a whole run on digits,
with all that is done ever less often, and there in steps of AdamW.
"""

import argparse
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from bench.stepping import in_turns, timed
from mlhf import MLHF
from mlhf.core.process import keep_freed_memory
from mlhf.curvature.ggn import GGN
from mlhf.curvature.kernels import Kernels

BATCH = 64


class Recurrent(nn.Module):
    def __init__(self, cell: Callable[..., nn.Module], width: int) -> None:
        super().__init__()
        self.cell, self.out = cell(8, width, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.cell(x)[0][:, -1])
        return out


class Attention(nn.Module):
    """One encoder layer over an image's rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table, self.rows = nn.Linear(8, width), nn.Parameter(0.02 * torch.randn(8, width))
        self.layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.out = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.layer(self.table(x) + self.rows).mean(1))
        return out


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "LSTM 8-64": lambda: Recurrent(nn.LSTM, 64),
    "GRU 8-32": lambda: Recurrent(nn.GRU, 32),
    "attention 32": lambda: Attention(32),
}


@contextmanager
def differentiable_kernels() -> Iterator[None]:
    """Passes run without kernels whose backward cannot be differentiated."""
    with (
        patch.object(Kernels, "with_tangents", lambda self, _: self.twice()),
        patch.object(Kernels, "of_pass", lambda self, _: self.twice()),
    ):
        yield


def parts(model: nn.Module, x: Tensor, y: Tensor, rounds: int) -> dict[str, float]:
    """Seconds of a plain pass; of a gradient and a tangent, by both kinds of kernel."""
    v = [torch.randn_like(p) for p in model.parameters()]

    def plain() -> None:
        torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))

    def gradient() -> GGN:
        return GGN(model, "cross_entropy", x, y)

    def both() -> None:
        gradient().jvp(v)

    def before(run: Callable[[], object]) -> Callable[[], None]:
        def within() -> None:
            with differentiable_kernels():
                run()

        return within

    runs = {
        "plain": plain,
        "gradient": gradient,
        "both": both,
        "gradient before": before(gradient),
        "both before": before(both),
    }
    return {name: found.median for name, found in in_turns(runs, rounds, "cpu").items()}


def steps(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> tuple[float, float, float]:
    """Mean seconds of a step of AdamW, and of ``mlhf`` by both kinds of kernel."""
    models = [copy.deepcopy(model) for _ in range(3)]
    adamw = torch.optim.AdamW(models[0].parameters(), 3e-3)
    optimizers = [MLHF(each) for each in models[1:]]
    taken = [0.0, 0.0, 0.0]
    for step in range(epochs * (len(x) // BATCH)):
        at = step * BATCH % (len(x) - BATCH + 1)
        batch = x[at : at + BATCH], y[at : at + BATCH]

        def first(batch: tuple[Tensor, Tensor] = batch) -> None:
            adamw.zero_grad()
            F.cross_entropy(models[0](batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
            adamw.step()

        taken[0] += timed(first, "cpu")
        taken[1] += timed(lambda b=batch: optimizers[0].step(*b), "cpu")  # type: ignore[misc]
        with differentiable_kernels():
            taken[2] += timed(lambda b=batch: optimizers[1].step(*b), "cpu")  # type: ignore[misc]
    return taken[0], taken[1], taken[2]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=20, help="of a run on digits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    digits = load_digits()
    x = torch.tensor(digits.images / 8 - 1, dtype=torch.float32)
    y = torch.tensor(digits.target)
    print("| network | plain pass, ms | gradient, before → now | tangent | a step, in AdamW's |")
    print("|---|---|---|---|---|")
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        model = make()
        found = parts(model, x[:BATCH], y[:BATCH], options.rounds)
        unit = found["plain"]
        tangents = [found[f"both{when}"] - found[f"gradient{when}"] for when in (" before", "")]
        adamw, now, before = steps(model, x, y, options.epochs)
        print(
            f"| {name} | {1e3 * unit:.2f} "
            f"| {found['gradient before'] / unit:.2f} → {found['gradient'] / unit:.2f} "
            f"| {tangents[0] / unit:.2f} → {tangents[1] / unit:.2f} "
            f"| {before / adamw:.2f} → {now / adamw:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
