"""The cost of a Gauss-Newton product and of a step of every optimizer, in SGD steps.

python -m bench.engine_step [--rounds N] [--threads 1 2] [--only NAME] [--device D]
                            [--no-optimizers] [--no-curvlinops]
"""

import copy
import importlib.util

import torch
from torch import nn

from bench.stepping import (
    Case,
    Run,
    arguments,
    cases,
    in_turns,
    sgd_step,
    verdict,
)
from mlhf.core.process import keep_freed_memory
from mlhf.curvature.ggn import GGN
from mlhf.optimizers.registry import build as build_optimizer
from mlhf.optimizers.specs import OPTIMIZERS

# Limits of a product: in SGD steps, and as a fraction of the time of curvlinops.
LIMIT, LIMIT_CURVLINOPS = 1.0, 0.6


def products(case: Case, other: bool) -> dict[str, Run]:
    """Return the gradient and product, by name; ``SGD step`` comes first."""
    model, x, y = case.model, case.x, case.y
    ggn = GGN(model, "cross_entropy", x, y)
    vector = [torch.randn_like(p) for p in ggn.parameters]
    found: dict[str, Run] = {
        "SGD step": sgd_step(copy.deepcopy(model), x, y),
        "gradient and graph": lambda: GGN(model, "cross_entropy", x, y),
        "GGN product": lambda: ggn.product(vector),
    }
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
        found["curvlinops' GGN product"] = lambda: operator @ flat
    return found


def optimizers(case: Case) -> dict[str, Run]:
    """Return a step of every optimizer at its defaults, by name; ``SGD step`` comes first."""
    settings: list[tuple[str, dict[str, int]]] = [(name, {}) for name in OPTIMIZERS]
    settings.append(("hf_adam", {"iterations": 2}))
    found: dict[str, Run] = {"SGD step": sgd_step(copy.deepcopy(case.model), case.x, case.y)}
    for name, params in settings:
        optimizer = build_optimizer(name, params, copy.deepcopy(case.model))
        label = " ".join([name, *(f"{v} {k}" for k, v in params.items())])
        found[label] = lambda optimizer=optimizer: optimizer.step(case.x, case.y)  # type: ignore[misc]
    return found


def main() -> None:
    parser = arguments(__doc__, rounds=20)
    parser.add_argument("--no-curvlinops", action="store_true", help="leave that library out")
    parser.add_argument("--no-optimizers", action="store_true", help="the product alone")
    options = parser.parse_args()
    other = not options.no_curvlinops and importlib.util.find_spec("curvlinops") is not None
    if not (other or options.no_curvlinops):
        print("curvlinops is not installed: its product is left out")
    keep_freed_memory()
    for threads in options.threads if options.device == "cpu" else options.threads[:1]:
        torch.set_num_threads(threads)
        where = f"{threads} thread(s)" if options.device == "cpu" else "CUDA"
        for case in cases(options.device):
            if options.only in (None, case.name):
                _measure(case, options.rounds, options.device, where, other)
                if not options.no_optimizers:
                    _optimizers(case, options.rounds, options.device)


def _measure(case: Case, rounds: int, device: str, where: str, other: bool) -> None:
    rounds *= case.rounds
    seconds = {k: v.median for k, v in in_turns(products(case, other), rounds, device).items()}
    base, product = seconds["SGD step"], seconds["GGN product"]
    print(f"\n{case.title}, {where}: 1 SGD step = {base * 1e3:.2f} ms, {rounds} rounds, medians")
    for name, value in seconds.items():
        print(f"  {name:<28}{value * 1e3:9.2f} ms {value / base:7.2f} SGD steps")
    print(verdict("GGN product in SGD steps", product / base, LIMIT))
    if other:
        ratio = product / seconds["curvlinops' GGN product"]
        print(verdict("GGN product of curvlinops'", ratio, LIMIT_CURVLINOPS))


def _optimizers(case: Case, rounds: int, device: str) -> None:
    rounds *= min(case.rounds, 5)
    seconds = in_turns(optimizers(case), rounds, device)
    base = seconds["SGD step"]
    print(f"  one step of each optimizer, {rounds} rounds: median, and mean in SGD steps")
    for name, value in seconds.items():
        print(
            f"  {name:<28}{value.median * 1e3:9.2f} ms {value.median / base.median:7.2f} "
            f"{value.mean / base.mean:7.2f}"
        )


if __name__ == "__main__":
    main()
