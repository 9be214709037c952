"""The pages of what there is: models, optimizers, meta-checkpoints."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response

from mlhf_service.api.dependencies import ReadSession
from mlhf_service.catalogue import service as catalogue
from mlhf_service.kit.pagination import Cursor
from mlhf_service.kit.parameters import parameters, parts
from mlhf_service.meta_checkpoints import service as meta_checkpoints
from mlhf_service.web.formats import query
from mlhf_service.web.rendering import PageRoute, page

router = APIRouter(include_in_schema=False, route_class=PageRoute)

Name = Annotated[str, Path(max_length=100, pattern=r"^[^\x00]+$")]
Kind = Literal["model", "optimizer"]
_A_PAGE = 100


@router.get("/models")
def models_page(request: Request) -> Response:
    """The models."""
    return _list(request, "model")


@router.get("/models/{name}")
def model_page(request: Request, name: Name) -> Response:
    """One model: its parameters, and the layers it may have."""
    return _entry(request, "model", name)


@router.get("/optimizers")
def optimizers_page(request: Request) -> Response:
    """The optimizers."""
    return _list(request, "optimizer")


@router.get("/optimizers/{name}")
def optimizer_page(request: Request, name: Name) -> Response:
    """One optimizer: its parameters."""
    return _entry(request, "optimizer", name)


@router.get("/meta-checkpoints")
def meta_checkpoints_page(
    request: Request, session: ReadSession, cursor: Cursor = None
) -> Response:
    """The meta-checkpoints: those of the product, then the newest."""
    listed = meta_checkpoints.page(session, None, _A_PAGE, cursor)
    older = query(cursor=listed.next_cursor) if listed.next_cursor else None
    return page(request, "meta_checkpoints.html", found=listed.data, older=older)


@router.get("/meta-checkpoints/{identity}")
def meta_checkpoint_page(request: Request, session: ReadSession, identity: Name) -> Response:
    """One meta-checkpoint: where it comes from, and what used it."""
    found = meta_checkpoints.find(session, identity)
    ancestors = meta_checkpoints.ancestors(session, found)
    return page(request, "meta_checkpoint.html", one=found, ancestors=ancestors)


def _list(request: Request, kind: Kind) -> Response:
    return page(request, "catalogue.html", kind=kind, entries=catalogue.entries(kind))


def _entry(request: Request, kind: Kind, name: str) -> Response:
    entry = catalogue.find(kind, name)
    return page(
        request,
        "entry.html",
        kind=kind,
        entry=entry,
        parameters=parameters(entry.params_schema),
        parts=parts(entry.params_schema),
    )
