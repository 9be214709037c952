"""HTTP for data sets."""

from typing import Annotated

from fastapi import APIRouter, File, Form, Path, Response, UploadFile, status

from mlhf.core.errors import DataError
from mlhf.data.formats import UploadFormat
from mlhf_service.api.dependencies import (
    CurrentCaller,
    CurrentDatabase,
    CurrentSettings,
    CurrentStorage,
    ReadContext,
)
from mlhf_service.api.room import RequireRoom
from mlhf_service.datasets import progress, service, uploads
from mlhf_service.datasets.examination import Bounds
from mlhf_service.datasets.schemas import DatasetView, UploadProgress
from mlhf_service.keys.quotas import require_room
from mlhf_service.kit.pagination import Cursor, Limit, Page
from mlhf_service.kit.problems import Invalid
from mlhf_service.kit.text import MOST, PATTERN

router = APIRouter(prefix="/datasets", tags=["datasets"])

DatasetId = Annotated[str, Path(max_length=100, description="A built-in name, or ds_….")]
Name = Annotated[str, Form(min_length=1, max_length=MOST, pattern=PATTERN)]


@router.get("")
def list_datasets(
    context: ReadContext,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[DatasetView]:
    """List the built-in data sets, then the uploaded ones, the newest first."""
    return service.page(context, limit, cursor)


@router.post("", status_code=status.HTTP_201_CREATED, dependencies=[RequireRoom])
def upload_dataset(
    name: Name,
    format: Annotated[UploadFormat, Form(description="How the files are to be read.")],
    file: Annotated[
        list[UploadFile],
        File(
            min_length=1,
            max_length=1000,
            description="npz: one .npz. image_folder: one .zip of `train/<class>/*`, "
            "`val/<class>/*` (or `<class>/*` alone). "
            "coco: one .zip of images and a COCO document (.json) of their boxes. "
            "hf_images: Parquet files named `train-*`, `test-*`. "
            "table: one .csv, .tsv or .parquet. "
            "text: one UTF-8 file.",
        ),
    ],
    response: Response,
    database: CurrentDatabase,
    settings: CurrentSettings,
    storage: CurrentStorage,
    caller: CurrentCaller,
    params: Annotated[
        str, Form(max_length=100_000, description="JSON object: the parameters of the format.")
    ] = "{}",
    progress_id: Annotated[
        progress.ProgressId | None,
        Form(
            description="Random; GET /v1/datasets/progress/{progress_id} then says how far it is."
        ),
    ] = None,
) -> DatasetView:
    """Upload a data set. All of it is read and checked before it is kept."""
    checked = service.parse_params(params, format)
    received = sum(each.size or 0 for each in file)
    with (
        progress.reporting(settings, caller.tenant, progress_id, received) as report,
        uploads.staging(settings) as folder,
    ):
        report.enter("unpacking")
        try:
            left_out = uploads.place(file, format, folder, settings)
        except DataError as error:
            raise Invalid.at("/file", str(error)) from None
        report.enter("checking")
        bounds = Bounds(settings.upload_check_memory_bytes, settings.upload_check_seconds)
        dataset = service.check(folder, name, format, checked, bounds, left_out, report)
        report.enter("storing")
        key = dataset.storage_key
        try:
            with database.write() as session:
                require_room(session, settings, caller, stored=dataset.size)
                created = service.store(session, storage, folder, dataset, caller)
        except BaseException:
            storage.delete(key)
            raise
    response.headers["Location"] = f"/v1/datasets/{created.id}"
    return created


@router.get("/progress/{progress_id}")
def get_upload_progress(
    progress_id: Annotated[progress.ProgressId, Path(description="As sent with the upload.")],
    settings: CurrentSettings,
    caller: CurrentCaller,
) -> UploadProgress:
    """How far an upload is that was sent with this id."""
    return progress.find(settings, caller.tenant, progress_id)


@router.get("/{dataset_id}")
def get_dataset(dataset_id: DatasetId, context: ReadContext) -> DatasetView:
    """One data set, built in or uploaded."""
    return service.find(context, dataset_id)
