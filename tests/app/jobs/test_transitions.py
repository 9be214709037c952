"""The rules by which runs and jobs change state."""

import itertools

import pytest

from mlhf_service.jobs.transitions import (
    ACTIVE,
    TERMINAL,
    allowed,
    job_status,
)

ALL = sorted(ACTIVE | TERMINAL)


def test_a_terminal_state_never_changes() -> None:
    for before, after in itertools.product(TERMINAL, ALL):
        assert not allowed(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("queued", "running"),
        ("running", "queued"),
        ("running", "paused"),
        ("queued", "paused"),
        ("paused", "queued"),
        ("running", "succeeded"),
        ("running", "failed"),
        ("queued", "cancelled"),
        ("running", "cancelled"),
        ("paused", "cancelled"),
    ],
)
def test_the_legal_changes(before: str, after: str) -> None:
    assert allowed(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [("running", "running"), ("paused", "running"), ("queued", "succeeded"), ("paused", "failed")],
)
def test_what_no_rule_allows(before: str, after: str) -> None:
    assert not allowed(before, after)


@pytest.mark.parametrize(
    ("statuses", "cancelling", "diverged", "expected"),
    [
        (["queued"], False, 0, "queued"),
        (["running"], False, 0, "running"),
        (["running"], True, 0, "running"),  # until its trainer has stopped
        (["paused"], False, 0, "paused"),
        (["paused", "succeeded"], False, 0, "paused"),
        (["running", "paused"], False, 0, "running"),
        (["succeeded", "queued"], False, 0, "running"),  # between two runs of a sweep
        (["succeeded", "succeeded"], False, 0, "succeeded"),
        (["succeeded", "failed"], False, 1, "succeeded"),  # a diverged setting is a result
        (["succeeded", "failed"], False, 0, "failed"),
        (["failed", "failed"], False, 2, "failed"),
        (["failed"], False, 1, "failed"),
        (["succeeded", "cancelled"], True, 0, "cancelled"),
        (["succeeded"], True, 0, "succeeded"),  # it ended before the request reached it
    ],
)
def test_the_status_of_a_job(
    statuses: list[str], cancelling: bool, diverged: int, expected: str
) -> None:
    assert job_status(statuses, cancelling, diverged) == expected
