"""Compare changes of `mlhf` on the development versions, in pairs of runs with the same seed.

    python -m bench.wide.screen change solver._UNMEASURED=0 blocks._FEW_ROWS=1e9 --seeds 23 24
    python -m bench.wide.screen change schedule._GROWTH=20,3
    python -m bench.wide.screen weights --seeds 11 12 13 14 15 16

``change`` sets module constants of the Kronecker form. ``weights`` moves all weights of the learned
part at once, up and down by a Hadamard matrix of 48 rows and its negative (a fold-over design), so
that every weight's slope is told by all 96 candidates. Both print mean differences of the log of
samples and of process time to AdamW's final loss, with their standard errors over tasks and seeds.
Runs stop at the target; one that misses it counts as twice its horizon.
"""

import argparse
import importlib
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from bench.harness.statistics import Curve
from bench.judge.measures import crossing
from bench.wide.__main__ import default_data
from bench.wide.families import FAMILIES
from bench.wide.fold_over import hadamard, slopes
from bench.wide.results import collect
from bench.wide.table import Table
from bench.wide.task import Size
from mlhf.core.errors import DivergedError
from mlhf.core.events import Event
from mlhf.core.process import keep_freed_memory
from mlhf.meta.moves import locate_weight, weight_names
from mlhf.optimizers.learned import meta_checkpoint
from mlhf.optimizers.mlhf.kronecker import optimizer
from mlhf.training.run import train

_RESULT: Any = {}  # of a curve: a crossing needs none
_PACKAGE = "mlhf.optimizers.mlhf.kronecker"
_FINER = 2  # evaluations for each of the benchmark's
_CLIP = 1.0  # of a difference: a single run may miss its target by chance
_STEP = 0.12  # by which weights are moved


@dataclass(frozen=True)
class Candidate:
    """What is changed: module constants by dotted name, and weights by theirs."""

    constants: Mapping[str, Sequence[float]] = field(default_factory=dict)
    move: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        each = (f"{k}={','.join(f'{v:g}' for v in vs)}" for k, vs in self.constants.items())
        return " ".join(each) or "as it is"


class Cost(NamedTuple):
    """To the target; a miss is twice the horizon."""

    samples: float
    seconds: float


Costs = Mapping[tuple[str, int, int], Cost]
"""By family, seed and candidate."""


class Run(NamedTuple):
    """A candidate on a task, to a target loss."""

    family: str
    seed: int
    candidate: Candidate
    target: float
    data: Path
    cache: Path
    size: Size = "cpu"


def cost(run: Run) -> Cost:
    """Train until the target is passed; return what it took."""
    task = FAMILIES[run.family]("development", run.size)
    config = task.config(run.data, run.cache, "mlhf", {}, run.seed)
    every = config.evaluation.every_epochs / _FINER
    evaluation = config.evaluation.model_copy(update={"every_epochs": every})
    config = config.model_copy(update={"evaluation": evaluation})
    points: list[dict[str, Any]] = []

    def on_event(event: Event) -> None:
        if event["type"] == "points":
            points.extend(p for p in event["points"] if "train_loss" in p["values"])

    def reached() -> Mapping[str, float] | None:
        return crossing(Curve(points, _RESULT), run.target)

    with _changed(run.candidate), suppress(DivergedError):
        train(
            config,
            on_event,
            should_stop=lambda: reached() is not None,
            checkpoint_seconds=None,
            flush_seconds=0.0,
            data_cache=run.cache / "decoded",
        )
    at = reached()
    if at is None:
        return Cost(2.0 * task.steps * task.batch_size, 2 * points[-1]["cpu_seconds"])
    return Cost(at["samples"], at["cpu_seconds"])


@contextmanager
def _changed(candidate: Candidate) -> Iterator[None]:
    load = meta_checkpoint.load_weights

    def moved(networks: Any, *source: Any) -> None:
        load(networks, *source)
        for name, value in candidate.move.items():
            network, tensor, index = locate_weight(name)
            with torch.no_grad():
                networks[network].state_dict()[tensor][index] += value

    with ExitStack() as stack:
        for place, value in candidate.constants.items():
            module, _, name = place.partition(".")
            owner = importlib.import_module(f"{_PACKAGE}.{module}")
            stack.enter_context(patch.object(owner, name, _like(getattr(owner, name), value)))
        stack.enter_context(patch.object(optimizer, "load_weights", moved))
        yield


def _like(constant: Any, values: Sequence[float]) -> Any:
    """Return the values in the form of a constant: a number, or a tuple of them."""
    if not isinstance(constant, tuple):
        (value,) = values
        return type(constant)(value)
    return tuple(type(old)(new) for old, new in zip(constant, values, strict=True))


def differences(costs: Costs, a: int, b: int, which: int) -> dict[str, list[float]]:
    """Return, by family, the clipped log ratios of candidate a's cost to b's, one a seed."""
    found: dict[str, list[float]] = {}
    for (family, seed, candidate), value in costs.items():
        if candidate == a and (family, seed, b) in costs:
            ratio = math.log(value[which] / costs[family, seed, b][which])
            found.setdefault(family, []).append(min(max(ratio, -_CLIP), _CLIP))
    return found


def told(of_families: Mapping[str, Sequence[float]]) -> str:
    """Return the mean with its standard error, then each family's mean."""
    values = [v for of in of_families.values() for v in of]
    error = _error(values)
    each = "  ".join(f"{family} {mean(of):+.2f}" for family, of in of_families.items())
    return f"{mean(values):+.3f} ± {error:.3f}   {each}"


def _error(values: Sequence[float]) -> float:
    """Return the standard error of the mean; NaN of one value."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _compare(options: argparse.Namespace, targets: Mapping[str, float]) -> None:
    changes = [change.split("=") for change in options.changes]
    candidates = [Candidate(), *(Candidate({k: _numbers(v)}) for k, v in changes)]
    costs = _costs(options, targets, [(c, options.seeds) for c in candidates])
    for at, candidate in enumerate(candidates[1:], 1):
        for which, name in enumerate(Cost._fields):
            print(f"{candidate}, log {name} {told(differences(costs, at, 0, which))}")


def _numbers(text: str) -> list[float]:
    return [float(v) for v in text.split(",")]


def _move_all(options: argparse.Namespace, targets: Mapping[str, float]) -> None:
    names, design = list(weight_names()), hadamard()
    candidates = [
        (
            Candidate(move={n: sign * s * _STEP for n, s in zip(names, row, strict=False)}),
            [options.seeds[at % len(options.seeds)]],
        )
        for at, row in enumerate(design.tolist())
        for sign in (1, -1)
    ]
    costs = _costs(options, targets, candidates)
    halves, errors = [], []
    for at in range(0, len(candidates), 2):
        of = [v / 2 for d in differences(costs, at, at + 1, 0).values() for v in d]
        halves.append(mean(of))
        errors.append(_error(of))
    print(f"half differences: {stdev(halves):.4f}, of which by chance {mean(errors):.4f}")
    error = mean(errors) / (_STEP * math.sqrt(len(design)))
    found = slopes(design, halves, _STEP)
    for k in sorted(range(len(names)), key=lambda k: -abs(found[k])):
        print(f"{names[k]:20} slope {found[k]:+.3f} ± {error:.3f}")


def _costs(
    options: argparse.Namespace,
    targets: Mapping[str, float],
    candidates: Sequence[tuple[Candidate, Sequence[int]]],
) -> Costs:
    """Train each candidate on its seeds and all families."""
    runs = [
        (at, Run(family, seed, candidate, target, options.data, options.cache))
        for at, (candidate, seeds) in enumerate(candidates)
        for seed in seeds
        for family, target in targets.items()
    ]
    begun = time.monotonic()
    with multiprocessing.get_context("fork").Pool(options.processes) as pool:
        found = pool.map(cost, [run for _, run in runs], chunksize=1)
    print(f"{len(runs)} runs, {time.monotonic() - begun:.0f} s")
    return {(run.family, run.seed, at): each for (at, run), each in zip(runs, found, strict=True)}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    rows = Table(options.output / "runs.jsonl.gz").rows()
    found = {f: collect(rows, f"{f}-development").target for f in options.task or FAMILIES}
    targets = {family: target for family, target in found.items() if target is not None}
    torch.set_num_threads(1)
    keep_freed_memory()
    (_compare if options.what == "change" else _move_all)(options, targets)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("change", "weights"))
    parser.add_argument("changes", nargs="*", metavar="MODULE.NAME=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[23, 24])
    parser.add_argument("--task", action="append", default=[], choices=list(FAMILIES))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("docs/results/wide"))
    parser.add_argument("--data", type=Path, default=default_data())
    parser.add_argument("--cache", type=Path, default=Path(".mlhf/wide"), help="made data")
    return parser


if __name__ == "__main__":
    sys.exit(main())
