"""What the step benchmarks share: two networks with a batch each, and the timing.

All parts take turns within one run, so that other load on the machine affects all alike; only
ratios count. With one thread its processor time is measured, since on a busy machine a long
part is interrupted more often than a short one. With more threads it is wall time, and on a GPU
the time between two CUDA events.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlhf.data.info import DataInfo
from mlhf.models.build import build as build_model

Run = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A network with a batch; ``rounds`` multiplies the number of rounds."""

    name: str
    title: str
    model: nn.Module
    x: Tensor
    y: Tensor
    rounds: int


@dataclass(frozen=True)
class Seconds:
    """Seconds of one call. Work that is done only every few calls shows in the mean alone."""

    median: float
    mean: float


def cases(device: str) -> list[Case]:
    """Return the two networks."""
    torch.manual_seed(0)
    flat = DataInfo("table", (784,), 10, "classification", 60_000, 10_000)
    image = DataInfo("image", (3, 32, 32), 10, "classification", 50_000, 10_000)
    mlp = build_model("mlp", {"hidden": [256, 128]}, flat, 0).to(device)
    convnet = build_model("cuda_convnet", {}, image, 0).to(device)
    x, y = torch.randn(128, 784), torch.randint(0, 10, (128,))
    images, classes = torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))
    return [
        Case("mlp", "MLP 784-256-128-10, batch 128", mlp, x.to(device), y.to(device), 20),
        Case(
            "cuda_convnet",
            "CUDA-convnet, batch 64",
            convnet,
            images.to(device),
            classes.to(device),
            1,
        ),
    ]


def sgd_step(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    """Return the SGD step that is the unit of all times."""
    sgd = torch.optim.SGD(model.parameters(), lr=1e-9)

    def run() -> None:
        sgd.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        sgd.step()

    return run


def timed(run: Run, device: str) -> float:
    """Return the seconds of one call."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3
    now = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    began = now()
    run()
    return now() - began


def in_turns(parts: Mapping[str, Run], rounds: int, device: str) -> dict[str, Seconds]:
    """Time each part once a round, after two rounds of warm-up."""
    found: dict[str, list[float]] = {name: [] for name in parts}
    for round_ in range(rounds + 2):
        for name, run in parts.items():
            value = timed(run, device)
            if round_ >= 2:
                found[name].append(value)
    return {k: Seconds(statistics.median(v), statistics.mean(v)) for k, v in found.items()}


def arguments(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the options of the step benchmarks."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="of the convnet")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="one run each")
    parser.add_argument("--only", choices=("mlp", "cuda_convnet"), help="one network alone")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    return parser


def verdict(what: str, value: float, limit: float, *, least: bool = False) -> str:
    """Return a line that says whether a limit is met, an upper one unless ``least`` is set."""
    met = value >= limit if least else value <= limit
    return f"  {what} {'>=' if least else '<='} {limit}: {value:.2f}, {'met' if met else 'MISSED'}"
