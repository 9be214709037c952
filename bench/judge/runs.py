"""One run of the protocol and its folder. The first stage that needs a run makes it."""

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
from bench.harness.runs import read_curve, read_result
from bench.harness.statistics import Curve
from bench.judge.contenders import Contender, Params
from bench.judge.tasks import BenchmarkTask
from mlhf.core.events import encode
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf.training.config import Evaluation, Target, TrainConfig

# Tuning evaluates this many samples of each split: enough to tell settings apart.
_TUNING_SAMPLES = 1000


@dataclass(frozen=True)
class Run:
    """A contender with a setting on a task, from one seed.

    Attributes:
        tuning: Whether it only serves to choose a setting or a horizon.
        goal: A training loss at which it ends.
    """

    task: BenchmarkTask
    contender: Contender
    setting: Params
    seed: int
    tuning: bool = False
    goal: float | None = None

    def config(self, context: Context) -> TrainConfig:
        """Return its configuration.

        All parameters of a candidate are written out: with other defaults it is another run.
        """
        params = {**self.contender.params, **self.setting}
        if self.contender.category == "candidate":
            filled = OPTIMIZERS.parse(self.contender.optimizer, params).model_dump(mode="json")
            # Parameters that are off are left out: they may be newer than finished runs.
            filled = {k: v for k, v in filled.items() if v is not None and v is not False}
            if "meta_checkpoint" not in params:  # the context's, not the product's default
                filled.pop("meta_checkpoint", None)
            params = filled
        spec = self.task.spec
        if self.tuning:
            every = spec.evaluation.every_epochs
            evaluation = Evaluation(every_epochs=every, max_samples=_TUNING_SAMPLES)
            spec = replace(spec, evaluation=evaluation)
        config = train_config(context, spec, self.contender.optimizer, params, self.seed)
        if self.goal is None:
            return config
        return config.model_copy(update={"target": Target(value=self.goal, stop=True)})

    def folder(self, context: Context) -> Path:
        """Return its folder, named by a hash of its configuration, so that runs never mix."""
        key = hashlib.sha256(encode(self.document(context))).hexdigest()[:16]
        return context.output / "runs" / self.task.name / slug(self.contender.name) / key

    def run_or_resume(self, context: Context) -> Curve | None:
        """Return its curve, running or resuming it if need be; None if time was up."""
        config, folder = self.config(context), self.folder(context)
        if read_result(folder) is None and not context.stop():
            context.log(f"{self.task.name}: {self.contender.name} {self._describe()}")
        run = runs.training(config)
        result = runs.run_or_resume(folder, self.document(context), run, context.stop)
        if result is None:
            return None
        shutil.rmtree(folder / "artifacts", ignore_errors=True)  # hundreds of networks
        return self.found(context)

    def found(self, context: Context) -> Curve | None:
        """Return its curve, None where it has not finished."""
        folder = self.folder(context)
        result = read_result(folder)
        return None if result is None else Curve(read_curve(folder), result)

    def document(self, context: Context) -> dict[str, Any]:
        """Return its identity as JSON values, keys in sorted order."""
        document = json.dumps(identity(self.config(context), defaults=False), sort_keys=True)
        found: dict[str, Any] = json.loads(document)
        return found

    def _describe(self) -> str:
        given = ", ".join(f"{k}={short(v)}" for k, v in self.setting.items()) or "defaults"
        return f"({given}; {self.task.epochs:g} epochs, seed {self.seed})"


def slug(name: str) -> str:
    """Return a name fit for a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def short(value: object) -> str:
    """Return a parameter's value in few characters."""
    if isinstance(value, dict):
        warm = f" after {value['warmup']:.0%}" if value.get("warmup") else ""
        return f"{value['type']}{warm}"
    return f"{value:g}" if isinstance(value, float) else str(value)
