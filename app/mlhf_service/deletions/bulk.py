"""Delete many things, each in a transaction of its own."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlhf_service.context import Context
from mlhf_service.deletions import service
from mlhf_service.deletions.dependants import InUse
from mlhf_service.deletions.schemas import (
    MOST,
    DeletionReport,
    DeletionRequest,
    JobFilter,
    Kept,
)
from mlhf_service.jobs import repository as jobs
from mlhf_service.jobs.models import Job
from mlhf_service.kit.problems import Problem
from mlhf_service.runs import search
from mlhf_service.runs.models import Run

Write = Callable[[], AbstractContextManager[Context]]


class _DryRun(Exception):  # noqa: N818 - nothing is wrong
    """Rolls back what was only tried."""


def delete_many(write: Write, request: DeletionRequest) -> DeletionReport:
    """Delete what is asked for; what cannot be deleted is kept, with the reason.

    Args:
        write: Opens a transaction, as ``Backend.write`` does.
    """
    more = False
    ids: Iterable[str] = dict.fromkeys(request.ids or ())
    if request.filter is not None:
        with write() as context:
            found = matching(context.session, request.filter, MOST + 1)
        ids, more = found[:MOST], len(found) > MOST
    if request.runs is not None:
        with write() as context:
            chosen = select(Run.id).where(search.condition(context.session, request.runs))
            found = list(context.session.scalars(chosen.order_by(Run.id).limit(MOST + 1)))
        ids, more = found[:MOST], len(found) > MOST
    options = service.Options(force=request.force, cancel=request.cancel)
    report = DeletionReport(dry_run=request.dry_run, deleted=[], kept=[], more=more)
    for identity in ids:
        kept = delete_one(write, identity, options, dry_run=request.dry_run)
        if kept is None:
            report.deleted.append(identity)
        else:
            report.kept.append(kept)
    return report


def delete_one(
    write: Write, identity: str, options: service.Options, *, dry_run: bool
) -> Kept | None:
    """Delete one thing, or try and roll back; returns why it is kept, if it is."""

    def act(context: Context) -> None:
        service.delete_any(context, identity, options)
        if dry_run:
            raise _DryRun

    try:
        return attempt(write, identity, act)
    except _DryRun:
        return None


def attempt(write: Write, identity: str, act: Callable[[Context], None]) -> Kept | None:
    """Do something to one thing in a transaction of its own; returns why not, if refused."""
    try:
        with write() as context:
            act(context)
    except Problem as problem:
        document = problem.document()
        shown = (
            [one for each in problem.found for one in each.shown]
            if isinstance(problem, InUse)
            else []
        )
        return Kept(id=identity, type=document["type"], detail=problem.detail, dependants=shown)
    return None


def matching(session: Session, wanted: JobFilter, limit: int) -> list[str]:
    """Ids of the jobs that a filter finds, the oldest first."""
    statement = jobs.search(
        status=wanted.status,
        kind=wanted.kind,
        tags=list(wanted.tags.items()),
        optimizer=wanted.optimizer,
        model=wanted.model,
        dataset=wanted.dataset,
        q=wanted.q,
        archived=wanted.archived,
    )
    if wanted.created_before is not None:
        statement = statement.where(Job.created_at < wanted.created_before)
    ids = select(Job.id).order_by(Job.id).limit(limit)
    if statement.whereclause is not None:
        ids = ids.where(statement.whereclause)
    return list(session.scalars(ids))
