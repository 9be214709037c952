"""HTTP for ablations."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from mlhf_service.ablations import service
from mlhf_service.ablations.schemas import Ablation
from mlhf_service.api.dependencies import ReadSession
from mlhf_service.kit import downloads
from mlhf_service.runs.curve_files import PNG

router = APIRouter(prefix="/ablations", tags=["ablations"])


@router.get(
    "",
    response_model=Ablation,
    responses={
        200: {
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                "text/markdown": {"schema": {"type": "string"}},
                PNG: {"schema": {"type": "string", "format": "binary"}},
            }
        }
    },
)
def get_ablation(
    request: Request,
    session: ReadSession,
    job: Annotated[
        str, Query(pattern=r"^job_[0-9a-z]{1,36}$", description="A job of kind `ablation`.")
    ],
    format: Literal["json", "csv", "md", "png"] = "json",
) -> Any:
    """The table or the figure of an ablation, over all seeds of its job that have ended.

    Each run's own are among its artifacts, and its curves are read like those of others.
    """
    measured = service.measured(session, job)
    session.close()  # drawing takes long, and needs no connection
    if format == "json":
        return service.table(measured)
    kind, content = service.render(measured, format)
    return downloads.send_bytes(request.headers, content, kind, f"ablation.{format}")
