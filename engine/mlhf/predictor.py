"""The process that predicts with trained models: requests and answers are lines of JSON.

A request names a folder with a model's two files, and rows, files, or where to export it to.
Models stay loaded, the last few that were used. An answer is ``{"ok": …}``, or ``{"error": …}`` for
inputs that the model cannot take; the process goes on after that.
"""

import csv
import json
import os
import queue
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlhf.core.confinement import confine
from mlhf.core.errors import DataError

MOST_MODELS = 8
BATCH = 1024


class Predictor:
    """Answers requests, with the models that were used last."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, Any] = OrderedDict()

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request; what is wrong with its inputs is one too."""
        try:
            model = self._model(request["folder"])
            if "export" in request:
                return {"ok": {"bytes": model.export(request["export"]).stat().st_size}}
            if "rows" in request:
                return {"ok": _predict(model, request["rows"])}
            return {"ok": _predict_file(model, request)}
        except DataError as error:
            return {"error": str(error)}
        except MemoryError:
            return {"error": "the inputs need more memory than a prediction may take: send fewer"}
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            return {"error": f"the inputs do not fit the model: {str(error)[:300]}"}

    def _model(self, folder: str) -> Any:
        from mlhf.models.files import load_model

        if folder not in self._models:
            self._models[folder] = load_model(folder)
            while len(self._models) > MOST_MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(folder)
        return self._models[folder]


def _predict(model: Any, rows: list[Any]) -> dict[str, Any]:
    """Predictions of rows as JSON gives them, with names where the classes have some."""
    info = model.info
    predictions = _listed(model.predict(_inputs(model, rows)))
    found: dict[str, Any] = {"task": info.task, "predictions": predictions}
    if info.task == "classification" and info.class_names and not info.target_positions:
        found["names"] = [info.class_names[label] for label in predictions]
    return found


def _listed(predicted: Any) -> list[Any]:
    """Predictions as JSON values, one a sample."""
    if isinstance(predicted, list):  # boxes
        return [{name: each.tolist() for name, each in one.items()} for one in predicted]
    if isinstance(predicted, Mapping):  # several heads
        columns = {name: each.tolist() for name, each in predicted.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    values: list[Any] = predicted.tolist()
    return values


def _inputs(model: Any, rows: Any) -> Any:
    """Rows as ``predict`` takes them. A text is never a path here."""
    import numpy as np

    if model.info.kind != "image":
        return rows
    try:
        return np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("images must be nested lists of numbers, all of one size") from None


def _predict_file(model: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Predict all rows of a file, some at a time, and write the predictions to another."""
    source, target, form = Path(request["input"]), Path(request["output"]), request["format"]
    if model.info.task in ("heads", "detection"):
        raise DataError(f"a file has no place for predictions of {model.info.task}: send rows")
    if model.info.target_positions and form != "npz":
        raise DataError("predictions for each pixel or step go into an .npz file")
    most, count = int(request["most_rows"]), 0
    predictions: list[Any] = []
    names: list[str] = []
    for rows in _batches(source, form):
        count += len(rows)
        if count > most:
            raise DataError(f"more than {most:,} rows: send several files")
        found = _predict(model, rows)
        predictions += found["predictions"]
        names += found.get("names", [])
    if not count:
        raise DataError("the file has no rows")
    _write(target, form, predictions, names)
    return {"rows": count}


def _batches(source: Path, form: str) -> Iterator[Any]:
    if form == "csv":
        with source.open(newline="", encoding="utf-8-sig") as file:
            batch: list[dict[str, Any]] = []
            try:
                for row in csv.DictReader(file):
                    batch.append(row)
                    if len(batch) == BATCH:
                        yield batch
                        batch = []
            except (csv.Error, UnicodeDecodeError) as error:
                raise DataError(f"no CSV: {error}") from None
            if batch:
                yield batch
    elif form == "parquet":
        import pyarrow.parquet as parquet
        from pyarrow import ArrowException

        try:
            for part in parquet.ParquetFile(source).iter_batches(BATCH):
                yield part.to_pylist()
        except (ArrowException, OSError) as error:
            raise DataError(f"no Parquet: {str(error)[:200]}") from None
    else:
        yield from _arrays(source)


def _arrays(source: Path) -> Iterator[Any]:
    from zipfile import BadZipFile

    import numpy as np

    try:
        with np.load(source, allow_pickle=False) as arrays:
            name = next((n for n in ("x", "x_test") if n in arrays.files), None)
            if name is None:
                raise DataError(f"no array named x or x_test; there are {arrays.files[:8]}")
            inputs = arrays[name]
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"no NumPy archive: {str(error)[:200]}") from None
    if inputs.ndim == 0:
        raise DataError("x is one number, and no rows")
    for at in range(0, len(inputs), BATCH):
        yield inputs[at : at + BATCH]


def _write(target: Path, form: str, predictions: list[Any], names: list[str]) -> None:
    if form == "npz":
        import numpy as np

        arrays: dict[str, Any] = {"prediction": np.asarray(predictions)}
        if names:
            arrays["name"] = np.asarray(names)
        with target.open("wb") as file:
            np.savez(file, **arrays)
        return
    columns = _columns(predictions) | ({"name": names} if names else {})
    if form == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as parquet

        parquet.write_table(pa.table(columns), target)
        return
    with target.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _columns(predictions: list[Any]) -> dict[str, list[Any]]:
    if not isinstance(predictions[0], list):
        return {"prediction": predictions}
    if len(predictions[0]) == 1:
        return {"prediction": [row[0] for row in predictions]}
    width = range(len(predictions[0]))
    return {f"prediction_{i}": [row[i] for row in predictions] for i in width}


def main() -> None:
    """Answer requests until the input ends. The first line says what it is confined to."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    wanted = json.loads(sys.stdin.readline())
    import torch

    torch.set_num_threads(int(wanted["threads"]))
    confine(wanted["confinement"], [Path(wanted["folder"])])
    questions: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(questions,), daemon=True).start()
    predictor = Predictor()
    while True:
        answers.write(json.dumps(predictor.answer(json.loads(questions.get()))) + "\n")
        answers.flush()


def _read(questions: "queue.SimpleQueue[str]") -> None:
    """Pass requests on; end the process, whatever it is at, when whoever asks has ended.

    Not by a signal at the parent's death: the kernel sends that when the *thread* ends that
    started this process, and threads that serve requests come and go.
    """
    for line in sys.stdin:
        questions.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
