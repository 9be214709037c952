"""Have a model predict: its files are put where its process finds them."""

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.orm import Session

from mlhf_service.kit.problems import Conflict, Invalid, NotFound
from mlhf_service.predictions.process import PredictorProcess
from mlhf_service.runs import repository as runs
from mlhf_service.settings import Settings
from mlhf_service.storage.protocol import Storage

FileFormat = Literal["csv", "parquet", "npz"]
ExportFormat = Literal["onnx", "pt2"]
MODEL_FILES = ("model.json", "model.safetensors")
MOST_ROWS = 10_000  # in a body
MOST_FILE_ROWS = 1_000_000
_KEPT_MODELS = 64


class Predictors:
    """A bounded number of processes; a model always asks the same one, which has it loaded."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._processes = [PredictorProcess(settings) for _ in range(settings.predictors)]
        self._placing = threading.Lock()

    def ask(self, run_id: str, request: dict[str, Any]) -> dict[str, Any]:
        """Raises Invalid, Unavailable, and Conflict where there are no predictors."""
        if not self._processes:
            raise Conflict("Predictions are switched off here (MLHF_PREDICTORS=0).")
        return self._processes[hash(run_id) % len(self._processes)].ask(request)

    def stop(self) -> None:
        for process in self._processes:
            process.stop()

    def stop_idle(self) -> None:
        """End processes that nobody has asked for a while."""
        for process in self._processes:
            process.stop_if_idle(self._settings.predictor_idle_seconds)

    def place(self, session: Session, storage: Storage, run_id: str) -> Path:
        """A folder with the model's files. Raises NotFound and Conflict."""
        run = runs.get(session, run_id)
        if run is None:
            raise NotFound("There is no run of this id.")
        found = {name: runs.artifact(session, run_id, name) for name in MODEL_FILES}
        if any(artifact is None for artifact in found.values()):
            raise Conflict(f"The run has left no model: it is {run.status}.")
        digest = "-".join(a.sha256[:16] for a in found.values() if a is not None)
        folder = self._settings.predictor_dir / f"{run_id}-{digest}"
        with self._placing:
            if not (folder / MODEL_FILES[-1]).exists():
                self._make_room()
                folder.mkdir(parents=True, exist_ok=True)
                for name, artifact in found.items():
                    if artifact is not None:
                        shutil.copyfile(storage.local(artifact.storage_key), folder / name)
        return folder

    def _make_room(self) -> None:
        kept = sorted(self._settings.predictor_dir.glob("run_*"), key=lambda f: f.stat().st_mtime)
        for folder in kept[: max(0, len(kept) - _KEPT_MODELS + 1)]:
            shutil.rmtree(folder, ignore_errors=True)


def check_rows(rows: Sequence[Any]) -> None:
    """Raises Invalid for no rows, or too many."""
    if not rows:
        raise Invalid.at("/rows", "must hold at least one row")
    if len(rows) > MOST_ROWS:
        raise Invalid.at("/rows", f"at most {MOST_ROWS:,} rows; send more as a file")
