"""The job files are ones that the service takes, and say what the commands do."""

import json
from pathlib import Path

import pytest

import bench
from bench.harness.contract import Context
from bench.judge.tasks import tasks
from bench.paper.experiments import (
    PAPER_SETTINGS,
    SETTINGS,
    experiment1,
    experiment3,
)
from mlhf.data import specs as data
from mlhf.models import specs as models
from mlhf.optimizers import specs as optimizers
from mlhf_service.jobs.kinds.registry import parse

JOBS = Path(bench.__file__).parent / "jobs"
FILES = sorted(JOBS.glob("*.json"))


def _read(path):
    return parse(json.loads(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_job_file_is_a_job(path):
    job = _read(path)
    tasks = getattr(job, "tasks", [job])
    for task in tasks:
        data.DATASETS.parse(task.dataset.name, task.dataset.params)
        models.MODELS.parse(task.model.name, task.model.params)
    for optimizer in getattr(job, "optimizers", []):
        for name, values in (optimizer.grid or {"": [None]}).items():
            for value in values:
                extra = {name: value} if name else {}
                optimizers.OPTIMIZERS.parse(optimizer.name, {**optimizer.params, **extra})


def test_there_is_a_job_of_each_sort():
    assert {_read(path).kind for path in FILES} == {"sweep", "meta_train", "ablation"}


def _optimizers(job):
    return [(o.name, o.params, o.grid.get("lr", [])) for o in job.optimizers]


def _settings(settings):
    return [(s.optimizer, dict(s.params), [choice["lr"] for choice in s.grid]) for s in settings]


@pytest.mark.parametrize("scale", ["cpu", "full"])
def test_the_sweep_is_the_commands_experiment(scale):
    job, task = _read(JOBS / f"experiment1_{scale}.json"), experiment1(scale).task
    assert (job.model, job.dataset, job.budget) == (task.model, task.dataset, task.budget)
    assert (job.batch_size, job.evaluation) == (task.batch_size, task.evaluation)
    assert _optimizers(job) == _settings(SETTINGS)


def test_the_papers_own_settings_are_a_job_of_their_own_batch():
    job, task = _read(JOBS / "experiment1_full_512.json"), experiment1("full").task
    assert (job.model, job.dataset, job.budget) == (task.model, task.dataset, task.budget)
    assert {setting.batch_size for setting in PAPER_SETTINGS} == {job.batch_size}
    assert _optimizers(job) == _settings(PAPER_SETTINGS)


def test_the_papers_settings_are_the_papers():
    # Section 6.1: K-FAC with rate 0.1 and damping 0.001, Hessian-free with rate 0.01, damping
    # 0.005 and 20 iterations, both with batches of 512; the first-order rates by search.
    assert [(s.optimizer, dict(s.params), s.batch_size) for s in PAPER_SETTINGS] == [
        ("kfac", {"lr": 0.1, "damping": 0.001}, 512),
        ("hf", {"lr": 0.01, "damping": 0.005, "iterations": 20}, 512),
    ]
    searched = {s.optimizer: [dict(choice) for choice in s.grid] for s in SETTINGS if s.grid}
    rates = [{"lr": 0.1}, {"lr": 0.01}, {"lr": 0.001}]
    assert searched == {"momentum": rates, "adam": rates, "rmsprop": rates}
    full = experiment1("full")
    assert full.task.batch_size == 128
    assert full.choices[-2:] == PAPER_SETTINGS
    assert experiment1("cpu").choices == SETTINGS


@pytest.mark.parametrize("scale", ["cpu", "full"])
def test_the_ablation_is_the_commands_experiment(scale):
    job, tasks = _read(JOBS / f"experiment3_{scale}.json"), experiment3(scale).tasks
    assert job.meta_checkpoint == Context(Path(), ()).meta_checkpoint
    assert job.seeds == [0, 1, 2]  # the command's --seeds 3, its default
    assert len(job.tasks) == len(tasks)
    for mine, task in zip(job.tasks, tasks, strict=True):
        assert (mine.called(), mine.model, mine.dataset) == (task.name, task.model, task.dataset)
        assert (mine.budget, mine.batch_size) == (task.budget, task.batch_size)
        assert mine.evaluation == task.evaluation


def test_the_judged_sweep_is_a_judged_task_with_mlhf_at_its_defaults():
    job = _read(JOBS / "judge_convnet.json")
    (task,) = [each.spec for each in tasks("cpu") if each.name == "cifar16-convnet"]
    assert (job.model, job.dataset, job.budget) == (task.model, task.dataset, task.budget)
    assert (job.batch_size, job.evaluation) == (task.batch_size, task.evaluation)
    (mlhf,) = [each for each in job.optimizers if each.name == "mlhf"]
    assert (mlhf.params, mlhf.grid) == ({}, {})
    assert all(each.grid for each in job.optimizers if each.name != "mlhf")
