"""A file that is written whole or not at all, its SHA-256 checked."""

import hashlib
import os
from pathlib import Path

from mlhf_service.client.errors import ServiceError

MODEL_FILES = ("model.json", "model.safetensors")  # what mlhf.load_model reads


class Download:
    """Writes beside ``target``, and puts the file there once it is whole."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._partial = target.with_name(target.name + ".part")
        self._digest = hashlib.sha256()

    def __enter__(self) -> "Download":
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self._file.write(chunk)

    def finish(self, etag: str) -> Path:
        """Put the file in its place. Raises ServiceError if it is not what the ETag says."""
        self._file.close()
        expected = etag.strip('"')
        # A weak ETag names a version, and not the bytes.
        if expected and not etag.startswith("W/") and expected != self._digest.hexdigest():
            raise ServiceError(
                f"{self._target.name} arrived damaged (SHA-256 differs). Download it again."
            )
        os.replace(self._partial, self._target)
        return self._target
