"""One run of the protocol: its folder, made once by whatever stage needs it first."""

import hashlib
import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.harness import runs
from bench.harness.configs import identity, train_config
from bench.harness.contract import Context
from bench.harness.runs import curve_of, result_of
from bench.harness.statistics import Curve
from bench.judge.grids import Entrant, Params
from bench.judge.tasks import Judged
from mlhf.core.events import encode
from mlhf.optimizers.specs import parse
from mlhf.training.config import Evaluation, Target, TrainConfig

# Tuning measures this many samples of each split, which tells settings apart as well.
_TUNING_SAMPLES = 1000


@dataclass(frozen=True)
class Run:
    """An entrant with a setting on a task, from one seed.

    Attributes:
        tuning: Whether it only helps to choose.
        goal: A training loss at which it ends.
    """

    judged: Judged
    entrant: Entrant
    setting: Params
    seed: int
    tuning: bool = False
    goal: float | None = None

    def config(self, context: Context) -> TrainConfig:
        """Return its configuration.

        A candidate's parameters are all written down: with other defaults it is another run.
        """
        params = {**self.entrant.params, **self.setting}
        if self.entrant.rank == "candidate":
            filled = parse(self.entrant.optimizer, params).model_dump(mode="json")
            # What is off may be newer than runs that are done.
            filled = {k: v for k, v in filled.items() if v is not None and v is not False}
            if "meta_checkpoint" not in params:  # the context's, not the product's default
                filled.pop("meta_checkpoint", None)
            params = filled
        task = self.judged.task
        if self.tuning:
            every = task.evaluation.every_epochs
            evaluation = Evaluation(every_epochs=every, max_samples=_TUNING_SAMPLES)
            task = replace(task, evaluation=evaluation)
        config = train_config(context, task, self.entrant.optimizer, params, self.seed)
        if self.goal is None:
            return config
        return config.model_copy(update={"target": Target(value=self.goal, stop=True)})

    def folder(self, context: Context) -> Path:
        """Return its folder, named by what it is: settings and sittings never mix."""
        key = hashlib.sha256(encode(self.document(context))).hexdigest()[:16]
        return context.output / "runs" / self.judged.name / slug(self.entrant.name) / key

    def carry_out(self, context: Context) -> Curve | None:
        """Return its curve, made now where there is none yet; None if time was up."""
        config, folder = self.config(context), self.folder(context)
        if result_of(folder) is None and not context.stop():
            context.say(f"{self.judged.name}: {self.entrant.name} {self._describe()}")

        if (
            runs.carry_out(folder, self.document(context), runs.training(config), context.stop)
            is None
        ):
            return None
        shutil.rmtree(folder / "artifacts", ignore_errors=True)  # hundreds of networks
        return self.found(context)

    def found(self, context: Context) -> Curve | None:
        """Return its curve, None where it is not done."""
        folder = self.folder(context)
        result = result_of(folder)
        return None if result is None else Curve(curve_of(folder), result)

    def document(self, context: Context) -> dict[str, Any]:
        """Return what it is as JSON values, in an order that is always the same."""
        document = json.dumps(identity(self.config(context), defaults=False), sort_keys=True)
        found: dict[str, Any] = json.loads(document)
        return found

    def _describe(self) -> str:
        given = ", ".join(f"{k}={short(v)}" for k, v in self.setting.items()) or "defaults"
        return f"({given}; {self.judged.epochs:g} epochs, seed {self.seed})"


def slug(name: str) -> str:
    """Return a name fit for a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def short(value: object) -> str:
    """Return a parameter's value in few characters."""
    if isinstance(value, dict):
        warm = f" after {value['warmup']:.0%}" if value.get("warmup") else ""
        return f"{value['type']}{warm}"
    return f"{value:g}" if isinstance(value, float) else str(value)
