"""What the client fetches: files of runs, trained networks, tables of ablations."""

import tempfile
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from mlhf_service.client.downloads import MODEL_FILES, Download
from mlhf_service.client.errors import Json, ServiceError, refusal
from mlhf_service.client.exchange import part
from mlhf_service.client.operations import What
from mlhf_service.client.records import Record, identity

if TYPE_CHECKING:
    from mlhf import LoadedModel


class Receiving(ABC):
    """The part of ``Client`` that fetches files."""

    @abstractmethod
    def get(self, path: str, **params: Any) -> Any: ...

    @abstractmethod
    def request(self, method: str, path: str, **options: Any) -> httpx.Response: ...

    @abstractmethod
    def stream(self, path: str) -> AbstractContextManager[httpx.Response]:
        """A response whose body is read as it comes."""

    def ablation(self, job: What) -> Json:
        """The table of a job of kind ``ablation``, of those of its runs that have ended."""
        table: Json = self.get("/v1/ablations", job=identity(job))
        return table

    def ablation_file(self, job: What, format: str) -> bytes:
        """That table as ``csv`` or ``md``, or its figure as ``png``."""
        params = {"job": identity(job), "format": format}
        return self.request("GET", "/v1/ablations", params=params).content

    def artifacts(self, run: What) -> list[Record]:
        """The files of a run."""
        found = self.get(f"/v1/runs/{part(identity(run))}/artifacts")
        return [Record(one) for one in found["data"]]

    def download(self, run: What, name: str, target: str | Path) -> Path:
        """Download one artifact of a run to ``target``."""
        path = f"/v1/runs/{part(identity(run))}/artifacts/{part(name)}"
        return self.download_file(path, Path(target))

    def download_file(self, path: str, target: Path) -> Path:
        """Download a file to ``target``, whole or not at all, its SHA-256 checked."""
        try:
            with (
                Download(target) as download,
                self.stream(path) as response,
            ):
                if response.is_error:
                    response.read()
                    raise refusal(response)
                for chunk in response.iter_bytes():
                    download.write(chunk)
                return download.finish(response.headers.get("etag", ""))
        except httpx.HTTPError as error:
            raise ServiceError(f"the download of {target.name} was interrupted: {error}") from None

    def load_model(self, run: What, folder: str | Path | None = None) -> "LoadedModel":
        """Download the trained network of a run, and rebuild it; needs torch.

        Args:
            folder: Where its two files are kept; nowhere when absent.
        """
        from mlhf import load_model

        with tempfile.TemporaryDirectory() as scratch:
            place = Path(folder or scratch)
            for name in MODEL_FILES:
                self.download(run, name, place / name)
            return load_model(place)
