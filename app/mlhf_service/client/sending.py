"""What the client sends: data sets, networks, meta-checkpoints."""

import json
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from mlhf_service.client import networks
from mlhf_service.client.errors import Json
from mlhf_service.client.records import Dataset
from mlhf_service.client.uploads import OnUpload, Upload, files_of, format_of, name_of

_UPLOAD_SECONDS = 300.0


class Sending(ABC):
    """The part of ``Client`` that sends files."""

    @abstractmethod
    def get(self, path: str, **params: Any) -> Any: ...

    @abstractmethod
    def request_json(self, method: str, path: str, **options: Any) -> Any: ...

    def upload(
        self,
        source: Any,
        name: str | None = None,
        format: str | None = None,
        on_progress: OnUpload | None = None,
        **params: Any,
    ) -> Dataset:
        """Upload a data set.

        Args:
            source: A file's path, several paths, or a DataFrame.
            name: What to call it; the file's name when absent.
            format: ``npz``, ``image_folder``, ``coco``, ``hf_images``, ``table`` or ``text``; by
                the file's name when absent (a .zip is an ``image_folder``).
            params: Parameters of the format, such as ``target="price"`` of a table.
        """
        with tempfile.TemporaryDirectory() as scratch:
            files = files_of(source, Path(scratch))
            called = name or name_of(source, files)
            return self.upload_files(called, format or format_of(files), files, params, on_progress)

    def upload_files(
        self,
        name: str,
        format: str,
        files: list[Path],
        params: Json,
        on_progress: OnUpload | None = None,
    ) -> Dataset:
        """Upload a data set from files, all given.

        Args:
            on_progress: Called with a stage (``sending``, ``unpacking``, ``checking``,
                ``storing``), how much of it is done, and of how much: bytes while it is sent,
                samples while it is checked. 0 of 0 where that is not known.
        """
        data = {"name": name, "format": format, "params": json.dumps(params)}
        with Upload(files, self.get, on_progress) as upload:
            data |= upload.fields
            return Dataset(
                self.request_json(
                    "POST", "/v1/datasets", data=data, files=upload.parts, timeout=600.0
                )
            )

    def upload_meta_checkpoint(self, name: str, path: Path) -> Json:
        """Upload a meta-checkpoint that a meta_train job made."""
        with path.open("rb") as file:
            meta_checkpoint: Json = self.request_json(
                "POST", "/v1/meta-checkpoints", data={"name": name}, files={"file": file}
            )
        return meta_checkpoint

    def upload_network(self, model: Any, example: Any = None, name: str | None = None) -> Json:
        """Upload a module as data; nothing of its code travels.

        Args:
            model: A ``torch.nn.Module``, or what ``mlhf.trace`` made of one.
            example: A batch of inputs for the module (see ``mlhf.trace``).
            name: What it is called; the module's class when absent.

        Returns:
            Its ``id``, which a job names as ``{"name": "graph", "params": {"network": id}}``,
            and its sizes.

        Raises:
            TraceError: the module cannot be written as a graph; says where, and what to write
                instead.
        """
        files = networks.form(networks.traced(model, example))
        data = {"name": name or type(model).__name__}
        made: Json = self.request_json(
            "POST", "/v1/networks", data=data, files=files, timeout=_UPLOAD_SECONDS
        )
        return made
