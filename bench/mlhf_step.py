"""The cost of an MLHF step, part by part, in SGD steps and against the machine's floor.

The paper's form is measured eager and as one compiled graph, the Kronecker form in steps of SGD
and of Adam (``kronecker_step.py``). The floor of a part is the larger of two times: that of its
floating-point operations at the speed of a large matrix product or convolution on this machine,
whichever is faster, and that of its bytes at the speed of a large copy.

    python -m bench.mlhf_step [--rounds N] [--threads 1 2] [--only NAME] [--device D]
                              [--no-compile] [--form paper|kronecker]
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.kronecker_step import measure as measure_kronecker
from bench.stepping import (
    Case,
    Run,
    arguments,
    cases,
    in_turns,
    sgd_step,
    timed,
    verdict,
)
from mlhf.core.process import keep_freed_memory
from mlhf.curvature.ggn import GGN
from mlhf.optimizers.mlhf.paper.optimizer import PaperMLHF

LIMITS = {"mlp": 8.0, "cuda_convnet": 6.5}
NETWORKS_LIMIT = 0.6  # of both networks on the convnet's 1.76 M coordinates
PRODUCT_LIMIT = 1.0
EAGER, COMPILED = "MLHF step, 4 iterations", "the same, compiled"
_NETWORK_FLOPS = 2 * 244 + 600  # a coordinate: multiply-adds, then 40 tanh and their like
_VECTOR_PASSES = 105  # vectors read and written around the products by 4 PCG iterations


@dataclass(frozen=True)
class Machine:
    """Measured speeds: operations and bytes a second."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Part:
    """A part of a step: the call, and its least operations and bytes."""

    run: Run
    flops: float
    bytes: float


def parts(case: Case, compile: bool) -> tuple[dict[str, Part], list[PaperMLHF]]:
    """Return the parts by name, ``SGD step`` first, and the optimizers."""
    model, x, y = case.model, case.x, case.y
    sgd = sgd_step(copy.deepcopy(model), x, y)
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

    network = (2 * n * _NETWORK_FLOPS, 2 * n * 4 * 36)  # 3 inputs, 1 output, state twice
    whole = (
        _flops(gradient) + 5 * _flops(product) + network[0],
        4 * n * _VECTOR_PASSES + network[1],
    )
    found = {
        "SGD step": Part(sgd, _flops(sgd), 4 * n * 3),
        "gradient and graph": Part(gradient, _flops(gradient), 4 * n * 2),
        "GGN product": Part(product, _flops(product), 4 * n * 3),
        "both networks": Part(both_networks, *network),
        EAGER: Part(lambda: optimizer.step(x, y), *whole),
    }
    if not compile:
        return found, [optimizer]
    fast = PaperMLHF(copy.deepcopy(model), lr=1e-6, compile=True)
    fast.step(x, y)
    return {**found, COMPILED: Part(lambda: fast.step(x, y), *whole)}, [optimizer, fast]


def _flops(run: Run) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


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
    parser = arguments(__doc__, rounds=15)
    parser.add_argument("--no-compile", action="store_true", help="the eager step alone")
    parser.add_argument("--form", choices=("paper", "kronecker"), help="one form alone")
    options = parser.parse_args()
    keep_freed_memory()
    for threads in options.threads if options.device == "cpu" else options.threads[:1]:
        torch.set_num_threads(threads)
        speed = machine(options.device)
        where = f"{threads} thread(s)" if options.device == "cpu" else "CUDA"
        print(f"\n{where}: {speed.flops / 1e9:.0f} GFLOP/s, {speed.bytes / 1e9:.1f} GB/s")
        for case in cases(options.device):
            if options.only not in (None, case.name):
                continue
            rounds = options.rounds * case.rounds
            if options.form != "kronecker":
                _measure(case, rounds, options.device, speed, not options.no_compile)
            if options.form != "paper":
                measure_kronecker(case, rounds, options.device)


def _measure(case: Case, rounds: int, device: str, speed: Machine, compile: bool) -> None:
    measured, optimizers = parts(case, compile)
    seconds = in_turns({name: part.run for name, part in measured.items()}, rounds, device)
    medians = {name: value.median for name, value in seconds.items()}
    base = medians["SGD step"]
    choice = optimizers[0].kernel_choice
    print(
        f"\n{case.title}, paper: 1 SGD step = {base * 1e3:.2f} ms, {rounds} rounds; networks by "
        f"{choice.path}{f' ({choice.reason})' if choice.reason else ''}"
    )
    print(f"  {'':<28}{'ms':>9}{'SGD steps':>11}{'floor, ms':>11}{'of floor':>10}")
    for name, part in measured.items():
        _row(name, medians[name], base, max(part.flops / speed.flops, part.bytes / speed.bytes))
    known = medians["gradient and graph"] + 5 * medians["GGN product"] + medians["both networks"]
    n = sum(p.numel() for p in case.model.parameters())
    floor = 4 * n * _VECTOR_PASSES / speed.bytes
    _row("the rest: vectors, calls", medians[EAGER] - known, base, floor)
    print(verdict("GGN product in SGD steps", medians["GGN product"] / base, PRODUCT_LIMIT))
    if case.name == "cuda_convnet":
        print(verdict("both networks", medians["both networks"] / base, NETWORKS_LIMIT))
    print(verdict("MLHF step, eager", medians[EAGER] / base, LIMITS[case.name]))
    if compile:
        print(verdict("MLHF step, compiled", medians[COMPILED] / base, LIMITS[case.name]))
        print(f"  it ran {optimizers[1].path} {optimizers[1].path_reason}".rstrip())
    state = optimizers[0].state_dict()["state"]
    numbers = sum(v.numel() * v.element_size() for v in state.values())
    print(f"  state {numbers / n:.0f} bytes per parameter ({numbers / 1e6:.0f} MB)")


def _row(name: str, value: float, base: float, floor: float) -> None:
    print(
        f"  {name:<28}{value * 1e3:9.2f}{value / base:11.2f}{floor * 1e3:11.2f}"
        f"{value / floor:9.1f}x"
    )


if __name__ == "__main__":
    main()
