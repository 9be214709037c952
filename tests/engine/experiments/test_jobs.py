"""The job files are ones that the service takes, and say what the commands do."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import engine.experiments
from app.jobs.schemas import JobCreate
from engine.data import specs as data
from engine.experiments.judge.tasks import tasks
from engine.experiments.paper import SETTINGS, experiment1
from engine.models import specs as models
from engine.optimizers import specs as optimizers

JOBS = Path(engine.experiments.__file__).parent / "jobs"
FILES = sorted(JOBS.glob("*.json"))


def _read(path):
    return TypeAdapter(JobCreate).validate_python(json.loads(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_job_file_is_a_job(path):
    job = _read(path)
    tasks = [job] if job.kind != "meta_train" else job.tasks
    for task in tasks:
        data.parse(task.dataset.name, task.dataset.params)
        models.parse(task.model.name, task.model.params)
    for optimizer in getattr(job, "optimizers", []):
        for name, values in (optimizer.grid or {"": [None]}).items():
            for value in values:
                extra = {name: value} if name else {}
                optimizers.parse(optimizer.name, {**optimizer.params, **extra})


def test_there_is_a_job_of_each_sort():
    assert {_read(path).kind for path in FILES} == {"sweep", "meta_train"}


@pytest.mark.parametrize("scale", ["cpu", "full"])
def test_the_sweep_is_the_commands_experiment(scale):
    job, task = _read(JOBS / f"experiment1_{scale}.json"), experiment1(scale).task
    assert (job.model, job.dataset, job.budget) == (task.model, task.dataset, task.budget)
    assert (job.batch_size, job.evaluation) == (task.batch_size, task.evaluation)
    # The service knows no untrained networks.
    settings = [s for s in SETTINGS if s.params.get("meta_checkpoint") != "none"]
    mine = [(s.optimizer, [choice["lr"] for choice in s.grid]) for s in settings]
    assert [(o.name, o.grid.get("lr", [])) for o in job.optimizers] == mine


def test_the_judged_sweep_is_a_judged_task_with_mlhf_at_its_defaults():
    job = _read(JOBS / "judge_convnet.json")
    (task,) = [each.task for each in tasks("cpu") if each.name == "cifar16-convnet"]
    assert (job.model, job.dataset, job.budget) == (task.model, task.dataset, task.budget)
    assert (job.batch_size, job.evaluation) == (task.batch_size, task.evaluation)
    (mlhf,) = [each for each in job.optimizers if each.name == "mlhf"]
    assert (mlhf.params, mlhf.grid) == ({}, {})
    assert all(each.grid for each in job.optimizers if each.name != "mlhf")
