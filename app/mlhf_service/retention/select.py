"""Which rows a rule drops."""

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, Subquery, exists, func, or_, select
from sqlalchemy.orm import Session

from mlhf_service.database import now
from mlhf_service.jobs.models import Job, JobTag
from mlhf_service.retention.schemas import Preview, Rule
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.runs.status import TERMINAL

_SHOWN = 100


def dropped(session: Session, rule: Rule, limit: int) -> list[tuple[str, ...]]:
    """Keys of what the rule drops, the oldest first: a job's id, or a run's and a file's name."""
    found = _jobs(rule) if rule.target == "jobs" else _checkpoints(rule)
    keys = ("id",) if rule.target == "jobs" else ("id", "name")
    rows = session.execute(found.order_by("ended", *keys).limit(limit)).mappings()
    return [tuple(row[key] for key in keys) for row in rows]


def preview(session: Session, rule: Rule) -> Preview:
    found = (_jobs(rule) if rule.target == "jobs" else _checkpoints(rule)).subquery()
    total, size = session.execute(
        select(func.count(), func.coalesce(func.sum(found.c.size), 0)).select_from(found)
    ).one()
    ids = ["/".join(key) for key in dropped(session, rule, _SHOWN)]
    return Preview(total=total, bytes=int(size), ids=ids)


def _jobs(rule: Rule) -> Select[Any]:
    sizes = _sizes()
    newest_first = Job.finished_at.desc(), Job.id.desc()
    size = func.coalesce(sizes.c.size, 0)
    ranked = (
        select(
            Job.id,
            Job.finished_at.label("ended"),
            Job.archived_at,
            size.label("size"),
            func.row_number().over(order_by=newest_first).label("place"),
            func.sum(size).over(order_by=newest_first).label("total"),
        )
        .outerjoin(sizes, sizes.c.job_id == Job.id)
        .where(*_matching(rule))
        .subquery()
    )
    statement = select(ranked.c.id, ranked.c.ended, ranked.c.size)
    if rule.older_than_days is not None:
        statement = statement.where(ranked.c.ended < now() - timedelta(days=rule.older_than_days))
    if rule.keep_newest is not None:
        statement = statement.where(ranked.c.place > rule.keep_newest)
    if rule.keep_bytes is not None:
        statement = statement.where(ranked.c.total > rule.keep_bytes)
    if rule.action == "archive":
        statement = statement.where(ranked.c.archived_at.is_(None))
    return statement


def _sizes() -> Subquery:
    """Bytes of the files of each job."""
    return (
        select(Run.job_id, func.sum(Artifact.size).label("size"))
        .join(Artifact, Artifact.run_id == Run.id)
        .group_by(Run.job_id)
        .subquery()
    )


def _checkpoints(rule: Rule) -> Select[Any]:
    place = func.row_number().over(partition_by=Artifact.run_id, order_by=Artifact.step.desc())
    ranked = (
        select(
            Artifact.run_id.label("id"),
            Artifact.name,
            Artifact.size,
            Run.finished_at.label("ended"),
            place.label("place"),
        )
        .join(Run, Run.id == Artifact.run_id)
        .join(Job, Job.id == Run.job_id)
        .where(Artifact.kind == "checkpoint", Run.status.in_(TERMINAL), *_matching(rule))
        .subquery()
    )
    statement = select(ranked.c.id, ranked.c.name, ranked.c.ended, ranked.c.size)
    statement = statement.where(ranked.c.place > (rule.keep_newest or 0))
    if rule.older_than_days is not None:
        statement = statement.where(ranked.c.ended < now() - timedelta(days=rule.older_than_days))
    return statement


def _matching(rule: Rule) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [Job.status.in_(rule.status or sorted(TERMINAL))]
    if rule.kind is not None:
        conditions.append(Job.kind == rule.kind)
    if rule.archived is not None:
        archived = Job.archived_at.is_not(None)
        conditions.append(archived if rule.archived else Job.archived_at.is_(None))
    conditions += [_tagged(key, value) for key, value in rule.tags.items()]
    if rule.unless_tags:
        conditions.append(~or_(*(_tagged(key, value) for key, value in rule.unless_tags.items())))
    return conditions


def _tagged(key: str, value: str | None) -> ColumnElement[bool]:
    tag = exists().where(JobTag.job_id == Job.id, JobTag.key == key)
    return tag if value is None else tag.where(JobTag.value == value)
