"""Random jobs that the API accepts run to their end; ``bench.random_jobs`` runs hundreds."""

import random

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("sklearn")

from bench.random_jobs import Deployment, Jobs


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    return Deployment(tmp_path_factory.mktemp("deployment"))


@pytest.mark.parametrize("seed", range(2000, 2040))
def test_what_validates_runs(deployment, seed):
    _, failures = deployment.check(Jobs(random.Random(seed), deployment.data).job())
    assert failures == []
