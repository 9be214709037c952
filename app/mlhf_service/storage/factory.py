"""The store that the settings name."""

from pathlib import Path

from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from mlhf_service.storage.local_cache import LocalCache
from mlhf_service.storage.protocol import Storage


def open_storage(settings: Settings) -> Storage:
    """Open the folder or the bucket of a deployment.

    Nothing is asked of a bucket yet: ``Storage.check`` says whether it can be used.
    """
    if settings.artifacts.startswith("s3://"):
        # Imported where it is used: it takes a while, and most have a folder.
        from mlhf_service.storage.s3 import S3Storage

        cache = LocalCache(settings.artifact_cache_dir, settings.artifact_cache_bytes)
        return S3Storage(settings.artifacts, cache)
    return FolderStorage(Path(settings.artifacts))
