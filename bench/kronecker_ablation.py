"""What each part of MLHF's Kronecker form is worth: the form without it, on the judged networks.

They train on the part ``meta`` of their data. Printed are the mean over epochs of the log
training loss (lower is better), the last training loss, the test loss at the training loss that
the whole form had halfway, and the processor time of a step.

    python -m bench.kronecker_ablation --data DIR [--task NAME ...] [--only PART ...] [--seeds N]

DIR holds ``cifar10/`` and ``tinyshakespeare/``. Fashion-MNIST is found where its Debian package
puts it.
"""

import argparse
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

import torch

from bench.harness.contract import Task
from bench.judge.tasks import tasks
from mlhf.core.process import keep_freed_memory
from mlhf.data.loading import Dataset, load
from mlhf.models.build import build
from mlhf.models.loss import loss_name
from mlhf.optimizers.mlhf.kronecker import basis, blocks, factor_basis, solver
from mlhf.optimizers.mlhf.kronecker.optimizer import KroneckerMLHF
from mlhf.training.averaging import averaged
from mlhf.training.evaluation import evaluate

EPOCHS = {
    "digits-mlp": 20,
    "fashion-mlp": 12,
    "cifar16-convnet": 8,
    "cifar16-cuda-convnet": 8,
    "cifar16-resnet": 10,
    "text-lstm": 10,
    "text-transformer": 10,
}
# Where a dotted name of a part is patched; names without a dot are arguments of the optimizer.
OWNERS: dict[str, Any] = {
    "basis": basis,
    "blocks": blocks,
    "factor_basis": factor_basis,
    "solver": solver,
    "Solver": solver.Solver,
}
PARTS: dict[str, dict[str, Any]] = {
    "the whole form": {},
    "nothing learned": {"meta_checkpoint": None},
    "no average": {"average": 0.0},
    "no rotation: diagonals only": {"max_dimension": 0},
    "damping that does not grow": {"growth_steps": math.inf},
    "all eigenvectors of long sides": {"factor_basis._MAX_FULL": 1 << 60},
    "position embeddings damped in full": {"position_damping": False},
    "means from 16 samples": {"samples": 16},
    "each step solved": {"solve_every": 1},
    "measured each step": {"solver.LOW_LOSS": 0.0, "solver._UNMEASURED": 0},
    "measured each step once the loss is low": {"solver._UNMEASURED": 0},
    "seven steps of eight not measured": {"solver._UNMEASURED": 7},
    "a quarter of a long side's eigenvectors": {"blocks._FEW_ROWS": 1 << 60},
    "no mean of solves": {"solver._SOLVE_WEIGHT": 1.0},
    "measured at solves only": {"solver._OUTLIER": math.inf, "solver.LOW_LOSS": math.inf},
    "two directions": {"iterations": 2},
    "steps that may promise anything": {"Solver._polyak_scale": lambda *_: 1.0},
}


@dataclass(frozen=True)
class Outcome:
    """Losses after each epoch, and the processor time of a step in milliseconds."""

    train: list[float]
    test: list[float]
    milliseconds: float

    @property
    def integral(self) -> float:
        return mean(math.log(max(v, 1e-6)) if v < math.inf else math.inf for v in self.train)

    def test_at(self, goal: float) -> float:
        """Return the test loss after the first epoch at or below a training loss."""
        return next((b for a, b in zip(self.train, self.test, strict=True) if a <= goal), math.nan)


def run(task: Task, data: Dataset, part: dict[str, Any], seed: int, epochs: int) -> Outcome:
    """Train once, evaluating after each epoch on at most 2,500 samples of each split."""
    arguments = {"meta_checkpoint": "default", **{k: v for k, v in part.items() if "." not in k}}
    model = build(task.model.name, task.model.params, data.info, seed)
    loss = loss_name(data.info)
    size, batch = data.size("train"), task.batch_size
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    cpu, spent, steps = torch.device("cpu"), 0.0, 0
    train, test = [], []
    with ExitStack() as stack:
        for place, value in part.items():
            where, dot, name = place.partition(".")
            if dot:
                stack.enter_context(patch.object(OWNERS[where], name, value))
        optimizer = KroneckerMLHF(model, loss, seed=seed, **arguments)
        for _ in range(epochs):
            for indices in torch.split(torch.randperm(size, generator=generator), batch):
                x, y = data.batch("train", indices, cpu)
                begun = time.process_time()
                optimizer.step(x, y)
                spent += time.process_time() - begun
                steps += 1
            with averaged(model, optimizer, data, cpu, batch):
                values = evaluate(model, data, loss, cpu, batch_size=500, max_samples=2_500)
            assert values is not None
            train.append(_finite(values["train_loss"]))
            test.append(_finite(values["test_loss"]))
    return Outcome(train, test, 1e3 * spent / steps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", action="append", choices=list(EPOCHS))
    parser.add_argument("--only", action="append", choices=list(PARTS))
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for benchmark_task in tasks("cpu"):
        task = benchmark_task.spec
        if task.name not in (options.task or EPOCHS):
            continue
        params = {**task.dataset.params, "split": "meta"}
        data = load(task.dataset.name, params, root_of(options.data, task.dataset.name))
        print(
            f"{task.name}, {EPOCHS[task.name]} epochs, seeds 7 to {6 + options.seeds}", flush=True
        )
        goals: list[float] = []
        for name, part in PARTS.items():
            if options.only and name not in options.only:
                continue
            ran = [run(task, data, part, 7 + s, EPOCHS[task.name]) for s in range(options.seeds)]
            goals = goals or [r.train[len(r.train) // 2] for r in ran]
            at = mean(r.test_at(goal) for r, goal in zip(ran, goals, strict=True))
            print(
                f"  {name:28} {mean(r.integral for r in ran):8.3f}"
                f"  last {mean(r.train[-1] for r in ran):9.3g}  test {at:6.3f}"
                f"  {mean(r.milliseconds for r in ran):6.1f} ms",
                flush=True,
            )


def _finite(value: float) -> float:
    return value if value < math.inf else math.inf


def root_of(data: Path, name: str) -> str | None:
    """Return where a data set's files are in the folder DIR; None where nothing has to be said."""
    folder = {"cifar10": "cifar10", "text": "tinyshakespeare"}.get(name)
    return None if folder is None else str(data / folder)


if __name__ == "__main__":
    main()
