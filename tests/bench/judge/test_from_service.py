"""The judge's comparison of a task as one job of the service, and its numbers from the store."""

import math

import pytest

from bench.harness.contract import Context
from bench.judge import settings
from bench.judge.contenders import CONTENDERS, contender
from bench.judge.from_service import import_job, sweep
from bench.judge.results import collect
from bench.judge.tasks import tasks
from mlhf.core.errors import DataError
from mlhf_service.jobs.kinds.registry import parse
from mlhf_service.jobs.kinds.sweep import trials

_TASK = tasks("tiny")[0]
_FEW = [contender(name) for name in ("adamw", "mlhf", "mlhf untrained")]


class Store:
    """Answers as the service would after the sweep: the lower AdamW's rate, the lower its loss."""

    def __init__(self, body):
        request = parse(body)
        self.body, self.runs = body, {}
        for at, trial in enumerate(trials(request, 1000)):
            params = dict(trial.optimizer.params)
            if trial.held:
                params = dict(request.optimizers[0].settings[0])
            filled = trial.optimizer.model_copy(update={"params": _filled(trial, params)})
            config = {"optimizer": filled.model_dump(mode="json"), "seed": trial.seed}
            self.runs[f"run_{at}"] = {
                "id": f"run_{at}",
                "seed": trial.seed,
                "status": "succeeded",
                "config": config,
                "totals": {"steps": 9, "wall_seconds": 3.0},
            }

    def get(self, path, **params):
        parts = path.split("/")
        if parts[2] == "jobs":
            return {"status": "succeeded", "tags": self.body["tags"], "run_ids": list(self.runs)}
        run = self.runs[parts[3]]
        if len(parts) == 4:
            return run
        optimizer = run["config"]["optimizer"]
        rate = optimizer["params"]["lr"] if optimizer["name"] == "adamw" else 1e-4
        places = {"epochs": 1.0, "samples": 96, "wall_seconds": 0.5}
        points = [(places[params["x"]] * k, math.exp(-k) * rate) for k in range(4)]
        return {"series": [{"metric": metric, "points": points} for metric in params["metric"]]}


def _filled(trial, params):
    from mlhf.optimizers.specs import OPTIMIZERS

    values = OPTIMIZERS.parse(trial.optimizer.name, params).model_dump(mode="json")
    if values.get("meta_checkpoint", "none") != "none":
        values["meta_checkpoint"] = "meta_123"  # the service pins an id
    return {k: v for k, v in values.items() if v is not None}


def test_the_whole_comparison_of_a_task_is_one_job_that_the_service_takes():
    body = sweep(tasks("cpu")[0], CONTENDERS, range(5))
    request = parse(body)
    # The default of MLHF_MAX_SWEEP_RUNS.
    assert len(trials(request, 256)) == 12 * 9 + 15 * 5
    assert request.evaluation.samples == "all"


def test_the_judge_takes_settings_and_curves_from_the_services_store(tmp_path):
    context = Context(output=tmp_path, seeds=(0, 1))
    store = Store(sweep(_TASK, _FEW, (0, 1)))
    made = import_job(context, store.get, "job_1", _TASK, _FEW)
    assert sorted((run.contender.name, run.seed) for run in made) == [
        (each.name, seed) for each in _FEW for seed in (0, 1)
    ]
    found = settings.pinned(tmp_path, _TASK.name, "adamw")
    assert found["setting"]["lr"] == 0.001
    assert (found["settings"], found["seeds"], found["edge"]) == (9, [1000], ["lr"])
    results = collect(context, _TASK)
    assert results.targets["100"] == pytest.approx(math.exp(-3) * 0.001)
    assert results.reached("mlhf", "100").samples.mean < 3 * 96
    assert import_job(context, store.get, "job_1", _TASK, _FEW) == []


def test_a_job_of_another_task_is_refused(tmp_path):
    store = Store(sweep(_TASK, _FEW, (0,)))
    context = Context(output=tmp_path, seeds=(0,))
    with pytest.raises(DataError, match="no judging of fashion-mlp"):
        import_job(context, store.get, "job_1", tasks("tiny")[1], _FEW)
