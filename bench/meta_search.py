"""What single weights of MLHF's meta-checkpoint are worth, on common random numbers.

Each candidate is the meta-checkpoint with some weights moved. All train the same tasks, from the
same initialisations on the same batches, and are compared by the meta-loss of meta-training
(lower is better), task by task with the first candidate. The tasks are those of
``meta_train_default.json``, with 5,000 images in batches of 128 where they have convolutions, and
two networks of 5x5 convolutions. All keep to the parts ``meta`` of their data.

    python bench/meta_search.py --data DIR [--task NAME ...] [--seeds N] [--start FILE] MOVES ...
    python bench/meta_search.py --data DIR step.1.0-0.6,step.1.2-0.9,damping.0-0.6 --write FILE

``step.1.0-0.6`` takes .6 from row 1, column 0 of the network ``step``; ``none`` moves nothing.
With ``--write`` the last candidate is kept, with the lineage of what it began from and of the
search. DIR holds ``cifar10/`` and ``tinyshakespeare/``.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import engine.experiments
from engine.meta.config import TaskFamily
from engine.meta.kronecker_unroll import KroneckerUnroll
from engine.meta.tasks import build_tasks
from engine.meta.trajectory import Bench
from engine.mlhf.meta_checkpoint import MetaCheckpoint, load_meta_checkpoint
from engine.training.process import keep_freed_memory

JOB = Path(engine.experiments.__file__).parent / "jobs" / "meta_train_default.json"
NAMES = ["mlp 48", "mlp 40-24", "mlp bn", "fashion 64-48-32", "fashion 80", "conv", "conv bn",
         "resnet", "lstm", "transformer", "conv 5x5", "conv 5x5 32"]  # fmt: skip
IMAGES = {"train_samples": 5_000}
STEPS = 240


def families(data: Path) -> dict[str, TaskFamily]:
    """Return what is trained, by name."""
    found: list[dict[str, Any]] = json.loads(JOB.read_text())["tasks"]
    for task in found:
        if task["dataset"]["name"] == "cifar10":
            task["dataset"]["params"] |= IMAGES
            task["batch_sizes"] = [128]
    found += [_five(8, 12, 32, 16), _five(6, 8, 24, 32)]
    folders = {"cifar10": "cifar10", "text": "tinyshakespeare"}
    for task in found:
        folder = folders.get(task["dataset"]["name"])
        if folder:
            task["dataset"]["root"] = str(data / folder)
    return {n: TaskFamily.model_validate(t) for n, t in zip(NAMES, found, strict=True)}


def _five(first: int, second: int, dense: int, size: int) -> dict[str, Any]:
    """Return two 5x5 convolutions, each pooled, and a hidden dense layer, on CIFAR-10."""
    layers: list[dict[str, Any]] = []
    for channels in (first, second):
        layers += [
            {"type": "conv2d", "out_channels": channels, "kernel_size": 5, "padding": 2},
            {"type": "activation", "function": "relu"},
            {"type": "max_pool2d"},
        ]
    layers += [{"type": "flatten"}, {"type": "linear", "out_features": dense},
               {"type": "activation"}, {"type": "linear"}]  # fmt: skip
    params = {"split": "meta", "size": size, **IMAGES}
    return {
        "model": {"name": "sequential", "params": {"layers": layers}},
        "dataset": {"name": "cifar10", "params": params},
        "batch_sizes": [128],
    }


def moved(start: MetaCheckpoint, moves: str) -> MetaCheckpoint:
    """Return a meta-checkpoint with weights moved, as ``step.1.0-0.6,damping.0+0.3`` says."""
    weights = {net: {k: v.clone() for k, v in of.items()} for net, of in start.weights.items()}
    for move in [] if moves == "none" else moves.split(","):
        found = re.fullmatch(r"(\w+)((?:\.\d+)+)([+-][\d.]+)", move)
        if not found:
            sys.exit(f"{move!r} is not a move like step.1.0-0.6")
        at = tuple(int(i) for i in found[2][1:].split("."))
        weights[found[1]]["weight"][at] += float(found[3])
    return replace(start, weights=weights)


def meta_loss(bench: Bench, candidate: MetaCheckpoint, seed: int) -> float:
    """Return that of one run."""
    unroll = KroneckerUnroll()
    candidate.into(unroll.networks)
    generator = torch.Generator().manual_seed(seed)
    batches = [bench.task.batch(generator) for _ in range(STEPS + 1)]
    torch.manual_seed(seed)
    with torch.no_grad():
        losses = unroll.unroll(bench, bench.fresh(seed), batches, generator).losses
    return float(losses["step"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("moves", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", action="append", choices=NAMES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start", default="default")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    start = load_meta_checkpoint(given.start)
    candidates = {moves: moved(start, moves) for moves in given.moves}
    chosen = {n: f for n, f in families(given.data).items() if n in (given.task or NAMES)}
    tasks, lineage = build_tasks(list(chosen.values()), torch.device("cpu"))
    totals: dict[str, list[float]] = {moves: [] for moves in candidates}
    print("task; meta-loss by candidate, and its difference to the first's, mean and deviation")
    for name, task in zip(chosen, tasks, strict=True):
        bench = Bench(task, 0, 1)
        runs = {
            moves: [meta_loss(bench, candidate, seed) for seed in range(given.seeds)]
            for moves, candidate in candidates.items()
        }
        first = runs[given.moves[0]]
        for moves, losses in runs.items():
            totals[moves].append(mean(losses))
            print(f"{name:18} {mean(losses):7.3f} {_difference(losses, first)}  {moves}",
                  flush=True)  # fmt: skip
    first = totals[given.moves[0]]
    for moves, losses in totals.items():
        print(f"{'mean':18} {mean(losses):7.3f} {_difference(losses, first)}  {moves}")
    if given.write:
        moves = given.moves[-1]
        search = {
            "command": f"bench/meta_search.py --seeds {given.seeds} {' '.join(given.moves)}",
            "moves": moves,
            "tasks": lineage,
            "steps": STEPS,
            "meta_loss": {m: round(mean(losses), 4) for m, losses in totals.items()},
        }
        kept = replace(candidates[moves], lineage={**start.lineage, "search": search})
        kept.save(given.write)
        print(f"wrote {given.write}")


def _difference(losses: Sequence[float], first: Sequence[float]) -> str:
    apart = [a - b for a, b in zip(losses, first, strict=True)]
    spread = stdev(apart) if len(apart) > 1 else 0.0
    return f"{mean(apart):+7.3f} {spread:6.3f}"


if __name__ == "__main__":
    main()
