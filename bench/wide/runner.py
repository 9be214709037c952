"""Trains what is still missing, a run at a time, by the engine's own loop."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.harness.configs import identity
from bench.wide.contenders import REFERENCE, Contender
from bench.wide.looked import note
from bench.wide.machine import STEP_SECONDS, reference_step
from bench.wide.results import best_setting, fixed_setting
from bench.wide.table import COLUMNS, Row, Table
from bench.wide.task import WideTask
from mlhf.core.errors import DivergedError, SpecError
from mlhf.core.events import Event, encode
from mlhf.training.config import TrainConfig

TUNING_SEED = 1000  # never among those that count
# What a candidate's numbers depend on, beside the meta-checkpoint.
_CODE = ("optimizers/mlhf", "optimizers/learned", "curvature")


@dataclass(frozen=True)
class Place:
    """Where things are.

    Attributes:
        output: The folder of the table, of the log of looks, and of the report.
        data: Holds one folder for each real data set.
        cache: Where data that tasks make are kept.
        stop: Asked between runs and after each step: whether time is up.
        log: Receives a line a run.
    """

    output: Path
    data: Path
    cache: Path
    stop: Callable[[], bool] = lambda: False
    log: Callable[[str], None] = lambda _: None

    @property
    def table(self) -> Table:
        return Table(self.output / "runs.jsonl.gz")


@dataclass(frozen=True)
class Wanted:
    """A run to be made."""

    task: WideTask
    contender: Contender
    setting: int
    seed: int

    @property
    def tuning(self) -> bool:
        return self.seed == TUNING_SEED

    def config(self, place: Place) -> TrainConfig:
        params = self.contender.settings[self.setting]
        return self.task.config(
            place.data, place.cache, self.contender.optimizer, params, self.seed
        )


def tune(place: Place, tasks: Sequence[WideTask], of: Sequence[Contender], budget: int) -> bool:
    """Run the first ``budget`` settings of each contender on the seed for tuning."""
    wanted = (
        Wanted(task, each, setting, TUNING_SEED)
        for setting in range(budget)  # the middle of every range first
        for task in tasks
        for each in of
        if _takes_part(each, task) and 1 < len(each.settings) > setting
    )
    return run_all(place, wanted, "tune")


def judge(
    place: Place, tasks: Sequence[WideTask], of: Sequence[Contender], seeds: Sequence[int], why: str
) -> bool:
    """Run each contender's setting tuned for the task, and the one for all tasks, on the seeds.

    The one for all tasks is chosen on the development versions alone.
    """

    def wanted() -> Iterator[Wanted]:
        for seed in seeds:
            for task in tasks:
                for each in sorted(of, key=lambda c: c.name != REFERENCE):
                    if not _takes_part(each, task):
                        continue
                    rows = place.table.rows()
                    found = {best_setting(rows, task.name, each), fixed_setting(rows, each)}
                    for setting in sorted(s for s in found if s is not None):
                        yield Wanted(task, each, setting, seed)

    return run_all(place, wanted(), why)


def run_all(place: Place, wanted: Iterable[Wanted], why: str) -> bool:
    """Make the runs that the table has not; return False where time was up.

    Before the first run of a judged task it is written down that it is looked at.
    """
    noted: set[str] = set()
    known = {row.key for row in place.table.rows()}
    for run in wanted:
        if place.stop():
            return False
        missing = run.task.missing(place.data)
        if missing:
            place.log(f"{run.task.name}: left out, {place.data} has no {', '.join(missing)}")
            continue
        config = run.config(place)
        key = key_of(config, run)
        if key in known:
            continue
        if run.task.version == "judged" and run.task.name not in noted:
            note(place.output, run.task.name, why, run.contender.name)
            noted.add(run.task.name)
        row = _trained(place, run, config, key)
        if row is None:
            return False
        place.table.append(row)
        known.add(key)
        place.log(_told(row))
    return True


def key_of(config: TrainConfig, run: Wanted) -> str:
    """Return what makes a run itself: its configuration, and the code of a candidate."""
    document = {"task": run.task.name, "config": identity(config, defaults=False)}
    if run.contender.candidate:
        document["code"] = code_digest()
    return hashlib.sha256(encode(document)).hexdigest()[:20]


@cache
def code_digest() -> str:
    """Return the digest of the source that a candidate is made of."""
    import mlhf

    root, digest = Path(mlhf.__file__).parent, hashlib.sha256()
    for folder in _CODE:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix in (".py", ".cpp", ".safetensors"):
                digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _takes_part(each: Contender, task: WideTask) -> bool:
    return task.full_batch or not each.full_batch


def _trained(place: Place, run: Wanted, config: TrainConfig, key: str) -> Row | None:
    """Return the run's row; None where it was interrupted."""
    from mlhf.curvature.errors import CurvatureError
    from mlhf.training.run import train

    curve: list[list[Any]] = []
    environment: dict[str, Any] = {}

    def on_event(event: Event) -> None:
        if event["type"] == "started":
            found = event["environment"]
            environment.update(
                {
                    k: found[k]
                    for k in ("torch", "engine", "device_name", "parameters")
                    if k in found
                }
            )
        for point in event["points"] if event["type"] == "points" else ():
            at = {**point, **point["values"]}
            if "train_loss" in at:
                curve.append([_rounded(at.get(name)) for name in COLUMNS])

    before = None if run.tuning else reference_step(run.task, place.data, place.cache)
    status: str
    try:
        ended = train(
            config,
            on_event,
            should_stop=place.stop,
            checkpoint_seconds=None,
            data_cache=place.cache / "decoded",
        )
        status, reason = ended.status, ended.reason
        environment["processor_share"] = _rounded(ended.totals.get("processor_share"))
    except (CurvatureError, DivergedError, SpecError, RuntimeError) as error:
        status, reason = "failed", f"{type(error).__name__}: {error}"[:300]
    if status == "interrupted":
        return None
    if before is not None:  # the machine may have become slower meanwhile
        after = reference_step(run.task, place.data, place.cache)
        environment[STEP_SECONDS] = _rounded((before + after) / 2)
    return Row(
        key=key,
        task=run.task.name,
        contender=run.contender.name,
        setting=run.setting,
        params=dict(run.contender.settings[run.setting]),
        seed=run.seed,
        tuning=run.tuning,
        status=status,
        reason=reason,
        curve=curve,
        code=code_digest() if run.contender.candidate else "",
        environment=environment,
    )


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _told(row: Row) -> str:
    last = dict(zip(COLUMNS, row.curve[-1], strict=True)) if row.curve else {}
    loss, spent = last.get("train_loss"), last.get("cpu_seconds")
    params = {k: v for k, v in row.params.items() if k != "schedule"}
    return f"{row.task}: {row.contender} {params} seed {row.seed}: {row.status} {loss} {spent} s"
