"""Ids: of the form that the API accepts, and in the order in which they were made."""

import re
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlhf_service.kit import ids
from mlhf_service.kit.ids import new_id


def earlier_version(milliseconds: int) -> str:
    """An id as versions up to 0.2 made them, with a random part."""
    value = (milliseconds << 80) | secrets.randbits(80)
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    return "job_" + "".join(digits[value >> 5 * place & 31] for place in reversed(range(26)))


def test_they_are_what_the_api_accepts() -> None:
    assert re.fullmatch(r"job_[0-9a-z]{1,36}", new_id("job"))
    assert len(new_id("job")) == len(earlier_version(time.time_ns() // 1_000_000))


def test_they_sort_in_the_order_in_which_they_were_made() -> None:
    made = [new_id("run") for _ in range(5000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_threads_make_no_id_twice() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_id("run"), range(2000)))
    assert len(set(made)) == len(made)


def test_they_sort_after_those_of_earlier_versions() -> None:
    for year in range(2024, 2027):
        then = int(time.mktime((year, 1, 1, 0, 0, 0, 0, 0, 0))) * 1000
        assert all(earlier_version(then) < new_id("job") for _ in range(100))
    now = time.time_ns() // 1_000_000
    assert earlier_version(now - 1) < new_id("job") < earlier_version(now + 60_000)


def test_they_sort_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_id("job")
    an_hour_ago = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr(ids.time, "time_ns", lambda: an_hour_ago)
    assert new_id("job") > before
