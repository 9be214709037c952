"""From a data set's name to what reads it: used where jobs are checked and where they run."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from mlhf.core.errors import DataError, SpecError
from mlhf.core.explain import unknown
from mlhf.core.optional import MissingPackageError
from mlhf.data.specs import (
    DATASETS,
    DataInfo,
    describe,
)
from mlhf_service.context import Context
from mlhf_service.datasets import repository
from mlhf_service.kit.text import is_plain
from mlhf_service.settings import Settings

_NAMED = 5  # data sets in a message
UPLOADED = re.compile(r"ds_[0-9a-z]{26}")
BUILTIN = tuple(spec.name for spec in DATASETS.values() if spec.builtin)


@dataclass(frozen=True)
class ResolvedDataset:
    """A data set that is here and whose parameters fit it.

    Attributes:
        family: The entry of ``mlhf.data.specs`` that reads it.
        params: The family's parameters, those of an upload overlaid by the user's.
        files: Gives the folder of its files on this machine, copied here first where they lie
            in a bucket; None if a library holds them.
        info: Shapes and sizes under these parameters.
        sha256: Of the content, where known without reading it (uploads).
    """

    family: str
    params: dict[str, Any]
    files: Callable[[], Path | None]
    info: DataInfo
    sha256: str | None


def identify(context: Context, name: str) -> tuple[str, str]:
    """A data set's fixed name, and what people call it: an upload is found by id or by name.

    Raises:
        SpecError: At ``/name``: there is none of this name, or more than one.
    """
    if name in BUILTIN:
        return name, name
    if UPLOADED.fullmatch(name):
        stored = repository.get(context.session, name)
        return name, stored.name if stored else name
    found = repository.named(context.session, name) if is_plain(name) else []
    if len(found) > 1:
        ids = ", ".join(f"{each.id} of {each.created_at:%Y-%m-%d %H:%M}" for each in found[:_NAMED])
        more = ", …" if len(found) > _NAMED else ""
        raise SpecError(
            "/name", f"{len(found)} data sets are called {name!r}: name one by its id ({ids}{more})"
        )
    if not found:
        raise SpecError("/name", _unknown(context, name))
    return found[0].id, found[0].name


def resolve_dataset(context: Context, name: str, params: dict[str, Any]) -> ResolvedDataset:
    """Find the data set ``name``: a built-in, or the id or the name of an upload.

    Raises:
        SpecError: At ``/name`` (unknown, deleted, not installed here) or ``/params/…``.
    """
    name, _ = identify(context, name)
    stored, missing = None, None
    files: Callable[[], Path | None]
    if name in BUILTIN:
        family, files = name, partial(builtin_root, context.settings, name)
        if files() is None and DATASETS[name].needs_root:
            missing = not_installed(context.settings, name)
    else:
        stored = repository.get(context.session, name, "share")
        if stored is None:
            raise SpecError("/name", f"there is no data set {name}.")
        if stored.deleted_at is not None:
            raise SpecError("/name", f"the data set {name} was deleted; upload it again.")
        family, files = stored.format, partial(context.storage.local_folder, stored.storage_key)
        params = {**stored.params, **params}
        if not context.storage.has_folder(stored.storage_key):
            missing = f"the files of the data set {name} are gone; upload it again."
    parsed = DATASETS.parse(family, params).model_dump(mode="json", exclude_unset=True)
    if missing is not None:
        raise SpecError("/name", missing)
    if stored is not None and parsed == stored.params:
        info = DataInfo.from_dict(stored.info)
    else:
        info = _describe(family, parsed, files())
    return ResolvedDataset(family, parsed, files, info, stored.sha256 if stored else None)


def builtin_root(settings: Settings, name: str) -> Path | None:
    """The folder of a built-in data set's files, if there is one."""
    root = settings.datasets_root / name
    return root if root.is_dir() else None


def not_installed(settings: Settings, name: str) -> str:
    """How to install a built-in data set that is not here.

    Who asks without a key sits at this machine, and is told the folder; others see no path.
    """
    if settings.auth == "off":
        where = f"{settings.datasets_root / name} (MLHF_DATASETS_DIR names another folder"
    else:
        where = f"a folder named {name!r} in the folder that MLHF_DATASETS_DIR names ("
        where += "the server's"
    return (
        f"{name} is not installed here: put its files into {where}). It is to be the same for "
        "the API and all workers."
    )


def _unknown(context: Context, name: str) -> str:
    if name in DATASETS:
        return f"{name} is a format: upload a data set in it, and name that by its name or id."
    known = [*BUILTIN, *repository.names(context.session)]
    return f"{unknown('data set', name, known)}, and the ids of uploads (ds_…)."


def _describe(family: str, params: dict[str, Any], root: Path | None) -> DataInfo:
    changed = None if root is None else root.stat().st_mtime_ns
    try:
        return _described(family, json.dumps(params, sort_keys=True), root, changed)
    except DataError as error:
        text = str(error).replace(f"{root}/", "")  # clients are not shown paths of the server
        raise SpecError("/name", f"the data set cannot be read: {text}") from None
    except MissingPackageError as error:
        raise SpecError("/name", f"the data set cannot be read here. {error}") from None
    except OSError as error:
        raise SpecError("/name", f"the data set cannot be read: {error.strerror}") from None


@lru_cache(maxsize=1024)
def _described(family: str, params: str, root: Path | None, changed: int | None) -> DataInfo:
    """Describe once for as long as the folder's entries stay the same; errors are not kept."""
    return describe(family, json.loads(params), root)
