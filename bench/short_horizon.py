"""The judge's eight tasks over a few epochs: whether a change of MLHF's steps does harm.

    python -m bench.short_horizon run before.jsonl --data DIR --seeds 3   # by the old version
    python -m bench.short_horizon run after.jsonl --data DIR --seeds 3    # by the new one
    python -m bench.short_horizon compare before.jsonl after.jsonl

Printed are means over the seeds that both have, and the mean differences with their 95 %
intervals, of the log training loss of the averaged weights: after the last epoch, and in the
mean over epochs. Files are appended to. It is no judgement: horizons are short and seeds few.
"""

import argparse
import json
import math
from pathlib import Path
from statistics import mean

import torch

from bench.judge.measures import estimate
from bench.judge.tasks import tasks
from bench.kronecker_ablation import root_of, run
from mlhf.core.process import keep_freed_memory
from mlhf.data.loading import load

EPOCHS = {
    "digits-mlp": 5,
    "fashion-mlp": 2,
    "cifar16-convnet": 4,
    "cifar16-cuda-convnet": 3,
    "cifar32-cuda-convnet": 2,
    "cifar16-resnet": 3,
    "text-lstm": 5,
    "text-transformer": 5,
}
Runs = dict[str, dict[int, tuple[float, float]]]  # by task and seed: last and mean log loss


def measure(file: Path, data: Path, names: list[str], seeds: list[int]) -> None:
    """Train each task with each seed; append its losses to the file."""
    for benchmark_task in tasks("cpu"):
        task = benchmark_task.spec
        if task.name not in names:
            continue
        loaded = load(task.dataset.name, task.dataset.params, root_of(data, task.dataset.name))
        for seed in seeds:
            outcome = run(task, loaded, {}, seed, EPOCHS[task.name])
            line = {"task": task.name, "seed": seed, "train": outcome.train, "test": outcome.test}
            with file.open("a") as out:
                out.write(json.dumps(line) + "\n")
            print(line, flush=True)


def read(file: Path) -> Runs:
    """Return the runs of a file."""
    found: Runs = {}
    for line in file.read_text().splitlines():
        run = json.loads(line)
        logs = [math.log(max(loss, 1e-6)) for loss in run["train"]]
        found.setdefault(run["task"], {})[run["seed"]] = (logs[-1], mean(logs))
    return found


def compare(before: Runs, after: Runs) -> list[str]:
    """Return a table with a row for each task that both have with at least two seeds."""
    rows = [
        "| task | seeds | last loss before | after | log difference | mean log loss, difference |",
        "|---|---|---|---|---|---|",
    ]
    for task, runs in before.items():
        seeds = sorted(set(runs) & set(after.get(task, {})))
        if len(seeds) < 2:
            continue
        old, new = [runs[s] for s in seeds], [after[task][s] for s in seeds]
        last = [b[0] - a[0] for a, b in zip(old, new, strict=True)]
        whole = [b[1] - a[1] for a, b in zip(old, new, strict=True)]
        losses = (math.exp(mean(v[0] for v in values)) for values in (old, new))
        rows.append(
            f"| {task} | {len(seeds)} | {' | '.join(f'{loss:.4g}' for loss in losses)} "
            f"| {estimate(last)} | {estimate(whole)} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    measured = actions.add_parser("run")
    measured.add_argument("file", type=Path)
    measured.add_argument("--data", type=Path, required=True)
    measured.add_argument("--task", action="append", choices=list(EPOCHS))
    measured.add_argument("--seeds", type=int, default=3)
    measured.add_argument("--first-seed", type=int, default=0)
    compared = actions.add_parser("compare")
    compared.add_argument("before", type=Path)
    compared.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.action == "compare":
        print("\n".join(compare(read(given.before), read(given.after))))
        return
    torch.set_num_threads(1)
    keep_freed_memory()
    seeds = list(range(given.first_seed, given.first_seed + given.seeds))
    measure(given.file, given.data, given.task or list(EPOCHS), seeds)


if __name__ == "__main__":
    main()
