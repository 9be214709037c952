"""The memory limit of a trainer, and what its run tells of its confinement."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from mlhf_service.queue.leases import Claim
from mlhf_service.queue.limits import TrainerLimits, group_parent, make_group, memory_limit
from mlhf_service.queue.spare import Spare
from mlhf_service.queue.trainer_process import trainer_environment
from mlhf_service.settings import Settings
from tests.app.queue.worker import Service

GIB, MIB = 2**30, 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux confines")
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@linux
@sqlite_only
@pytest.mark.slow
@pytest.mark.parametrize("spare", [False, True])
def test_a_run_beyond_its_limit_fails_and_says_so_and_the_next_one_trains(
    worker: Service, submit: Any, spare: bool
) -> None:
    large, small = {"hidden": [4000, 4000]}, {"hidden": [8]}
    submit(model={"name": "mlp", "params": large}, budget={"steps": 3}, resources=CPU)
    submit(model={"name": "mlp", "params": small}, budget={"steps": 3}, resources=CPU)
    plenty = worker.settings
    worker.settings = plenty.model_copy(update={"worker_memory_bytes": 420 * MIB})
    worker.spare = Spare() if spare else None
    try:
        if worker.spare is not None:
            worker.spare.start(trainer_environment(1))
        first = worker.run(worker.work().claim.run_id)
        second = worker.run(worker.work().claim.run_id)
    finally:
        if worker.spare is not None:
            worker.spare.stop()
    assert first.status == "failed", worker.log(first.id)
    assert first.error is not None
    assert first.error["type"] == "/problems/memory"
    assert "0.4 GiB" in first.error["detail"]
    assert "smaller" in first.error["detail"]
    assert first.attempt == 1
    assert second.status == "succeeded"
    confinement = (second.environment or {})["confinement"]
    assert confinement["memory_limit_bytes"] == 420 * MIB
    assert confinement["capabilities"] == []
    assert confinement["network"] in ("none", "no tcp", "open")


CPU = {"device": "cpu"}


def test_the_limit_leaves_room_for_an_estimate_that_is_wrong(settings: Settings) -> None:
    ample = settings.model_copy(update={"worker_memory_bytes": 64 * GIB})
    assert memory_limit(ample, 3 * GIB) == 7 * GIB
    assert memory_limit(ample, 0) == 64 * GIB  # not known
    assert memory_limit(ample, 40 * GIB) == 64 * GIB  # not more than there is


def fake_group(folder: Path, controllers: str = "cpu memory") -> Path:
    folder.mkdir()
    (folder / "cgroup.controllers").write_text(f"{controllers}\n")
    (folder / "cgroup.subtree_control").write_text("\n")
    return folder


@sqlite_only
def test_groups_are_made_where_a_folder_is_given_for_them(
    settings: Settings, tmp_path: Path
) -> None:
    parent = fake_group(tmp_path / "mlhf")
    told = settings.model_copy(update={"trainer_cgroup": parent, "worker_memory_bytes": 5 * GIB})
    assert group_parent(told) == parent
    assert (parent / "cgroup.subtree_control").read_text() == "+memory"
    group = make_group(parent, "trainer-1", GIB)
    assert group is not None
    assert (group / "memory.max").read_text() == str(GIB)
    without = fake_group(tmp_path / "without", "cpu io")
    assert group_parent(settings.model_copy(update={"trainer_cgroup": without})) is None
    assert make_group(tmp_path / "absent" / "folder", "x", GIB) is None


@sqlite_only
def test_a_trainer_that_its_group_ended_ran_out_of_memory(
    settings: Settings, tmp_path: Path
) -> None:
    parent = fake_group(tmp_path / "mlhf")
    told = settings.model_copy(update={"trainer_cgroup": parent, "worker_memory_bytes": 5 * GIB})
    claim = Claim("run_1", "job_1", 1, "host:1", "train", {}, None, None, memory_bytes=GIB)
    limits = TrainerLimits(told, claim)
    group = parent / "trainer-run_1-1"
    assert limits.wanted()["cgroup"] == str(group)
    log = tmp_path / "log"
    log.touch()
    (group / "memory.events").write_text("low 0\nmax 3\noom 1\noom_kill 0\n")
    assert not limits.ran_out(-signal.SIGKILL, log)  # killed by somebody else
    (group / "memory.events").write_text("low 0\nmax 3\noom 1\noom_kill 1\n")
    assert limits.ran_out(-signal.SIGKILL, log)
    assert "3.0 GiB" in limits.error()["detail"]


@sqlite_only
def test_a_crash_for_want_of_memory_is_told_by_its_log(settings: Settings, tmp_path: Path) -> None:
    claim = Claim("run_1", "job_1", 1, "host:1", "train", {}, None, None)
    limits = TrainerLimits(settings, claim)
    log = tmp_path / "log"
    log.write_text("terminate called after throwing an instance of 'std::bad_alloc'\n")
    assert limits.ran_out(-signal.SIGABRT, log)
    log.write_text("Segmentation fault\n")
    assert not limits.ran_out(-signal.SIGSEGV, log)


@sqlite_only
@pytest.mark.slow
def test_a_run_that_takes_too_long_is_ended_and_says_so(worker: Service, submit: Any) -> None:
    submit(budget={"steps": 10**8})
    worker.settings = worker.settings.model_copy(update={"max_wall_seconds": 2.0})
    run = worker.run(worker.work().claim.run_id)
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["type"] == "/problems/wall-time"
    assert "2 seconds" in run.error["detail"]
    assert "MLHF_MAX_WALL_SECONDS" in run.error["detail"]
