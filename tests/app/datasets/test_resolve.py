"""From names to data: what job checks and workers rely on."""

import time
from typing import Any

import pytest

from mlhf.core.errors import SpecError
from mlhf_service.context import Context
from mlhf_service.database import Database, now
from mlhf_service.datasets.models import Dataset
from mlhf_service.datasets.resolve import identify, resolve_dataset
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage


@pytest.fixture
def resolved(database: Database, settings: Settings, storage: FolderStorage) -> Any:
    def call(name: str, params: dict[str, Any]) -> Any:
        with database.read() as session:
            return resolve_dataset(Context(session, settings, storage), name, params)

    return call


def test_a_builtin(resolved: Any) -> None:
    found = resolved("digits", {"train_samples": 100})
    assert (found.family, found.params, found.files()) == ("digits", {"train_samples": 100}, None)
    assert found.info.train_samples == 100
    assert found.info.outputs == 10


@pytest.mark.parametrize(
    ("name", "params", "pointer", "said"),
    [
        ("digit", {}, "/name", "digits"),
        ("a\0b", {}, "/name", "unknown"),
        ("\ud800", {}, "/name", "unknown"),
        ("ds_" + "0" * 26, {}, "/name", "no data set"),
        ("table", {}, "/name", "upload"),
        ("mnist", {}, "/name", "MLHF_DATASETS_DIR"),
        ("digits", {"train_samples": 0}, "/params/train_samples", "greater"),
        ("digits", {"train_samples": 10**9}, "/params/train_samples", "holds only"),
        ("digits", {"sise": 3}, "/params/sise", "unknown field"),
    ],
)
def test_errors_point_to_the_mistake(
    resolved: Any, name: str, params: dict[str, Any], pointer: str, said: str
) -> None:
    with pytest.raises(SpecError, match=said) as found:
        resolved(name, params)
    assert found.value.pointer == pointer


def test_asking_again_is_fast(resolved: Any) -> None:
    resolved("digits", {})
    began = time.perf_counter()
    for _ in range(20):
        resolved("digits", {})
    assert (time.perf_counter() - began) / 20 < 0.01


def test_an_upload_is_found_by_its_name(
    database: Database, settings: Settings, storage: FolderStorage
) -> None:
    with database.write() as session:
        _named(Context(session, settings, storage))


def _named(context: Context) -> None:
    for number, name in enumerate(("flowers", "twice", "twice")):
        context.session.add(
            Dataset(
                id=f"ds_{number:026}",
                name=name,
                format="table",
                params={},
                info={},
                sha256="0" * 64,
                size=1,
                storage_key="x",
                created_at=now(),
            )
        )
    context.session.flush()
    assert identify(context, "flowers") == ("ds_" + 26 * "0", "flowers")
    assert identify(context, "digits") == ("digits", "digits")
    with pytest.raises(SpecError, match="2 data sets are called 'twice': name one by its id"):
        identify(context, "twice")
    with pytest.raises(SpecError, match="did you mean 'flowers'"):
        identify(context, "flwoers")
