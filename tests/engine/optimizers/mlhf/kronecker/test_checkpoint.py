"""The shipped meta-checkpoint: what it holds, what it says of itself, what it had seen."""

import json
from pathlib import Path

import pytest
import torch

import bench
from mlhf import MetaTrainConfig
from mlhf.data.specs import DATASETS
from mlhf.meta.config import TaskFamily
from mlhf.models.specs import MODELS
from mlhf.optimizers.learned.families import SHIPPED
from mlhf.optimizers.learned.meta_checkpoint import load_meta_checkpoint
from mlhf.optimizers.mlhf.kronecker.optimizer import fresh_networks

JOB = Path(bench.__file__).parent / "jobs" / "meta_train_default.json"


@pytest.fixture(scope="module")
def shipped():
    return load_meta_checkpoint("default")


def test_it_is_of_the_default_family_and_small(shipped):
    assert shipped.optimizer == "mlhf"
    assert SHIPPED["mlhf"].stat().st_size < 2**20


def test_it_holds_46_finite_numbers_that_fit_the_networks(shipped):
    networks = fresh_networks()
    shipped.into(networks)
    weights = [p.detach() for net in networks.values() for p in net.parameters()]
    assert sum(w.numel() for w in weights) == 46
    assert all(bool(torch.isfinite(w).all()) for w in weights)
    # Meta-training saw all kinds, so each has what was learned for it.
    assert shipped.lineage["kinds"] == [0, 1, 2, 3, 4, 5]
    assert torch.equal(networks["damping"].kinds, shipped.weights["damping"]["kinds"])


def test_its_lineage_says_how_it_was_made_and_that_it_kept_to_its_part(shipped):
    lineage = shipped.lineage["start"]
    assert lineage["iterations"] == lineage["config"]["iterations"] > 0
    assert lineage["inner_steps"] > 0
    assert lineage["config"]["start"] is None
    assert lineage["config"]["tasks"]
    for task in (*lineage["config"]["tasks"], *shipped.lineage["config"]["tasks"]):
        assert task["dataset"]["params"]["split"] == "meta"
        assert "root" not in task["dataset"]
        assert len(bytes.fromhex(task["data_digest"])) == 32
    assert JOB.name in lineage["command"]


def test_its_lineage_says_which_weights_were_moved_afterwards_and_what_for(shipped):
    start, moved = shipped.lineage["tried"]
    assert (start["move"], start["kept"], moved["kept"]) == ({}, False, True)
    assert len(moved["move"]) == 3
    assert moved["candidate"] < start["candidate"]
    assert moved["difference"] + moved["error"] < 0
    search = shipped.lineage["config"]["estimator"]
    assert (search["name"], search["moves"]) == ("search", [moved["move"]])
    assert "python -m engine.training.runner" in shipped.lineage["command"]


def test_the_search_was_on_the_tasks_of_its_job_file(shipped):
    job = json.loads(JOB.with_name("meta_train_search.json").read_text())
    made = shipped.lineage["config"]["tasks"]
    assert [_whole(task) for task in job["tasks"]] == [_whole(_plain(task)) for task in made]


def test_the_job_file_has_the_settings_of_its_lineage(shipped):
    job = json.loads(JOB.read_text())
    settings = {k: v for k, v in job.items() if k not in ("kind", "name", "tags", "resources")}
    made = dict(shipped.lineage["start"]["config"])
    made["tasks"] = [_plain(task) for task in made["tasks"]]
    assert MetaTrainConfig(**settings, **job["resources"]) == MetaTrainConfig(**made)


def _plain(task):
    return {key: value for key, value in task.items() if key != "data_digest"}


def _whole(task):
    """A task with all defaults filled in."""
    family = TaskFamily.model_validate(task)
    model, dataset = (
        registry.parse(component.name, component.params).model_dump()
        for registry, component in ((MODELS, family.model), (DATASETS, family.dataset))
    )
    return family.model_dump() | {"model": model, "dataset": (family.dataset.name, dataset)}
