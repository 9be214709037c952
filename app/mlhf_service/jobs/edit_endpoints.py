"""HTTP for projects, and for changing jobs and runs: names, tags, notes, projects, archives."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response, status
from sqlalchemy import select

from mlhf_service.api.dependencies import ReadSession, WriteSession
from mlhf_service.jobs import edits, projects
from mlhf_service.jobs.edits import EditReport, EditRequest, JobPatch, RunPatch
from mlhf_service.jobs.endpoints import JobId
from mlhf_service.jobs.schemas import JobView, ProjectCreate, ProjectPatch, ProjectView
from mlhf_service.jobs.views import view
from mlhf_service.kit.pagination import (
    Archived,
    Cursor,
    Limit,
    Order,
    Page,
    archived_only,
    paginate,
)
from mlhf_service.runs import service as runs
from mlhf_service.runs.endpoints import RunId
from mlhf_service.runs.projects import Project
from mlhf_service.runs.schemas import RunView

router = APIRouter()

ProjectId = Annotated[str, Path(pattern=r"^prj_[0-9a-z]{1,36}$", description="Id of a project.")]


@router.patch("/jobs/{job_id}", tags=["jobs"])
def change_job(job_id: JobId, request: JobPatch, session: WriteSession) -> JobView:
    """Rename a job, tag it, write notes, move it to a project, archive it.

    Its runs are renamed, tagged, moved and archived with it.
    """
    return view(session, edits.edit_job(session, job_id, request))


@router.patch("/runs/{run_id}", tags=["runs"])
def change_run(run_id: RunId, request: RunPatch, session: WriteSession) -> RunView:
    """Rename a run, tag it, write notes, archive it."""
    return runs.view(session, edits.edit_run(session, run_id, request))


@router.post("/edits", tags=["jobs"])
def change_many(request: EditRequest, session: WriteSession) -> EditReport:
    """Change many jobs and runs by their ids, or the runs that a filter finds.

    All or none are changed. To delete many, see `POST /v1/deletions`.
    """
    return edits.edit_many(session, request)


@router.get("/projects", tags=["projects"])
def list_projects(
    session: ReadSession,
    archived: Annotated[Archived, Query(description="`any`: archived ones too.")] = "false",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[ProjectView]:
    """List the projects, by name. Jobs without one are in `default`, which is not listed."""
    statement = select(Project)
    if (hidden := archived_only(archived)) is not None:
        column = Project.archived_at
        statement = statement.where(column.is_not(None) if hidden else column.is_(None))
    order = Order(Project.name, Project.id, down=False)
    return paginate(
        session, statement, order, limit, cursor, lambda row: projects.view(session, row)
    )


@router.post("/projects", tags=["projects"], status_code=status.HTTP_201_CREATED)
def create_project(
    request: ProjectCreate, response: Response, session: WriteSession
) -> ProjectView:
    """Make a project. Jobs name it as `project`."""
    made = projects.create(session, request)
    response.headers["Location"] = f"/v1/projects/{made.id}"
    return made


@router.get("/projects/{project_id}", tags=["projects"])
def get_project(project_id: ProjectId, session: ReadSession) -> ProjectView:
    """One project, and how many jobs are in it."""
    return projects.view(session, projects.find(session, project_id))


@router.patch("/projects/{project_id}", tags=["projects"])
def change_project(
    project_id: ProjectId, request: ProjectPatch, session: WriteSession
) -> ProjectView:
    """Rename a project, describe it, archive it or show it again."""
    return projects.change(session, project_id, request)


@router.delete("/projects/{project_id}", tags=["projects"], status_code=status.HTTP_204_NO_CONTENT)
def delete_project(project_id: ProjectId, session: WriteSession) -> None:
    """Delete a project without jobs."""
    projects.delete(session, project_id)
