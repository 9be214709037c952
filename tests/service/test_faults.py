"""A bounded part of ``make faults``: one kill of each kind of process, and what is no signal."""

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from bench.faults import jobs, matrix, special, storm
from bench.faults.deployment import embedded
from bench.faults.plan import Plan
from bench.faults.report import Report

pytestmark = pytest.mark.services


def test_nothing_is_lost_whatever_is_killed(tmp_path: Path) -> None:
    report = Report()
    deployment = embedded(tmp_path / "service")
    try:
        expected = jobs.undisturbed(deployment)
        # The API and the supervisor are killed in test_serve.py.
        kinds = Counter({"trainer": 1, "spare": 1, "worker": 1})
        plan = Plan([], kinds, random.Random(0))
        storm.run(deployment, plan, expected, "make-test", report, time.monotonic() + 300)
        report.faults(special.deleted_spool(deployment, expected))
    finally:
        report.faults(deployment.end())
    assert report.wrong == [], report.text()
    assert report.at_random == kinds, report.text()


def test_every_kind_of_process_is_disturbed_in_every_stage() -> None:
    found = list(matrix.scenarios(["worker", "database"], (0.0, 5.0)))
    assert len({str(scenario) for scenario in found}) == len(found)
    # A killed worker is started again at once, a server after as long as one likes.
    assert Counter((s.kind, s.action) for s in found) == {
        ("worker", "kill"): 5,
        ("worker", "stop"): 10,
        ("database", "kill"): 10,
        ("database", "stop"): 10,
    }
