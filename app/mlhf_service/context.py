"""One transaction together with the settings and the stored files."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage


@dataclass(frozen=True)
class Context:
    """Passed down by the code that opened the session; only that code commits it."""

    session: Session
    settings: Settings
    storage: FolderStorage
