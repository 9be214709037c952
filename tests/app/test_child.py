"""A child process: its log, its restarts, and when it counts as unable to start."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlhf_service import child as module
from mlhf_service.child import Child
from tests.waiting import until


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path


def make(logs: Path, code: str) -> Child:
    return Child("c", [sys.executable, "-c", code], dict(os.environ), logs)


def ended(child: Child) -> int:
    codes: list[int] = []

    def collected() -> bool:
        code = child.collect()
        codes.extend([] if code is None else [code])
        return bool(codes)

    until(collected, "it did not end")
    return codes[0]


@pytest.fixture
def sleeping(logs: Path) -> Iterator[Child]:
    child = make(logs, "import time; time.sleep(600)")
    child.start()
    yield child
    if child.process is not None:
        child.process.kill()
        child.process.wait()


def test_its_output_is_in_its_log(logs: Path) -> None:
    child = make(logs, "import sys; print('out', flush=True); sys.exit('the reason')")
    child.start()
    assert ended(child) == 1
    assert (logs / "c.log").read_text() == "out\nthe reason\n"
    assert child.last_line == "the reason"


def test_its_log_is_rotated_while_it_runs(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 10_000)
    child = make(logs, "for i in range(20_000): print('line', i)")
    child.start()
    assert ended(child) == 0
    files = {path.name: path.stat().st_size for path in logs.iterdir()}
    assert set(files) == {"c.log", "c.log.1"}
    assert max(files.values()) <= 10_000
    assert (logs / "c.log").read_text().endswith("line 19999\n")


def test_a_log_that_cannot_be_written_does_not_stop_it(logs: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    (logs / "c.log").symlink_to("/dev/full")
    child = make(logs, "for i in range(20_000): print('line', i)")
    child.start()
    assert ended(child) == 0


def test_it_cannot_start_after_several_failed_starts(logs: Path) -> None:
    child = make(logs, "raise SystemExit('never')")
    for number in (1, 2, 3):
        assert not child.cannot_start
        child.start()
        assert ended(child) == 1
        assert child.backoff == pytest.approx(0.2 * 2**number)
    assert child.cannot_start


def test_one_that_was_killed_did_not_fail_to_start(sleeping: Child) -> None:
    for _ in range(5):
        assert sleeping.process is not None
        sleeping.process.kill()
        ended(sleeping)
        assert not sleeping.cannot_start
        sleeping.start()


def test_one_that_has_run_for_a_while_is_restarted_for_ever(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTLED_SECONDS", 0.0)
    child = make(logs, "raise SystemExit('a crash')")
    for _ in range(5):
        child.start()
        ended(child)
    assert not child.cannot_start
