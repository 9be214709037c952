"""The learning rates of the demonstration: a grid for each first-order optimizer.

    python -m bench.demo_rates

Prints the mean samples to the target and the mean final training loss, over three seeds that
the demonstration does not use. The demonstration takes the rate with the fewest samples to the
target.
"""

import argparse
from statistics import fmean
from typing import Any

from mlhf import train
from mlhf_service.cli.demo import TARGET, sweep

GRID = {
    "momentum": (0.01, 0.03, 0.1, 0.2, 0.3, 0.5),
    "adam": (1e-3, 3e-3, 5e-3, 1e-2, 2e-2, 3e-2),
    "adamw": (1e-3, 3e-3, 5e-3, 1e-2, 2e-2, 3e-2),
}
SEEDS = (10, 11, 12)


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    task = sweep(seeds=2, epochs=25)
    base = {k: task[k] for k in ("model", "dataset", "budget", "batch_size")}
    print(f"{'optimizer':10} {'rate':>6} {'samples to target':>18} {'final loss':>11}")
    for name, rates in GRID.items():
        for rate in rates:
            runs = [measure(base, name, rate, seed) for seed in SEEDS]
            samples = [s for s, _ in runs if s is not None]
            reached = f"{fmean(samples):,.0f}" if len(samples) == len(runs) else "missed"
            loss = fmean(loss for _, loss in runs)
            print(f"{name:10} {rate:6g} {reached:>18} {loss:11.4f}")


def measure(base: dict[str, Any], name: str, rate: float, seed: int) -> tuple[int | None, float]:
    """Return the samples to the target, None if it was missed, and the final training loss."""
    events: list[dict[str, Any]] = []
    config = {**base, "optimizer": {"name": name, "params": {"lr": rate}}, "seed": seed}
    result = train({**config, "threads": 1}, on_event=events.append)
    points = [p for e in events if e["type"] == "points" for p in e["points"]]
    reached = (p["samples"] for p in points if p["values"].get("train_loss", 9.0) <= TARGET)
    return next(reached, None), result.summary["train_loss"]["last"]


if __name__ == "__main__":
    main()
