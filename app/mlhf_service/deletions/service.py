"""Delete jobs, runs, artifacts, data sets, meta-checkpoints and networks. Nothing here commits.

Each function deletes rows and enqueues the files (``files.enqueue``), or raises a Problem: 404
for what is not there, and ``InUse`` for what others depend on. ``force`` goes on where ended
things depend on it: they stay, and lose the reference. ``cancel`` goes on where something has
not ended: its trainers are fenced at their next heartbeat.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mlhf_service.context import Context
from mlhf_service.database import now
from mlhf_service.datasets import repository as datasets
from mlhf_service.datasets.resolve import BUILTIN, UPLOADED
from mlhf_service.deletions import files, repository
from mlhf_service.deletions.dependants import Dependants, InUse
from mlhf_service.jobs import repository as jobs
from mlhf_service.jobs import tally
from mlhf_service.jobs.journal import add_event
from mlhf_service.jobs.state import settle
from mlhf_service.kit.problems import Conflict, NotFound
from mlhf_service.meta_checkpoints import repository as meta_checkpoints
from mlhf_service.networks import repository as networks
from mlhf_service.runs import repository as runs
from mlhf_service.runs.status import ACTIVE, TERMINAL


@dataclass(frozen=True)
class Options:
    """How far to go: see above."""

    force: bool = False
    cancel: bool = False


def delete_job(context: Context, job_id: str, options: Options) -> None:
    """Delete a job with its runs, their curves and their files."""
    session = context.session
    job = jobs.lock(session, job_id)
    if job is None:
        raise NotFound("There is no job of this id.")
    if not options.cancel:
        how = "Cancel the job first, or add cancel=true to stop and delete it."
        _refuse([repository.runs_to_end(session, job_id)], how)
    if not options.force:
        how = "Delete them first, or add force=true: they stay, and no longer name the job."
        _refuse([repository.meta_checkpoints_of(session, "job_id", job_id)], how)
    found = jobs.runs_of(session, job_id)
    ended = all(run.status in TERMINAL for run in found)
    run_ids = [run.id for run in found]
    repository.forget_job(session, job_id)
    _enqueue_runs(context, run_ids, ended)


def delete_run(context: Context, run_id: str, options: Options) -> None:
    """Delete one run of a job of several."""
    session = context.session
    run = runs.get(session, run_id)
    if run is None:
        raise NotFound("There is no run of this id.")
    job = jobs.lock(session, run.job_id)
    session.refresh(run)
    if job is None:
        raise NotFound("There is no run of this id.")
    if len(jobs.runs_of(session, job.id)) == 1:
        only = Dependants.of("job", "has no other run", [job.id], 1)
        raise InUse([only], "Delete the job instead.")
    ended = run.status in TERMINAL
    if not ended and not options.cancel:
        it = Dependants.of("run", f"is {run.status}", [run_id], 1)
        raise InUse([it], "Cancel its job first, or add cancel=true to stop and delete it.")
    if not options.force:
        how = "Delete them first, or add force=true: they stay, and no longer name the run."
        _refuse([repository.meta_checkpoints_of(session, "run_id", run_id)], how)
    message = f"run {run.name} was deleted"
    repository.forget_run(session, run_id)
    add_event(session, job.id, "log", {"level": "info", "message": message})
    if job.status in TERMINAL:
        job.tally = tally.count(session, [job.id])[job.id].stored()
    else:
        settle(session, job)
    _enqueue_runs(context, [run_id], ended)


def delete_artifact(context: Context, run_id: str, name: str, options: Options) -> None:
    """Delete one file of a run that has ended."""
    session = context.session
    artifact = runs.artifact(session, run_id, name)
    run = runs.get(session, run_id)
    if artifact is None or run is None:
        raise NotFound("There is no such file, or no such run.")
    if run.status in ACTIVE:
        it = Dependants.of("run", "has not ended and may need it", [run_id], 1)
        raise InUse([it], "Cancel its job first.")
    key = artifact.storage_key
    repository.forget_artifact(session, run_id, name)
    files.enqueue(session, [key])


def delete_dataset(context: Context, dataset_id: str, options: Options) -> None:
    """Mark an upload as deleted; its files go."""
    session = context.session
    if dataset_id in BUILTIN:
        raise Conflict(f"{dataset_id} is built in: only uploads can be deleted.")
    known = UPLOADED.fullmatch(dataset_id)
    dataset = datasets.get(session, dataset_id, "update") if known else None
    if dataset is None:
        raise NotFound("There is no data set of this id.")
    if dataset.deleted_at is not None:
        raise NotFound("This data set was deleted.")
    how = "Cancel their jobs first."
    _refuse([repository.users_of_dataset(session, dataset_id, active=True)], how)
    if not options.force:
        how = "Add force=true to delete it: they stay, but cannot be run again."
        _refuse([repository.users_of_dataset(session, dataset_id, active=False)], how)
    dataset.deleted_at = now()
    files.enqueue(session, [dataset.storage_key])


def delete_meta_checkpoint(context: Context, identity: str, options: Options) -> None:
    """Delete a meta-checkpoint that was uploaded or made here."""
    session = context.session
    if identity.startswith("mc_shipped_"):
        raise Conflict("It is shipped with the product: only others can be deleted.")
    row = meta_checkpoints.get(session, identity, "update")
    if row is None:
        raise NotFound("There is no meta-checkpoint of this id.")
    using = repository.users_of_meta_checkpoint(session, identity, active=True)
    _refuse([using], "Cancel their jobs first.")
    if not options.force:
        how = (
            "Add force=true to delete it: its aliases go too, and what used it stays, but cannot "
            "be run again."
        )
        used = repository.users_of_meta_checkpoint(session, identity, active=False)
        children = repository.children_of(session, identity)
        _refuse([repository.aliases_of(session, identity), used, children], how)
    key = row.storage_key
    repository.forget_meta_checkpoint(session, identity)
    files.enqueue(session, [key])


def delete_network(context: Context, identity: str, options: Options) -> None:
    """Delete an uploaded network."""
    session = context.session
    row = networks.get(session, identity, "update")
    if row is None:
        raise NotFound("There is no network of this id.")
    using = repository.users_of_network(session, identity, active=True)
    _refuse([using], "Cancel their jobs first.")
    if not options.force:
        how = "Add force=true to delete it: they stay, but cannot be run again."
        _refuse([repository.users_of_network(session, identity, active=False)], how)
    key = row.storage_key
    session.delete(row)
    session.flush()
    files.enqueue(session, [key])


Delete = Callable[[Context, str, Options], None]
BY_PREFIX: dict[str, Delete] = {
    "job_": delete_job,
    "run_": delete_run,
    "ds_": delete_dataset,
    "mc_": delete_meta_checkpoint,
    "net_": delete_network,
}


def delete_any(context: Context, identity: str, options: Options) -> None:
    """Delete what an id names, whatever kind of thing it is."""
    prefix = identity.partition("_")[0] + "_"
    if prefix not in BY_PREFIX:
        raise NotFound("There is nothing of this id that can be deleted.")
    BY_PREFIX[prefix](context, identity, options)


def _refuse(found: list[Dependants | None], how: str) -> None:
    there = [each for each in found if each is not None]
    if there:
        raise InUse(there, how)


def _enqueue_runs(context: Context, run_ids: list[str], ended: bool) -> None:
    """Also what their rows never named, such as files of attempts that were fenced."""
    settings = context.settings
    late = None if ended else 2 * settings.lease_seconds + settings.grace_seconds
    files.enqueue(context.session, [f"runs/{run_id}" for run_id in run_ids], late)
