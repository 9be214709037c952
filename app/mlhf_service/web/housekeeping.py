"""Pages to delete and archive things, and that of the workers. None of them needs a script."""

from typing import Annotated

from fastapi import APIRouter, Form, Path, Request, Response, status
from fastapi.responses import RedirectResponse

from mlhf_service.api.dependencies import CurrentBackend, ReadContext
from mlhf_service.deletions import bulk, files
from mlhf_service.deletions.schemas import Kept
from mlhf_service.deletions.service import Options
from mlhf_service.jobs import service as jobs
from mlhf_service.kit.problems import NotFound
from mlhf_service.operations import service as operations
from mlhf_service.runs import service as runs
from mlhf_service.web.rendering import PageRoute, page

router = APIRouter(include_in_schema=False, route_class=PageRoute)

Identity = Annotated[str, Path(pattern=r"^[a-z]{2,4}_[0-9a-z_]{1,36}$")]
_KINDS = {
    "job": ("the job with its runs, curves and files", "/jobs/"),
    "run": ("the run with its curve and files", "/runs/"),
    "ds": ("the data set", "/datasets/"),
}


@router.get("/workers")
def workers_page(request: Request, context: ReadContext) -> Response:
    """The workers, and what waits for them."""
    return page(
        request,
        "workers.html",
        workers=operations.listed(context),
        queue=operations.queue(context),
    )


@router.get("/delete/{identity}")
def delete_page(request: Request, identity: Identity, backend: CurrentBackend) -> Response:
    """What depends on a thing, and a button that deletes it."""
    return _ask(
        request, identity, bulk.delete_one(backend.write, identity, Options(), dry_run=True)
    )


@router.post("/delete/{identity}")
def delete(
    request: Request,
    identity: Identity,
    backend: CurrentBackend,
    force: Annotated[bool, Form()] = False,
    cancel: Annotated[bool, Form()] = False,
) -> Response:
    """Delete it, or say again what depends on it."""
    options = Options(force=force, cancel=cancel)
    kept = bulk.delete_one(backend.write, identity, options, dry_run=False)
    if kept is not None:
        return _ask(request, identity, kept, status.HTTP_409_CONFLICT)
    files.drain_soon(backend.database, backend.storage)
    after = "/datasets" if identity.startswith("ds_") else "/"
    return RedirectResponse(after, status.HTTP_303_SEE_OTHER)


@router.post("/archive/{identity}")
def archive(
    identity: Identity, backend: CurrentBackend, undo: Annotated[bool, Form()] = False
) -> Response:
    """Hide a job or a run from lists, or show it again."""
    with backend.write() as context:
        if identity.startswith("run_"):
            runs.archive(context.session, identity, hidden=not undo)
        elif undo:
            jobs.unarchive(context.session, identity)
        else:
            jobs.archive(context.session, identity)
    return RedirectResponse(_place(identity), status.HTTP_303_SEE_OTHER)


def _ask(request: Request, identity: str, kept: Kept | None, code: int = 200) -> Response:
    if kept is not None and kept.type == f"/problems/{NotFound.slug}":
        raise NotFound(kept.detail)
    what, _ = _KINDS.get(identity.partition("_")[0], ("this", "/"))
    values = {"identity": identity, "what": what, "kept": kept, "back": _place(identity)}
    return page(request, "delete.html", code, **values)


def _place(identity: str) -> str:
    """The page of what an id names."""
    _, folder = _KINDS.get(identity.partition("_")[0], ("", ""))
    return f"{folder}{identity}" if folder else "/"
