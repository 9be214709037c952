"""What a piece of work is done with: one transaction, the settings and the stored files."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage


@dataclass(frozen=True)
class Context:
    """Passed down from whoever opened the session, who alone commits it."""

    session: Session
    settings: Settings
    storage: FolderStorage
