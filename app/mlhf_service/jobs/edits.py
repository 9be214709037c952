"""Rename jobs and runs, tag them, write notes, move them to projects, archive them."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, model_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from mlhf.core.config import Strict
from mlhf_service.jobs import projects, service
from mlhf_service.jobs.kinds.requests import Notes, TagKey, TagValue
from mlhf_service.jobs.models import Job, JobTag
from mlhf_service.kit.problems import Conflict, Invalid
from mlhf_service.kit.text import PlainText
from mlhf_service.runs import repository as run_rows
from mlhf_service.runs import search
from mlhf_service.runs import service as runs
from mlhf_service.runs.models import Run
from mlhf_service.runs.query import MAX_LENGTH

MOST = 1000
_MAX_TAGS = 32
Identity = Annotated[str, StringConstraints(pattern=r"^(job|run)_[0-9a-z]{1,36}$")]
Query = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_LENGTH, pattern=r"^[^\x00]+$")
]


class RunPatch(Strict):
    """What to change of a run; what is absent stays."""

    name: PlainText | None = Field(default=None, description="Another name.")
    tags: dict[TagKey, TagValue | None] = Field(
        default_factory=dict, description="Tags to set; null removes one. Others stay."
    )
    notes: Notes | None = Field(default=None, description="Markdown; an empty text removes them.")
    archived: bool | None = Field(
        default=None, description="`true`: hidden from lists, once it has ended; `false`: shown."
    )

    @model_validator(mode="after")
    def _something(self) -> "RunPatch":
        if not self.model_fields_set:
            raise ValueError("give at least one field to change")
        return self


class JobPatch(RunPatch):
    """What to change of a job, and with its name, tags and project of its runs."""

    project: PlainText | None = Field(
        default=None, description="The name of the project to move it to, or `default`."
    )


class EditRequest(Strict):
    """What to change of many jobs or runs at once."""

    ids: list[Identity] | None = Field(
        default=None, min_length=1, max_length=MOST, description="Of jobs and of runs."
    )
    filter: Query | None = Field(
        default=None, description="Instead of ids: the runs that meet it, as in `GET /v1/runs`."
    )
    changes: JobPatch = Field(description="The same for each; only jobs can be moved to a project.")
    dry_run: bool = Field(default=False, description="Only say what would be changed.")

    @model_validator(mode="after")
    def _one_way(self) -> "EditRequest":
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either ids or a filter")
        return self


class EditReport(BaseModel):
    """What was changed, or would be."""

    dry_run: bool = Field(description="Whether nothing was changed.")
    changed: list[str] = Field(description="Ids of what was changed, or would be.")
    more: bool = Field(description=f"Whether the filter finds more: it takes {MOST} at once.")


def edit_run(session: Session, run_id: str, patch: RunPatch) -> Run:
    """Change a run. Raises NotFound, Conflict, Invalid."""
    run = runs.find(session, run_id)
    if isinstance(patch, JobPatch) and patch.project is not None:
        message = "a run is in the project of its job: move the job"
        raise Invalid.at("/changes/project", f"{message}; given: {run_id}")
    run.name = patch.name or run.name
    run.tags = _tagged(run.tags, patch.tags)
    if patch.notes is not None:
        run.notes = patch.notes or None
    if patch.archived is not None:
        runs.archive(session, run_id, patch.archived)
    session.flush()
    return run


def edit_job(session: Session, job_id: str, patch: JobPatch) -> Job:
    """Change a job, and its runs with it. Raises NotFound, Conflict, Invalid."""
    job = service.find(session, job_id)
    of_job = run_rows.of_job(session, job_id)
    if patch.name is not None:
        for run in of_job:
            if run.name.startswith(job.name):
                run.name = (patch.name + run.name.removeprefix(job.name))[:250]
        job.name = patch.name
    if patch.tags:
        tags = _tagged({tag.key: tag.value for tag in job.tags}, patch.tags) or {}
        kept = {tag.key: tag for tag in job.tags}
        for key, tag in kept.items():
            if key not in tags:
                session.delete(tag)
            else:
                tag.value = tags[key]
        session.add_all(
            JobTag(job_id=job_id, key=key, value=tags[key]) for key in tags if key not in kept
        )
        for run in of_job:
            run.tags = _tagged(run.tags, patch.tags)
    if patch.notes is not None:
        job.notes = patch.notes or None
    if patch.project is not None:
        job.project_id = projects.of_request(session, patch.project)
        for run in of_job:
            run.project_id = job.project_id
    session.flush()
    if patch.archived is not None:
        service.archive(session, job_id) if patch.archived else service.unarchive(session, job_id)
    session.expire_all()
    return service.find(session, job_id)


def edit_many(session: Session, request: EditRequest) -> EditReport:
    """Change many, all or none: what is wrong with one is raised, and nothing is changed."""
    ids, more = list(dict.fromkeys(request.ids or ())), False
    if request.filter is not None:
        found = select(Run.id).where(search.condition(session, request.filter))
        ids = list(session.scalars(found.order_by(Run.id.desc()).limit(MOST + 1)))
        ids, more = ids[:MOST], len(ids) > MOST
    for identity in ids:
        try:
            if identity.startswith("job_"):
                edit_job(session, identity, request.changes)
            else:
                edit_run(session, identity, request.changes)
        except Conflict as problem:
            raise Conflict(f"{identity}: {problem.detail} Nothing was changed.") from None
    if request.dry_run:
        session.rollback()
    return EditReport(dry_run=request.dry_run, changed=ids, more=more)


def _tagged(
    tags: Mapping[str, str] | None, changes: Mapping[str, str | None]
) -> dict[str, str] | None:
    changed = {**(tags or {}), **changes}
    kept = {key: value for key, value in changed.items() if value is not None}
    if len(kept) > _MAX_TAGS:
        raise Invalid.at("/tags", f"{len(kept)} tags; at most {_MAX_TAGS} are allowed")
    return kept or None
