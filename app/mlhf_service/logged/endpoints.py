"""HTTP for runs that are trained elsewhere."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Response, status

from mlhf_service.api.dependencies import CurrentBackend
from mlhf_service.api.room import RequireRoom
from mlhf_service.jobs import idempotency
from mlhf_service.kit.problems import NotFound
from mlhf_service.logged import service
from mlhf_service.logged.schemas import FinishRequest, LogBatch, LoggedRunCreate, LogState
from mlhf_service.runs import repository as runs
from mlhf_service.runs import service as shown
from mlhf_service.runs.schemas import RunView

router = APIRouter(prefix="/runs", tags=["logged runs"])

RunId = Annotated[str, Path(max_length=40, description="Id of a run.")]
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=255, description="The same key and body make one run."),
]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    dependencies=[RequireRoom],
    responses={200: {"model": RunView, "description": "Known already (Idempotency-Key)."}},
)
def create_logged_run(
    request: LoggedRunCreate,
    response: Response,
    backend: CurrentBackend,
    idempotency_key: IdempotencyKey = None,
) -> RunView:
    """Begin a run that is trained elsewhere. It stands in the same lists and comparisons.

    It has no place in the queue. It fails where its logger is silent for too long
    (`MLHF_LOGGER_SECONDS`), and ends by `finish`.
    """
    asked = {"logged": request.model_dump(mode="json")}
    with idempotency.reserved(backend.database, idempotency_key, asked) as earlier:
        if earlier is not None:
            response.status_code = status.HTTP_200_OK
            with backend.read() as context:
                found = runs.of_job(context.session, earlier)
                if not found:
                    raise NotFound("The run that this key made was deleted.")
                view = shown.view(context.session, found[0])
        else:
            with backend.write() as context:
                run = service.create(context, request)
                idempotency.complete(context.session, idempotency_key, run.job_id)
                context.session.flush()
                context.session.refresh(run)
                view = shown.view(context.session, run)
    response.headers["Location"] = f"/v1/runs/{view.id}"
    return view


@router.post("/{run_id}/points")
def log_points(run_id: RunId, batch: LogBatch, backend: CurrentBackend) -> LogState:
    """Write a batch of points, exactly once by its number, and say that the run is alive."""
    with backend.write() as context:
        return service.append(context, run_id, batch)


@router.post("/{run_id}/finish")
def finish_logged_run(run_id: RunId, request: FinishRequest, backend: CurrentBackend) -> RunView:
    """End a run that was trained elsewhere."""
    with backend.write() as context:
        run = service.finish(context, run_id, request)
        return shown.view(context.session, run)
