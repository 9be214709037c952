"""Jobs made as the API makes them, for what happens behind it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mlhf_service.context import Context
from mlhf_service.database import Database
from mlhf_service.jobs import service
from mlhf_service.jobs.kinds.registry import parse
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from tests.app.queue.worker import Service, trainers

Submit = Callable[..., str]


@pytest.fixture
def submit(settings: Settings, database: Database, storage: FolderStorage) -> Submit:
    """Create a small job; returns its id."""

    def make(**changes: Any) -> str:
        spec = {
            "kind": "train",
            "model": {"name": "mlp", "params": {"hidden": [16]}},
            "dataset": {"name": "digits"},
            "budget": {"epochs": 2},
            "batch_size": 64,
            **changes,
        }
        if spec["kind"] == "train":
            spec.setdefault("optimizer", {"name": "adam"})
        with database.write() as session:
            return service.create(Context(session, settings, storage), parse(spec)).id

    return make


@pytest.fixture
def worker(settings: Settings, database: Database, storage: FolderStorage) -> Iterator[Service]:
    """A worker with short times; no trainer may outlive the test."""
    short = {
        "checkpoint_seconds": 0.05,
        "heartbeat_seconds": 0.2,
        "threads": 1,
        "grace_seconds": 10.0,
    }
    yield Service(settings.model_copy(update=short), database, storage)
    assert trainers() == []
