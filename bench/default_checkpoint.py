"""The shipped meta-checkpoint of the variant paper against its controls, over three seeds.

Every optimizer trains the same networks through ``mlhf.train``. Adam's rate is the best of a
grid by the final loss; the others run at their defaults. ``mlhf none`` is MLHF with untrained
networks.

    python -m bench.default_checkpoint [--cifar10 FOLDER] [--epochs N] [--seeds N]
"""

import argparse
import math
import statistics
from typing import Any

from mlhf import train
from mlhf.core.process import keep_freed_memory

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("mlhf", {"variant": "paper"}),
    ("mlhf", {"variant": "paper", "meta_checkpoint": "none"}),
    ("hf", {}),
    ("hf_adam", {}),
    ("l2l", {}),
    *(("adam", {"lr": rate}) for rate in RATES),
]


def problems(cifar10: str | None, epochs: int) -> dict[str, dict[str, Any]]:
    """Return configurations by title: networks that meta-training did not see, on two data sets."""
    found: dict[str, dict[str, Any]] = {
        "digits, MLP 64-48-24-10": {
            "model": {"name": "mlp", "params": {"hidden": [48, 24]}},
            "dataset": {"name": "digits"},
            "batch_size": 64,
        }
    }
    if cifar10:
        data = {
            "name": "cifar10",
            "params": {"split": "compare", "size": 16, "train_samples": 5000, "test_samples": 1000},
            "root": cifar10,
        }
        layers: list[dict[str, Any]] = []
        for channels in (12, 24):
            layers += [
                {"type": "conv2d", "out_channels": channels, "kernel_size": 3, "padding": 1},
                {"type": "activation", "function": "relu"},
                {"type": "max_pool2d", "kernel_size": 2},
            ]
        layers += [
            {"type": "flatten"},
            {"type": "linear", "out_features": 48},
            {"type": "activation", "function": "relu"},
            {"type": "linear"},
        ]
        found["CIFAR-10 at 16×16, 5,000 images, conv 12-24, dense 48"] = {
            "model": {"name": "sequential", "params": {"layers": layers}},
            "dataset": data,
            "batch_size": 64,
        }
    shared = {
        "budget": {"epochs": epochs},
        "evaluation": {"every_epochs": epochs / 2, "samples": "all"},
        "threads": 1,
        "device": "cpu",
    }
    return {title: {**problem, **shared} for title, problem in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar10", help="folder of CIFAR-10's files")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    keep_freed_memory()
    for title, problem in problems(arguments.cifar10, arguments.epochs).items():
        print(
            f"\n{title}; training loss over {arguments.seeds} seeds (lowest-highest), "
            f"test accuracy, seconds"
        )
        rows: list[tuple[str, list[float], list[float], float, float]] = []
        for name, params in OPTIMIZERS:
            ends, halves, accuracies, seconds = [], [], [], []
            for seed in range(arguments.seeds):
                events: list[dict[str, Any]] = []
                config = {**problem, "optimizer": {"name": name, "params": params}, "seed": seed}
                result = train(config, on_event=events.append)
                curve = [
                    p["values"]["train_loss"]
                    for e in events
                    if e["type"] == "points"
                    for p in e["points"]
                    if "train_loss" in p["values"]
                ]
                diverged = result.status != "succeeded"
                halves.append(math.inf if diverged else curve[1])
                ends.append(math.inf if diverged else curve[-1])
                accuracies.append(result.summary["test_accuracy"]["last"])
                seconds.append(result.totals["wall_seconds"])
            label = " ".join([name, *(str(v) for v in params.values())])
            rows.append(
                (label, halves, ends, statistics.mean(accuracies), statistics.mean(seconds))
            )
        adams = [row for row in rows if row[0].startswith("adam")]
        best = min(adams, key=lambda row: statistics.mean(row[2]))
        print(f"  {'':<14}{f'epoch {arguments.epochs / 2:g}':>16}{f'epoch {arguments.epochs}':>16}")
        for row in rows:
            if row in adams and row is not best:
                continue
            label, halves, ends, accuracy, took = row
            spans = [f"{min(v):.3f}-{max(v):.3f}" for v in (halves, ends)]
            print(f"  {label:<14}{spans[0]:>16}{spans[1]:>16}{accuracy:8.3f}{took:8.1f} s")


if __name__ == "__main__":
    main()
