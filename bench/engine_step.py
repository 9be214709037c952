"""What a Gauss-Newton product and a Hessian-free step cost, in steps of SGD.

All parts take turns within one run on one thread, so that the machine's other load falls on
all of them alike; each ratio is of medians.

    python bench/engine_step.py [--rounds N] [--curvlinops]
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.curvature.ggn import GGN
from engine.data.info import DataInfo
from engine.models.build import build as build_model
from engine.optimizers.registry import build as build_optimizer
from engine.training.process import keep_freed_memory

Case = tuple[nn.Module, Tensor, Tensor]


def cases() -> dict[str, Case]:
    """The two networks, with a batch each."""
    torch.manual_seed(0)
    flat = DataInfo("table", (784,), 10, "classification", 60_000, 10_000)
    image = DataInfo("image", (3, 32, 32), 10, "classification", 50_000, 10_000)
    return {
        "MLP 784-256-128-10, batch 128": (
            build_model("mlp", {"hidden": [256, 128]}, flat, 0),
            torch.randn(128, 784),
            torch.randint(0, 10, (128,)),
        ),
        "CUDA-convnet, batch 64": (
            build_model("cuda_convnet", {}, image, 0),
            torch.randn(64, 3, 32, 32),
            torch.randint(0, 10, (64,)),
        ),
    }


def parts(model: nn.Module, x: Tensor, y: Tensor, other: bool) -> dict[str, Callable[[], object]]:
    """What is timed, by name. ``SGD step`` comes first."""
    plain = copy.deepcopy(model)
    sgd = torch.optim.SGD(plain.parameters(), lr=1e-9)

    def sgd_step() -> None:
        sgd.zero_grad()
        F.cross_entropy(plain(x), y).backward()  # type: ignore[no-untyped-call]
        sgd.step()

    ggn = GGN(model, "cross_entropy", x, y)
    vector = [torch.randn_like(p) for p in ggn.parameters]
    timed: dict[str, Callable[[], object]] = {
        "SGD step": sgd_step,
        "gradient and graph": lambda: GGN(model, "cross_entropy", x, y),
        "GGN product": lambda: ggn.product(vector),
    }
    for name, params in (
        ("adam", {}),
        ("hf_adam", {"iterations": 2}),
        ("hf_adam", {"iterations": 4}),
    ):
        own = copy.deepcopy(model)
        optimizer = build_optimizer(name, params, own)
        label = " ".join([f"{name} step", *(f"{v} {k}" for k, v in params.items())])
        timed[label] = lambda optimizer=optimizer: optimizer.step(x, y)  # type: ignore[misc]
    if other:
        from curvlinops import GGNLinearOperator

        operator = GGNLinearOperator(
            model,
            nn.CrossEntropyLoss(),
            list(model.parameters()),
            [(x, y)],
            check_deterministic=False,
        )
        flat = torch.cat([v.reshape(-1) for v in vector])
        timed["curvlinops' GGN product"] = lambda: operator @ flat
    return timed


def measure(timed: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return each part's median seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for round_ in range(rounds + 2):
        for name, run in timed.items():
            start = time.perf_counter()
            run()
            if round_ >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--curvlinops", action="store_true", help="time that library too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for title, (model, x, y) in cases().items():
        rounds = arguments.rounds * (20 if "MLP" in title else 1)
        medians = measure(parts(model, x, y, arguments.curvlinops), rounds)
        base = medians["SGD step"]
        print(f"\n{title}: 1 SGD step = {base * 1e3:.2f} ms, one thread, {rounds} rounds")
        for name, value in medians.items():
            print(f"  {name:<28}{value * 1e3:9.2f} ms {value / base:7.2f} SGD steps")


if __name__ == "__main__":
    main()
