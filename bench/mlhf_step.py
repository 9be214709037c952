"""What an MLHF step costs, part by part, in steps of SGD and against the machine's floor.

The floor of a part is the larger of its floating-point operations at the speed of a large
matrix product or convolution here, whichever is faster, and its bytes at that of a large
copy. All parts take turns within one run, so that the machine's other load falls on all alike;
ratios are of medians. With one thread it is that thread's processor time that counts: on a busy
machine a long part is interrupted more often than a short one.

    python bench/mlhf_step.py [--rounds N] [--threads N] [--device cpu|cuda]
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engine.curvature.ggn import GGN
from engine.data.info import DataInfo
from engine.mlhf.optimizer import PaperMLHF
from engine.models.build import build as build_model
from engine.training.process import keep_freed_memory

Run = Callable[[], object]
LIMITS = {"mlp": 8.0, "cuda_convnet": 6.5}
_NETWORK_FLOPS = 2 * 244 + 600  # a coordinate: multiply-adds, then 40 tanh and their like
_VECTOR_PASSES = 105  # vectors read and written around the products by 4 PCG iterations


@dataclass(frozen=True)
class Machine:
    """Measured speeds: operations and bytes a second."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Part:
    """What is timed, and what it cannot do without."""

    run: Run
    flops: float
    bytes: float


def cases(device: str) -> dict[str, tuple[str, nn.Module, Tensor, Tensor]]:
    """Return the two networks with a batch each."""
    torch.manual_seed(0)
    flat = DataInfo("table", (784,), 10, "classification", 60_000, 10_000)
    image = DataInfo("image", (3, 32, 32), 10, "classification", 50_000, 10_000)
    found = {
        "MLP 784-256-128-10, batch 128": (
            "mlp",
            build_model("mlp", {"hidden": [256, 128]}, flat, 0),
            torch.randn(128, 784),
            torch.randint(0, 10, (128,)),
        ),
        "CUDA-convnet, batch 64": (
            "cuda_convnet",
            build_model("cuda_convnet", {}, image, 0),
            torch.randn(64, 3, 32, 32),
            torch.randint(0, 10, (64,)),
        ),
    }
    return {k: (n, m.to(device), x.to(device), y.to(device)) for k, (n, m, x, y) in found.items()}


def parts(model: nn.Module, x: Tensor, y: Tensor) -> tuple[dict[str, Part], PaperMLHF]:
    """Return what is timed, by name; ``SGD step`` comes first."""
    plain = copy.deepcopy(model)
    sgd = torch.optim.SGD(plain.parameters(), lr=1e-9)

    def sgd_step() -> None:
        sgd.zero_grad()
        F.cross_entropy(plain(x), y).backward()  # type: ignore[no-untyped-call]
        sgd.step()

    optimizer = PaperMLHF(copy.deepcopy(model), lr=1e-6)
    n = sum(p.numel() for p in model.parameters())
    ggn = GGN(model, "cross_entropy", x, y)
    vector = [torch.randn_like(p) for p in ggn.parameters]
    inputs = [torch.randn(n, device=x.device) for _ in range(3)]
    optimizer.step(x, y)
    states = optimizer.state_dict()["state"]

    def both_networks() -> None:
        optimizer._damping.step(inputs, states["damping"])
        optimizer._preconditioner.step(inputs, states["preconditioner"])

    def gradient() -> GGN:
        return GGN(model, "cross_entropy", x, y)

    def product() -> list[Tensor]:
        return ggn.product(vector)

    step_flops = _flops(gradient) + 5 * _flops(product)
    network = (2 * n * _NETWORK_FLOPS, 2 * n * 4 * 36)  # 3 inputs, 1 output, state twice
    return {
        "SGD step": Part(sgd_step, _flops(sgd_step), 4 * n * 3),
        "gradient and graph": Part(gradient, _flops(gradient), 4 * n * 2),
        "GGN product": Part(product, _flops(product), 4 * n * 3),
        "both networks": Part(both_networks, *network),
        "MLHF step, 4 iterations": Part(
            lambda: optimizer.step(x, y),
            step_flops + network[0],
            4 * n * _VECTOR_PASSES + network[1],
        ),
    }, optimizer


def _flops(run: Run) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


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


def machine(device: str) -> Machine:
    """Measure a matrix product, a convolution and a copy, each at its best of a few."""
    a, b = (torch.randn(1536, 1536, device=device) for _ in range(2))
    x, w = (torch.randn(64, 64, side, side, device=device) for side in (16, 5))
    source = torch.randn(1 << 25, device=device)
    target = torch.empty_like(source)
    product = min(timed(lambda: torch.mm(a, b), device) for _ in range(12))
    convolved = min(timed(lambda: F.conv2d(x, w, padding=2), device) for _ in range(12))
    copied = min(timed(lambda: target.copy_(source), device) for _ in range(12))
    flops = max(2 * 1536**3 / product, 2 * 64**3 * 25 * 16**2 / convolved)
    return Machine(flops, 8 * source.numel() / copied)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=list(LIMITS), help="one network alone")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    speed = machine(arguments.device)
    where = f"{arguments.threads} threads" if arguments.device == "cpu" else "CUDA"
    print(f"{where}: {speed.flops / 1e9:.0f} GFLOP/s, {speed.bytes / 1e9:.1f} GB/s")
    for title, (name, model, x, y) in cases(arguments.device).items():
        if arguments.only not in (None, name):
            continue
        measured, optimizer = parts(model, x, y)
        rounds = arguments.rounds * (20 if name == "mlp" else 1)
        seconds: dict[str, list[float]] = {part: [] for part in measured}
        for round_ in range(rounds + 2):
            for part, what in measured.items():
                value = timed(what.run, arguments.device)
                if round_ >= 2:
                    seconds[part].append(value)
        medians = {part: statistics.median(values) for part, values in seconds.items()}
        base, step = medians["SGD step"], medians["MLHF step, 4 iterations"]
        choice = optimizer.kernel_choice
        print(f"\n{title}: 1 SGD step = {base * 1e3:.2f} ms, {rounds} rounds; networks by "
              f"{choice.path}{f' ({choice.reason})' if choice.reason else ''}")  # fmt: skip
        print(f"  {'':<28}{'ms':>9}{'SGD steps':>11}{'floor, ms':>11}{'of floor':>10}")
        for part, what in measured.items():
            floor = max(what.flops / speed.flops, what.bytes / speed.bytes)
            value = medians[part]
            print(f"  {part:<28}{value * 1e3:9.2f}{value / base:11.2f}{floor * 1e3:11.2f}"
                  f"{value / floor:9.1f}x")  # fmt: skip
        known = (
            medians["gradient and graph"] + 5 * medians["GGN product"] + medians["both networks"]
        )
        n = sum(p.numel() for p in model.parameters())
        floor, rest = 4 * n * _VECTOR_PASSES / speed.bytes, step - known
        print(f"  {'the rest: vectors, calls':<28}{rest * 1e3:9.2f}{rest / base:11.2f}"
              f"{floor * 1e3:11.2f}{rest / floor:9.1f}x")  # fmt: skip
        state = optimizer.state_dict()["state"]
        numbers = sum(v.numel() * v.element_size() for v in state.values())
        verdict = "met" if step / base <= LIMITS[name] else "missed"
        print(f"  limit {LIMITS[name]} SGD steps: {verdict}; state "
              f"{numbers / n:.0f} bytes per parameter ({numbers / 1e6:.0f} MB)")  # fmt: skip


if __name__ == "__main__":
    main()
