"""A transaction of an endpoint: committed, and only then announced."""

import pytest
from sqlalchemy.exc import IntegrityError

from mlhf_service.api.dependencies import Backend
from mlhf_service.context import Caller
from mlhf_service.database import Database
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage


class Bell:
    """Notes how many committed rows there are each time it is notified."""

    def __init__(self, database: Database) -> None:
        self.database, self.seen = database, list[int]()

    def notify(self) -> None:
        with self.database.read() as session:
            self.seen.append(session.query(Outbox).count())


def test_the_doorbell_is_notified_after_the_commit_and_not_after_a_failure(
    settings: Settings, database: Database, storage: FolderStorage
) -> None:
    bell = Bell(database)
    backend = Backend(settings, database, storage, bell, Caller())
    with backend.write() as context:
        context.session.add(Outbox(queue="cpu"))
        assert bell.seen == []
    assert bell.seen == [1]
    with pytest.raises(IntegrityError), backend.write() as context:
        context.session.add(Outbox(queue=None))
    assert bell.seen == [1]
    with backend.read() as context:
        assert context.session.query(Outbox).count() == 1
