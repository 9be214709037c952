"""Projects: made, renamed, archived; and the one that a job names."""

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mlhf_service.database import now
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.schemas import ProjectCreate, ProjectPatch, ProjectView
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.problems import Conflict, Invalid, NotFound
from mlhf_service.runs.projects import DEFAULT, Project
from mlhf_service.runs.search import unknown_project


def of_request(session: Session, name: str | None, pointer: str = "/project") -> str | None:
    """The id of the project that a request names; None for the default. Raises Invalid."""
    if name is None or name == DEFAULT:
        return None
    found = by_name(session, name)
    if found is None:
        raise Invalid.at(pointer, unknown_project(session, name))
    if found.archived_at is not None:
        raise Invalid.at(pointer, f"the project {name!r} is archived: it takes no new jobs")
    return found.id


def made_if_absent(session: Session, name: str | None) -> str | None:
    """The id of a project for what is trained elsewhere; one that there is not is made."""
    if name not in (None, DEFAULT) and by_name(session, name) is None:
        try:
            with session.begin_nested():
                create(session, ProjectCreate(name=name))
        except IntegrityError:  # somebody else has made it just now
            session.expire_all()
    return of_request(session, name)


def by_name(session: Session, name: str) -> Project | None:
    return session.scalar(select(Project).where(Project.name == name))


def find(session: Session, identity: str) -> Project:
    found = session.scalar(select(Project).where(Project.id == identity))
    if found is None:
        raise NotFound("There is no project of this id.")
    return found


def create(session: Session, request: ProjectCreate) -> ProjectView:
    _require_free(session, request.name, "/name")
    made = Project(
        id=new_id("prj"),
        name=request.name,
        description=request.description,
        created_at=now(),
    )
    session.add(made)
    session.flush()
    return view(session, made)


def change(session: Session, identity: str, request: ProjectPatch) -> ProjectView:
    project = find(session, identity)
    given = request.model_fields_set
    if "name" in given and request.name is not None and request.name != project.name:
        _require_free(session, request.name, "/name")
        project.name = request.name
    if "description" in given:
        project.description = request.description
    if request.archived is not None:
        project.archived_at = (project.archived_at or now()) if request.archived else None
    session.flush()
    return view(session, project)


def delete(session: Session, identity: str) -> None:
    """Delete a project without jobs."""
    project = find(session, identity)
    if count := _jobs(session, identity):
        raise Conflict(f"{count:,} jobs are in the project: move or delete them, or archive it.")
    session.delete(project)


def view(session: Session, project: Project) -> ProjectView:
    return ProjectView(
        id=project.id,
        name=project.name,
        description=project.description,
        jobs=_jobs(session, project.id),
        created_at=project.created_at,
        archived_at=project.archived_at,
    )


def _jobs(session: Session, identity: str) -> int:
    return session.scalar(select(func.count(Job.id)).where(Job.project_id == identity)) or 0


def _require_free(session: Session, name: str, pointer: str) -> None:
    if name == DEFAULT or by_name(session, name) is not None:
        raise Conflict.at(pointer, f"there is a project called {name!r} already")
