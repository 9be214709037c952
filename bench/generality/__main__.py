"""MLHF as it comes on tasks that its learned part was not made for, beside AdamW.

    python -m bench.generality --data DIR [--only NAME ...] [--seeds 2] [--steps N]
        [--candidate NAME] [--option KEY=VALUE ...] [--peer] [--signals]

Each network is trained from the same weights on the same batches by MLHF, or by AdamW
(``--peer``: the best of four rates). Printed are the mean losses of the last ten batches, or
where the task has a training set the loss of the (averaged) weights on it, after a third of the
steps, two thirds, and all; and CPU milliseconds of a step. The judge's eight tasks can be named,
too. ``--candidate`` adapts the damping as ``candidates.py`` says; an option is passed on to the
optimizer (``meta_checkpoint=None``: nothing learned). With ``--signals`` also what the next
batches said of the steps.
"""

import argparse
import ast
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench.generality.candidates import CANDIDATES, Seen, trying
from bench.generality.tasks import JUDGED, LOSSES, TASKS, Task
from mlhf import MLHF
from mlhf.core.process import keep_freed_memory

_ALL = TASKS | JUDGED
_RATES = (3e-4, 1e-3, 3e-3, 1e-2)  # of AdamW
_LAST = 10  # steps whose mean loss is the loss at the end


def train(
    task: Task, step: Callable[[Tensor, Tensor], Any], evaluating: Callable[[bool], None]
) -> tuple[list[float], float]:
    """Return the losses after each third, and the CPU seconds of a step.

    Args:
        step: Takes a step on (x, y), and returns the loss before it.
        evaluating: Puts the weights that are looked at into the network, and takes them out.
    """
    seconds, recent, losses = 0.0, [], []
    for k, (x, y) in enumerate(islice(task.batches, task.steps), 1):
        began = time.process_time()
        recent.append(float(step(x, y)))
        seconds += time.process_time() - began
        if k % (task.steps // 3):
            continue
        if task.whole is None:
            losses.append(sum(recent[-_LAST:]) / _LAST)
            continue
        evaluating(True)
        task.network.eval()
        with torch.no_grad():
            losses.append(float(LOSSES[task.loss](task.network(task.whole[0]), task.whole[1])))
        task.network.train()
        evaluating(False)
    return losses, seconds / task.steps


def _task(name: str, data: Path, seed: int, steps: int | None) -> Task:
    task = _ALL[name](data, seed)
    return task if steps is None else task._replace(steps=steps)


def by_mlhf(
    name: str, data: Path, seed: int, steps: int | None, **options: Any
) -> tuple[list[float], float]:
    """Train by MLHF."""
    torch.manual_seed(seed)
    task = _task(name, data, seed, steps)
    optimizer = MLHF(task.network, task.loss, seed=seed, **options)

    def evaluating(on: bool) -> None:
        (optimizer.eval_mode if on else optimizer.train_mode)()

    torch.manual_seed(seed + 1)  # of dropout
    return train(task, lambda x, y: optimizer.step(x, y).loss, evaluating)


def by_adamw(
    name: str, data: Path, seed: int, steps: int | None, rate: float
) -> tuple[list[float], float]:
    """Train by AdamW."""
    torch.manual_seed(seed)
    task = _task(name, data, seed, steps)
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=rate)

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = LOSSES[task.loss](task.network(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    torch.manual_seed(seed + 1)
    return train(task, step, lambda on: None)


def _medians(seen: list[Seen]) -> str:
    """Return the median residual step, overfit and α of the first ten solves, and of the last."""
    pairs = [(seen[:10], "first"), (seen[-10:], "last")]
    return "; ".join(
        f"{where} solves: residual step {median(s.residual_step for s in some):.2f}, "
        f"own over next curvature {median(s.overfit for s in some):.3g}, "
        f"alpha {median(s.alpha for s in some):.3g}"
        for some, where in pairs
    )


def main() -> None:
    """Train each task with each seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that has mnist/")
    parser.add_argument("--only", nargs="*", choices=_ALL, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, help="in place of the task's own number")
    parser.add_argument("--candidate", choices=CANDIDATES, default="as it is")
    parser.add_argument("--peer", action="store_true", help="AdamW, in place of MLHF")
    parser.add_argument("--option", action="append", default=[], help="KEY=VALUE for MLHF")
    parser.add_argument("--signals", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    options = {k: ast.literal_eval(v) for k, v in (each.split("=", 1) for each in given.option)}
    for name in given.only:
        for seed in range(given.seeds):
            run: tuple[str, Path, int, int | None] = (name, given.data, seed, given.steps)
            seen: list[Seen] = []
            if given.peer:
                runs = {rate: by_adamw(*run, rate) for rate in _RATES}
                rate = min(runs, key=lambda r: runs[r][0][-1])
                (losses, seconds), how = runs[rate], f"AdamW {rate:g}"
            else:
                with trying(CANDIDATES[given.candidate]) as trial:
                    losses, seconds = by_mlhf(*run, **options)
                seen, how = trial.seen, " ".join(["MLHF", given.candidate, *given.option])
            told = " ".join(f"{loss:.4g}" for loss in losses)
            print(f"{name}, seed {seed}, {how}: {told}; {1e3 * seconds:.1f} ms", flush=True)
            if given.signals and seen:
                print(f"    {_medians(seen)}", flush=True)


if __name__ == "__main__":
    main()
