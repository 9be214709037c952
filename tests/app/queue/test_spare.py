"""Trainers from the worker's spare: the same results as without it, and no need of it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlhf.core import events
from mlhf.core.process import EXIT_INTERRUPTED, EXIT_OK, SPARE, TRAINER, adopt_orphans
from mlhf_service.queue import spare as spare_module
from mlhf_service.queue.leases import Claim
from mlhf_service.queue.spare import Spare, SpareLostError
from mlhf_service.queue.trainer_process import TrainerProcess, end_orphans, trainer_environment
from tests.app.queue.worker import Service
from tests.waiting import DEADLINE, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl")

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
RUN = {
    "model": {"name": "mlp", "params": {"hidden": [16], "dropout": 0.1}},
    "dataset": {"name": "digits"},
    "budget": {"steps": 30},
    "device": "cpu",
}


@pytest.fixture
def spare() -> Iterator[Spare]:
    """One of its own, for a test that disturbs it."""
    spare = Spare()
    spare.start(trainer_environment(1))
    yield spare
    spare.stop()


@pytest.fixture(scope="module")
def shared() -> Iterator[Spare]:
    spare = Spare()
    spare.start(trainer_environment(1))
    yield spare
    spare.stop()


def claim(run_id: str = "run_1") -> Claim:
    return Claim(run_id, "job_1", 1, "test", "train", {}, None, None)


def trainer(folder: Path, spare: Spare | None) -> TrainerProcess:
    return TrainerProcess(folder / "spool", folder / "logs" / "trainer.log", spare)


def start(trainer: TrainerProcess, **changes: Any) -> None:
    trainer.start(claim(), {**RUN, "threads": 1, **changes}, {}, 60.0)


def end(trainer: TrainerProcess) -> int:
    code = until(lambda: _ended(trainer), "the trainer did not end")
    return int(code[0])


def _ended(trainer: TrainerProcess) -> tuple[int] | None:
    code = trainer.exit_code()
    return None if code is None else (code,)


def results(trainer: TrainerProcess) -> tuple[str, list[Any]]:
    """The digest of the weights, and the points without their times."""
    told = [event for event, _ in events.read(trainer.folder / "events.jsonl")]
    points = [p for event in told if event["type"] == "points" for p in event["points"]]
    weights = (trainer.folder / "artifacts" / "model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest(), [(p["step"], p["values"]) for p in points]


def name_of(pid: int) -> str:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return "" if state in "ZX" else Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.long
@pytest.mark.parametrize("threads", [2, 1])
def test_a_forked_trainer_gives_bit_for_bit_what_one_started_alone_does(
    tmp_path: Path, shared: Spare, threads: int
) -> None:
    shared.start(trainer_environment(threads))
    for optimizer in ("adam", "mlhf"):
        made = {}
        for name, source in (("alone", None), ("first", shared), ("second", shared)):
            made[name] = trainer(tmp_path / optimizer / name, source)
            start(made[name], optimizer={"name": optimizer}, threads=threads)
            assert end(made[name]) == EXIT_OK
        assert results(made["first"]) == results(made["second"]) == results(made["alone"])
    assert shared.answered


def test_a_trainer_is_this_process_s_child_and_serves_one_run(
    tmp_path: Path, shared: Spare
) -> None:
    running = [trainer(tmp_path / str(number), shared) for number in range(2)]
    for each in running:
        start(each, optimizer={"name": "adam"}, budget={"wall_seconds": 600})
        until(lambda each=each: each.exit_code() is None and each.read(), "it does not train")
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    trainers = [int(pid) for pid in children if name_of(int(pid)) == TRAINER]
    assert len(trainers) == 2
    assert all(os.getsid(pid) == pid for pid in trainers), "a session of its own"
    running[0].ask_to_stop()
    assert end(running[0]) == EXIT_INTERRUPTED
    running[1].kill()
    assert end(running[1]) == -signal.SIGKILL
    assert shared.pid is not None


def test_the_spare_has_no_secrets_and_waits_asleep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLHF_DATABASE_URL", "postgresql://user:secret@host/db")
    spare = Spare()
    spare.start(trainer_environment(1))
    try:
        pid = spare.pid
        until(lambda: name_of(pid or 0) == SPARE, "it has not started")
        assert "secret" not in Path(f"/proc/{pid}/environ").read_text()
        one = trainer(tmp_path, spare)
        start(one, optimizer={"name": "adam"})
        until(lambda: one.exit_code() is not None, "it did not train")
        assert Path(f"/proc/{pid}/wchan").exists()
        asleep = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert asleep == "S"
    finally:
        spare.stop()


@SQLITE
def test_a_worker_trains_with_it_and_goes_on_without_it(worker: Service, submit: Any) -> None:
    worker.spare = Spare()
    worker.spare.start(trainer_environment(1))
    try:
        first = worker.spare.pid
        for kills in (False, True):
            if kills:
                assert first is not None
                os.kill(first, signal.SIGKILL)
                until(lambda: not name_of(first or 0), "it lives")
            submit(budget={"steps": 5})
            worker.work()
        statuses = {run.status for run in worker.all(type(worker.run()))}
        assert statuses == {"succeeded"}
        assert worker.spare.pid not in (None, first), "none was started again"
    finally:
        worker.spare.stop()


@SQLITE
def test_a_run_with_other_threads_starts_alone_and_the_next_has_a_spare(
    worker: Service, submit: Any
) -> None:
    worker.spare = Spare()
    worker.spare.start(trainer_environment(2))
    try:
        first = worker.spare.pid
        submit(budget={"steps": 5})
        worker.work()
        assert worker.run().environment["threads"] == 1  # type: ignore[index]
        assert not worker.spare.answered
        assert worker.spare.pid not in (None, first)
        submit(budget={"steps": 5})
        worker.work()
        assert worker.spare.answered
    finally:
        worker.spare.stop()


def test_a_spare_that_hangs_is_given_up(
    tmp_path: Path, spare: Spare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spare_module, "_PATIENCE_SECONDS", 0.2)
    pid = spare.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    one = trainer(tmp_path, spare)
    start(one, optimizer={"name": "adam"})
    assert end(one) == EXIT_OK
    assert spare.pid != pid
    assert not name_of(pid)


def test_a_spare_of_another_version_is_not_used(
    tmp_path: Path, spare: Spare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spare_module, "__version__", "9.9.9")
    with (tmp_path / "log").open("wb") as log:
        request = spare.fork(tmp_path, trainer_environment(1), log)
    assert request is not None
    with pytest.raises(SpareLostError, match=r"is of version .+, not 9\.9\.9"):
        request.answer(DEADLINE)
    assert spare.pid is None
    assert not (tmp_path / "events.jsonl").exists()
    spare.start(trainer_environment(1))
    assert spare.pid is None, "the next would be no better"


def test_what_is_stopped_before_it_begins_never_begins(tmp_path: Path, spare: Spare) -> None:
    pid = spare.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    one = trainer(tmp_path, spare)
    start(one, optimizer={"name": "adam"})
    assert one.exit_code() is None
    one.ask_to_stop()
    assert one.exit_code() == EXIT_INTERRUPTED
    os.kill(pid, signal.SIGCONT)
    other = trainer(tmp_path / "other", spare)
    start(other, optimizer={"name": "adam"})
    assert end(other) == EXIT_OK
    assert not (one.folder / "events.jsonl").read_bytes()


def test_neither_the_spare_nor_its_trainer_outlives_the_worker(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    run = {**RUN, "optimizer": {"name": "adam"}, "budget": {"wall_seconds": 600}, "threads": 1}
    code = """if True:
        import json, os, sys, time
        from pathlib import Path
        from mlhf_service.queue.spare import Spare
        from mlhf_service.queue.trainer_process import trainer_environment
        folder = Path(sys.argv[1])
        document = {"config": json.loads(sys.argv[2]), "parent_pid": os.getpid()}
        (folder / "run.json").write_text(json.dumps(document))
        spare = Spare()
        spare.start(trainer_environment(1))
        with (folder / "log").open("wb") as log:
            request = spare.fork(folder, trainer_environment(1), log)
        print(spare.pid, request.answer(200), flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", code, str(folder), json.dumps(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        spare, trainer = map(int, worker.stdout.readline().split())
        try:
            until(lambda: (folder / "events.jsonl").exists(), "it does not train")
            assert (name_of(spare), name_of(trainer)) == (SPARE, TRAINER)
            worker.kill()
            until(lambda: not name_of(spare) and not name_of(trainer), "they outlived it")
        finally:
            worker.kill()
            for pid in (spare, trainer):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_what_a_trainer_started_ends_with_it() -> None:
    adopt_orphans()
    command = ["sh", "-c", "sleep 600 & echo $!"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as trainer:
        assert trainer.stdout is not None
        left = int(trainer.stdout.readline())
        trainer.wait()
        until(lambda: name_of(left) == "sleep", "the shell has not become what it starts")
        end_orphans(trainer.pid)
    assert not Path(f"/proc/{left}").exists(), "it lives, or nobody has waited for it"


def test_one_killed_while_it_starts_is_replaced_soon_and_ever_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(spare_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    spare, waits = Spare(), []
    try:
        for _ in range(8):
            died = clock[0]
            while spare.pid is None:
                spare.start(trainer_environment(1))
                clock[0] += 0.0 if spare.pid else 0.5
            waits.append(clock[0] - died)
            os.kill(spare.pid, signal.SIGKILL)
            until(lambda: spare.pid is None, "it lives on")
        assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
        spare.answered = True  # it came to give trainers: the next one follows at once
        spare.give_up()
        spare.start(trainer_environment(1))
        assert spare.pid is not None
    finally:
        spare.stop()
