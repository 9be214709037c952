"""HTTP for predictions."""

import shutil
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, File, Form, Path, Request, Response, UploadFile
from pydantic import BaseModel, Field

from mlhf.core.config import Strict
from mlhf_service.api.dependencies import CurrentBackend
from mlhf_service.kit import downloads
from mlhf_service.predictions.service import (
    MOST_FILE_ROWS,
    ExportFormat,
    FileFormat,
    Predictors,
    check_rows,
)

router = APIRouter(prefix="/models", tags=["predictions"])

RunId = Annotated[str, Path(max_length=40, description="Id of the run that trained the model.")]
_KINDS = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "npz": "application/octet-stream",
}


class PredictRequest(Strict):
    """Raw inputs, as the training data had them."""

    rows: list[Any] = Field(
        description="Tables: objects of column and value, or lists. Images: nested lists of "
        "numbers (C, H, W) or (H, W). Texts: strings of one length."
    )


class ExportRequest(Strict):
    """As what a network is wanted."""

    format: ExportFormat = Field(description="`onnx`, or `pt2`, which `torch.export.load` reads.")


class Predictions(BaseModel):
    """What a model predicts."""

    run_id: str
    task: str
    predictions: list[Any] = Field(description="A label, a list of labels, or values a row.")
    names: list[str] | None = Field(
        default=None, description="Of the classes, where the data set names them."
    )


async def _predictors(request: Request) -> Predictors:
    predictors: Predictors = request.app.state.predictors
    return predictors


CurrentPredictors = Annotated[Predictors, Depends(_predictors)]


@router.post("/{run_id}/predict")
def predict(
    run_id: RunId, body: PredictRequest, backend: CurrentBackend, predictors: CurrentPredictors
) -> Predictions:
    """Predict with the model that a run trained. Inputs are preprocessed as in training."""
    check_rows(body.rows)
    with backend.read() as context:
        folder = predictors.place(context.session, backend.storage, run_id)
    found = predictors.ask(run_id, {"folder": str(folder), "rows": body.rows})
    return Predictions(run_id=run_id, **found)


@router.post(
    "/{run_id}/export",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def export(
    run_id: RunId, body: ExportRequest, backend: CurrentBackend, predictors: CurrentPredictors
) -> Response:
    """The network that a run trained as a file for other programs, for batches of any size.

    It takes preprocessed inputs: means, deviations and class names are in the run's `model.json`.
    """
    with backend.read() as context:
        folder = predictors.place(context.session, backend.storage, run_id)
    target = backend.settings.predictor_dir / f"export-{uuid4().hex}.{body.format}"
    try:
        predictors.ask(run_id, {"folder": str(folder), "export": str(target)})
        content = target.read_bytes()
    finally:
        target.unlink(missing_ok=True)
    name = downloads.attachment(f"{run_id}.{body.format}")
    kind = "application/octet-stream"
    return Response(content, media_type=kind, headers={"Content-Disposition": name})


@router.post(
    "/{run_id}/predict-file",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def predict_file(
    run_id: RunId,
    file: Annotated[UploadFile, File(description="csv and parquet: columns. npz: x.")],
    format: Annotated[FileFormat, Form(description="Of the file, and of the answer.")],
    backend: CurrentBackend,
    predictors: CurrentPredictors,
) -> Response:
    """Predict every row of a file; the answer is a file of the same format, a row a row."""
    with backend.read() as context:
        folder = predictors.place(context.session, backend.storage, run_id)
    scratch = backend.settings.predictor_dir / f"file-{uuid4().hex}"
    scratch.mkdir(parents=True)
    try:
        source, target = scratch / f"input.{format}", scratch / f"output.{format}"
        with source.open("wb") as out:
            shutil.copyfileobj(file.file, out, 2**20)
        request = {
            "folder": str(folder),
            "input": str(source),
            "output": str(target),
            "format": format,
            "most_rows": MOST_FILE_ROWS,
        }
        predictors.ask(run_id, request)
        content = target.read_bytes()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    name = downloads.attachment(f"predictions.{format}")
    return Response(content, media_type=_KINDS[format], headers={"Content-Disposition": name})
