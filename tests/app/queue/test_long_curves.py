"""A run with a long curve ends at its first attempt: nothing slow stands before its end."""

from typing import Any

import pytest

from mlhf.core.events import EventFile, event
from mlhf_service.queue import attempt
from mlhf_service.queue.sweeper import expire_leases
from mlhf_service.queue.trainer_process import TrainerProcess
from mlhf_service.runs import reading
from tests.app.queue.worker import Service

STEPS, A_BATCH = 60_000, 500


class Fast(TrainerProcess):
    """Tells, without a process, of a long training that has ended."""

    def start(self, *_: Any) -> None:
        self.folder.mkdir(parents=True)
        with EventFile(self.folder / "events.jsonl") as tell:
            for first in range(0, STEPS, A_BATCH):
                steps = range(first, first + A_BATCH)
                tell(event("points", points=[self.point(step) for step in steps]))
            totals = {"steps": STEPS, "samples": 8 * STEPS, "epochs": 1.0, "wall_seconds": 1.0}
            tell(event("finished", status="succeeded", reason="", totals=totals, summary={}))

    def point(self, step: int) -> dict[str, Any]:
        values = {"batch_loss": 1.0 / (1 + step), "learning_rate": 0.1, "cg_residual": step % 7}
        place = {"step": step, "samples": 8 * step, "epoch": step / STEPS, "wall_seconds": 0.1}
        return {**place, "values": values}

    def exit_code(self) -> int:
        return 0


def test_a_long_run_ends_at_its_first_attempt(
    worker: Service, submit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "TrainerProcess", Fast)
    worker.settings = worker.settings.model_copy(update={"lease_seconds": 1.0})
    write = attempt.Attempt._write

    def swept_while_writing(self: attempt.Attempt, force: bool = False) -> None:
        expire_leases(worker.database, 5)
        write(self, force)

    monkeypatch.setattr(attempt.Attempt, "_write", swept_while_writing)
    submit()
    run_id = worker.work().claim.run_id
    run = worker.run(run_id)
    assert (run.status, run.attempt) == ("succeeded", 1)
    with worker.database.read() as session:
        curves = reading.read(session, run_id, limit=1000)
    assert {one.metric: one.total for one in curves} == dict.fromkeys(
        ("batch_loss", "cg_residual", "learning_rate"), STEPS
    )
    assert run.summary is not None
    assert run.summary["batch_loss"]["best_step"] == STEPS - 1
