"""What can be done with data sets. Nothing here commits: the request does, once."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from mlhf.core.errors import DataError, SpecError
from mlhf.data import specs
from mlhf.data.report import Progress, Report, listed
from mlhf_service.context import Caller, Context
from mlhf_service.database import now
from mlhf_service.datasets import repository, uploads
from mlhf_service.datasets.examination import Bounds, examine
from mlhf_service.datasets.installed import require_worker
from mlhf_service.datasets.models import Dataset
from mlhf_service.datasets.resolve import (
    BUILTIN,
    UPLOADED,
    identify,
    resolve_dataset,
)
from mlhf_service.datasets.schemas import DataInfoView, DatasetView
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.pagination import Page, decode_cursor, encode_cursor
from mlhf_service.kit.problems import Invalid, NotFound, Problem
from mlhf_service.storage.protocol import Storage


def page(context: Context, limit: int, cursor: str | None) -> Page[DatasetView]:
    """Built-in data sets, then uploads, the newest first."""
    after = decode_cursor(cursor, [str])[0] if cursor is not None else None
    names = BUILTIN if after is None else ()
    if after in BUILTIN:
        names = BUILTIN[BUILTIN.index(after) + 1 :]
    views = [_builtin(context, name) for name in names[:limit]]
    rows = repository.newest(
        context.session, None if names or after in BUILTIN else after, limit + 1
    )
    room = limit - len(views)
    views += [_uploaded(row, in_list=True) for row in rows[:room]]
    more = len(names) > limit or len(rows) > room
    return Page(data=views, next_cursor=encode_cursor([views[-1].id]) if more else None)


def find(context: Context, dataset_id: str) -> DatasetView:
    if dataset_id in BUILTIN:
        return _builtin(context, dataset_id)
    return _uploaded(_row(context.session, dataset_id))


def called(context: Context, dataset: DatasetView) -> str:
    """What a job calls a data set: its name, or its id where the name is another's too."""
    try:
        identity, _ = identify(context, dataset.name)
    except SpecError:
        return dataset.id
    return dataset.name if identity == dataset.id else dataset.id


def parse_params(text: str, format: str) -> dict[str, Any]:
    """The parameters of an upload, checked, as they are stored."""
    try:
        params = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise Invalid.at("/params", "must be a JSON object") from None
    if not isinstance(params, dict):
        raise Invalid.at("/params", "must be a JSON object")
    try:
        checked = specs.DATASETS.parse(format, params)
        parsed: dict[str, Any] = checked.model_dump(mode="json", exclude_unset=True)
        if "\0" in str(parsed):
            raise Invalid.at("/params", "must hold no NUL characters")
        json.dumps(parsed, ensure_ascii=False).encode()  # no lone surrogates
    except SpecError as error:
        raise _invalid(error) from None
    except UnicodeEncodeError:
        raise Invalid.at("/params", "must be valid Unicode") from None
    return parsed


def check(
    folder: Path,
    name: str,
    format: str,
    params: dict[str, Any],
    bounds: Bounds,
    left_out: Sequence[str] = (),
    progress: Progress | None = None,
) -> Dataset:
    """Read all of an upload once, and describe it as a row (not yet stored).

    Args:
        bounds: What the check may take.
        left_out: Names of files that were not kept, for the report.
        progress: Called now and then with how many samples of how many are checked.

    Raises:
        Invalid: at ``file`` or ``params``.
    """
    try:
        found = examine(format, params, folder, bounds, progress)
    except SpecError as error:
        raise _invalid(error) from None
    except DataError as error:
        raise Invalid.at("/file", str(error).replace(f"{folder}/", "")) from None
    dataset_id = new_id("ds")
    ignored = listed([*left_out, *found.report["ignored"]], "files")
    return Dataset(
        id=dataset_id,
        name=name,
        format=format,
        params=found.params,
        info=found.info,
        report={**found.report, "ignored": ignored},
        sha256=found.sha256,
        size=uploads.size_of(folder),
        storage_key=f"datasets/{dataset_id}",
        created_at=now(),
    )


def store(
    session: Session,
    storage: Storage,
    folder: Path,
    dataset: Dataset,
    owner: Caller | None = None,
) -> DatasetView:
    """Move the files to where runs read them, and add the row as ``owner``'s."""
    owner = owner or Caller()
    dataset.tenant, dataset.key_id = owner.tenant, owner.key_id
    storage.put_folder(dataset.storage_key, folder)
    session.add(dataset)
    session.flush()
    return _uploaded(dataset)


def _invalid(error: SpecError) -> Problem:
    """The error with the form's field as its place."""
    pointer = error.pointer if error.pointer.startswith("/params") else "/format"
    return Invalid.at(pointer, error.message)


def _row(session: Session, dataset_id: str) -> Dataset:
    dataset = None
    if UPLOADED.fullmatch(dataset_id):
        dataset = repository.get(session, dataset_id)
    if dataset is None:
        raise NotFound("There is no data set of this id.")
    if dataset.deleted_at is not None:
        raise NotFound("This data set was deleted.")
    return dataset


def _builtin(context: Context, name: str) -> DatasetView:
    spec = specs.DATASETS[name]
    info, reason = None, None
    try:
        info = DataInfoView(**resolve_dataset(context, name, {}).info.to_dict())
        require_worker(context, name)
    except SpecError as error:
        reason = error.message
    return DatasetView(
        id=name,
        name=name,
        source="builtin",
        format=name,
        description=spec.description,
        available=reason is None,
        reason=reason,
        params={},
        params_schema=spec.params.model_json_schema(),
        info=info,
        sha256=None,
        size=None,
        created_at=None,
    )


def _uploaded(dataset: Dataset, in_list: bool = False) -> DatasetView:
    spec = specs.DATASETS[dataset.format]
    return DatasetView(
        id=dataset.id,
        name=dataset.name,
        source="uploaded",
        format=dataset.format,
        description=spec.description,
        available=True,
        reason=None,
        params=dataset.params,
        params_schema=spec.params.model_json_schema(),
        info=DataInfoView(**dataset.info),
        report=None if in_list or dataset.report is None else Report(**dataset.report),
        sha256=dataset.sha256,
        size=dataset.size,
        created_at=dataset.created_at,
    )
