"""HTTP for imports."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, UploadFile, status
from pydantic import BaseModel, Field, ValidationError

from mlhf.core.errors import error_message
from mlhf_service.api.dependencies import CurrentBackend
from mlhf_service.api.room import RequireRoom
from mlhf_service.imports.formats import ImportFormat
from mlhf_service.imports.readers import ImportFailedError, read
from mlhf_service.kit.problems import FieldError, Invalid, TooLarge, in_one_line, pointer_of
from mlhf_service.logged import service
from mlhf_service.logged.schemas import FinishRequest, LogBatch, LoggedRunCreate
from mlhf_service.runs import service as runs
from mlhf_service.runs.schemas import RunView

router = APIRouter(prefix="/imports", tags=["logged runs"])

MOST_BYTES = 256 * 2**20
_BATCH = 5000


class ImportReport(BaseModel):
    """The run that was made, and what was understood of the files."""

    run: RunView
    points: int
    metrics: dict[str, str] = Field(description="By column or tag, the metric that it became.")
    ignored: dict[str, str] = Field(description="Columns that were left out, and why.")


@router.post("", status_code=status.HTTP_201_CREATED, dependencies=[RequireRoom])
def import_run(
    format: Annotated[
        ImportFormat,
        Form(
            description="csv: a table with a row a step. wandb: a run's history as JSON lines, or "
            "its export as CSV. tensorboard: event files of one run."
        ),
    ],
    file: Annotated[list[UploadFile], File(min_length=1, max_length=100)],
    backend: CurrentBackend,
    run: Annotated[
        str,
        Form(max_length=200_000, description="JSON: name, project, optimizer, … of POST /v1/runs."),
    ] = "{}",
    rename: Annotated[
        str,
        Form(
            max_length=50_000,
            description='JSON: by column or tag, its metric or axis: {"Loss/train": "train_loss"}.',
        ),
    ] = "{}",
) -> ImportReport:
    """Make a run from what another tool wrote. All of it is read before anything is made."""
    request = _request(run)
    names = _names(rename)
    contents, size = [], 0
    for each in file:
        size += each.size or 0
        if size > MOST_BYTES:
            raise TooLarge(f"At most {MOST_BYTES // 2**20} MiB can be imported at once.")
        contents.append((each.filename or "file", each.file.read()))
    try:
        imported = read(format, contents, names, request.batch_size)
        batches = [
            LogBatch.model_validate(
                {"sequence": number, "points": imported.points[at : at + _BATCH]}
            )
            for number, at in enumerate(range(0, len(imported.points), _BATCH), 1)
        ]
    except ImportFailedError as error:
        raise Invalid.at("/file", str(error)) from None
    except ValidationError as error:
        raise Invalid.at("/file", "; ".join(map(error_message, error.errors()[:3]))) from None
    with backend.write() as context:
        made = service.create(context, request)
        for batch in batches:
            service.append(context, made.id, batch)
        ended = service.finish(context, made.id, FinishRequest())
        context.session.refresh(ended)
        view = runs.view(context.session, ended)
    return ImportReport(
        run=view,
        points=len(imported.points),
        metrics=imported.metrics,
        ignored=imported.ignored,
    )


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Invalid.at(f"/{name}", "must be a JSON object")
    return found


def _request(text: str) -> LoggedRunCreate:
    fields = _json(text, "run")
    environment = fields.get("environment")
    if isinstance(environment, dict | None):
        fields["environment"] = {"imported": True, **(environment or {})}
    try:
        return LoggedRunCreate.model_validate(fields)
    except ValidationError as error:
        wrong = [
            FieldError(pointer="/run" + pointer_of(("body", *e["loc"])), detail=error_message(e))
            for e in error.errors()
        ]
        raise Invalid(in_one_line(wrong), wrong) from None


def _names(text: str) -> dict[str, str]:
    names = _json(text, "rename")
    for column, name in names.items():
        if not isinstance(name, str) or not name:
            raise Invalid.at(f"/rename/{column}", "must be the name of a metric or an axis")
    return names
