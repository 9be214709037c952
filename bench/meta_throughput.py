"""Unrolls a second in meta-training, against a straightforward eager version of the same.

The straightforward version takes the same steps with the same losses, but runs the networks
cell by cell as in ``reference.py`` under autograd, and computes Gv by two backward passes
instead of one tangent and one backward pass (the backward of that is v ↦ Gv too). Both yield
the same losses and gradients. They take turns, timed as in ``stepping.py``.

    python -m bench.meta_throughput [--rounds N] [--threads 1 2]
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.stepping import in_turns, verdict
from mlhf.core.process import keep_freed_memory
from mlhf.curvature.ggn import GGN
from mlhf.data.info import DataInfo
from mlhf.meta import paper_learner, solve
from mlhf.meta.learner import UnrollResult
from mlhf.meta.paper_learner import PaperLearner
from mlhf.meta.task_models import TaskModels
from mlhf.models.build import build
from mlhf.optimizers.mlhf.paper import networks as networks_module
from mlhf.optimizers.mlhf.paper import reference

UNROLL = 10
LIMIT = 2.0  # times as many unrolls a second, at least


@dataclass(frozen=True)
class SyntheticTask:
    """A network on random data."""

    name: str
    build: Callable[[int], nn.Module]
    shape: tuple[int, ...]
    batch_size: int = 64
    samples: int = 64
    loss: str = "cross_entropy"

    def model(self, seed: int) -> nn.Module:
        return self.build(seed)

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(self.batch_size, *self.shape, generator=generator)
        return x, torch.randint(0, 10, (self.batch_size,), generator=generator)


def tasks() -> list[SyntheticTask]:
    """Return what is unrolled."""
    small = DataInfo("table", (64,), 10, "classification", 1437, 360)
    flat = DataInfo("table", (784,), 10, "classification", 60_000, 10_000)
    image = DataInfo("image", (3, 32, 32), 10, "classification", 50_000, 10_000)
    return [
        SyntheticTask(
            "MLP 64-64-32-10", lambda s: build("mlp", {"hidden": [64, 32]}, small, s), (64,)
        ),
        SyntheticTask(
            "MLP 784-256-128-10", lambda s: build("mlp", {"hidden": [256, 128]}, flat, s), (784,)
        ),
        SyntheticTask(
            "CUDA-convnet, width 1/4",
            lambda s: build("cuda_convnet", {"width": 0.25}, image, s),
            (3, 32, 32),
        ),
    ]


class _TwoBackwards(torch.autograd.Function):
    """Gv with the Jacobian's product by differentiating the backward."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, ggn: GGN) -> Tensor:
        ctx.ggn = ggn
        return _TwoBackwards.product(v, ggn)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _TwoBackwards.product(gradients[0], ctx.ggn), None

    @staticmethod
    def product(v: Tensor, ggn: GGN) -> Tensor:
        (z,), parameters = ggn._linear._z, list(ggn.parameters)
        with torch.enable_grad():
            w = torch.zeros_like(z, requires_grad=True)
            pulled = torch.autograd.grad(z, parameters, w, create_graph=True)
            parts = torch.split(v, [p.numel() for p in parameters])
            shaped = [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]
            (u,) = torch.autograd.grad(pulled, w, shaped)
        out = torch.autograd.grad(
            z, parameters, ggn._apply_output_hessian([u])[0], retain_graph=True
        )
        return torch.cat([g.reshape(-1) for g in out])


class Straightforward:
    """A context in which unrolls are the straightforward ones."""

    def __enter__(self) -> None:
        self._product, self._call = solve.product, networks_module.CoordinateNetwork.__call__

        def product(ggn: GGN, v: Tensor) -> Tensor:
            out: Tensor = _TwoBackwards.apply(v, ggn)  # type: ignore[no-untyped-call]
            return out

        def call(
            network: networks_module.CoordinateNetwork,
            inputs: list[Tensor],
            state: Tensor,
            offset: float = 0.0,
        ) -> tuple[Tensor, Tensor]:
            squashed = [torch.tanh(v) for v in inputs]
            y, new = reference.network(squashed, state, network.weights, network.segments)
            return F.softplus(y) + offset, new

        vars(paper_learner)["product"] = product
        networks_module.CoordinateNetwork.__call__ = call  # type: ignore[assignment,method-assign]

    def __exit__(self, *_: object) -> None:
        vars(paper_learner)["product"] = self._product
        networks_module.CoordinateNetwork.__call__ = self._call  # type: ignore[method-assign]


def meta_gradient(learner: PaperLearner, bench: TaskModels) -> tuple[UnrollResult, list[Tensor]]:
    """Return one unroll and the gradients of both networks, as in a meta-iteration."""
    generator = torch.Generator().manual_seed(0)
    batches = [bench.task.batch(generator) for _ in range(UNROLL + 1)]
    result = learner.unroll(bench, bench.initialize(0), batches, generator)
    gradients: list[Tensor] = []
    for name, loss in result.losses.items():
        weights = list(learner.networks[name].parameters())
        gradients += torch.autograd.grad(loss, weights, retain_graph=name != "damping")
    return result, gradients


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="of the larger networks")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="one run each")
    options = parser.parse_args()
    keep_freed_memory()
    for threads in options.threads:
        torch.set_num_threads(threads)
        print(f"\n{threads} thread(s): unrolls of {UNROLL} steps, both meta-gradients")
        for task in tasks():
            _measure(task, options.rounds)


def _measure(task: SyntheticTask, rounds: int) -> None:
    learner, bench = PaperLearner(), TaskModels(task, 0, UNROLL + 1)

    def ours() -> tuple[UnrollResult, list[Tensor]]:
        return meta_gradient(learner, bench)

    def straightforward() -> tuple[UnrollResult, list[Tensor]]:
        with Straightforward():
            return meta_gradient(learner, bench)

    _compare(*ours(), *straightforward())
    n = bench.initialize(0).theta.numel()
    rounds *= 4 if n < 50_000 else 1
    seconds = in_turns({"ours": ours, "straightforward": straightforward}, rounds, "cpu")
    a, b = seconds["ours"].median, seconds["straightforward"].median
    print(f"\n{task.name}, {n} parameters, {rounds} rounds, medians")
    print(f"  {1 / a:.2f} unrolls a second, straightforward {1 / b:.2f}")
    print(verdict("times as many", b / a, LIMIT, least=True))


def _compare(
    mine: UnrollResult, gradients: list[Tensor], other: UnrollResult, expected: list[Tensor]
) -> None:
    for name, loss in mine.losses.items():
        torch.testing.assert_close(loss, other.losses[name], rtol=1e-3, atol=1e-4)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=1e-6 + 0.02 * float(b.abs().max()))


if __name__ == "__main__":
    main()
