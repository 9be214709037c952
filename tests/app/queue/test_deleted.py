"""A job that is deleted while its trainer runs: the trainer ends, and nothing is left."""

from typing import Any

import pytest
from sqlalchemy import update

from mlhf_service.context import Context
from mlhf_service.deletions import files, service
from mlhf_service.deletions.models import FileDeletion
from mlhf_service.jobs.models import Job, JobEvent
from mlhf_service.queue.attempt import Attempt
from mlhf_service.queue.finish import Outcome
from mlhf_service.runs.models import Artifact, Run
from tests.app.queue.conftest import Submit
from tests.app.queue.worker import Service, trainers


def delete(worker: Service, job: str) -> None:
    with worker.database.write() as session:
        context = Context(session, worker.settings, worker.storage)
        service.delete_job(context, job, service.Options(cancel=True))
    files.drain_soon(worker.database, worker.storage)


def nothing_is_left(worker: Service) -> None:
    assert trainers() == []
    for table in (Job, Run, Artifact, JobEvent):
        assert worker.all(table) == []
    # Once more after a while, for what the worker stored before it knew.
    with worker.database.write() as session:
        session.execute(update(FileDeletion).values(not_before=0.0))
    files.drain(worker.database, worker.storage)
    assert list(worker.storage.list("runs")) == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["running", "finishing"])
def test_nothing_is_left(
    worker: Service, submit: Submit, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough to be met in the middle, however fast the machine is.
    job = submit(budget={"epochs": 5000 if stage == "running" else 2})
    waiting: Any = None
    if stage == "running":
        waiting = worker.when_checkpointed(lambda _: delete(worker, job))
    else:
        real = Attempt._end

        def end(attempt: Attempt, outcome: Outcome) -> None:
            delete(worker, job)
            real(attempt, outcome)

        monkeypatch.setattr(Attempt, "_end", end)
    worker.work()
    if waiting is not None:
        waiting.join()
    nothing_is_left(worker)
