"""A kind of job is one entry of the registry, and everything else follows from it."""

from pathlib import Path
from typing import get_args

from mlhf_service.jobs.kinds.registry import KINDS, kind_of, parse, union_tags
from mlhf_service.jobs.schemas import JobView, RunCounts
from mlhf_service.main import create_app
from mlhf_service.runs.status import STATUSES
from mlhf_service.settings import Settings

TRAIN = {
    "kind": "train",
    "model": {"name": "mlp"},
    "dataset": {"name": "digits"},
    "budget": {"epochs": 1},
    "optimizer": {"name": "sgd"},
}


def test_each_kind_is_found_by_its_request() -> None:
    assert kind_of(parse(TRAIN)) is KINDS["train"]
    for name, kind in KINDS.items():
        assert get_args(kind.request.model_fields["kind"].annotation) == (name,)


def test_the_schema_offers_every_kind(tmp_path: Path) -> None:
    schema = create_app(Settings(_env_file=None, data_dir=tmp_path)).openapi()
    body = schema["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["schema"]["discriminator"]["mapping"]) == set(KINDS)
    kinds = get_args(JobView.model_fields["kind"].annotation)
    assert kinds == (*KINDS, "logged")  # which nobody posts as a job


def test_the_tags_of_unions_are_not_taken_for_fields() -> None:
    assert union_tags() == {*KINDS, "bptt", "pes", "search"}


def test_every_status_is_counted() -> None:
    assert tuple(RunCounts.model_fields) == STATUSES
