"""Predictions: in a process of their own, by JSON and by file."""

import io
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from mlhf.core.config import Component
from mlhf.data.info import DataInfo
from mlhf_service.client import Client
from mlhf_service.predictions.process import PredictorProcess
from mlhf_service.settings import Settings
from tests.waiting import DEADLINE

ROWS = [[0.0, 1.0], [2.0, -1.0], [0.5, 0.5]]


@pytest.fixture
def settings(tmp_path: Path, sqlite_template: Path) -> Settings:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mlhf.sqlite3").write_bytes(sqlite_template.read_bytes())
    return Settings(
        _env_file=None, data_dir=tmp_path / "data", predict_seconds=120, datasets_dir=tmp_path
    )


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """A network of two inputs and three named classes, as training leaves it."""
    torch = pytest.importorskip("torch")
    from mlhf.models.build import build
    from mlhf.models.files import load_model, save_model

    info = DataInfo(
        kind="table",
        input_shape=(2,),
        outputs=3,
        task="classification",
        train_samples=8,
        test_samples=8,
        class_names=("iris", "rose", "tulip"),
    )
    folder = tmp_path / "model"
    folder.mkdir()
    spec = Component(name="mlp", params={"hidden": [4]})
    network = build(spec.name, spec.params, info, seed=3)
    with torch.no_grad():
        for weights in network.parameters():
            weights.normal_(generator=torch.Generator().manual_seed(1))
    prepared = {"mean": [1.0, 0.0], "std": [2.0, 1.0]}
    save_model(folder, network, spec, info, prepared, "cross_entropy")
    return load_model(folder), folder


@pytest.fixture
def run_id(rows: Any, model: Any) -> str:
    found: str = rows.run(rows.job())
    for name in ("model.json", "model.safetensors"):
        rows.artifact(found, name, (model[1] / name).read_bytes())
    return found


def ask(client: TestClient, run_id: str, rows: Any) -> Any:
    return client.post(f"/v1/models/{run_id}/predict", json={"rows": rows})


def ask_file(client: TestClient, run_id: str, format: str, content: bytes) -> Any:
    return client.post(
        f"/v1/models/{run_id}/predict-file", data={"format": format}, files={"file": content}
    )


def test_rows_and_files_are_predicted_as_by_the_model_itself(
    client: TestClient, run_id: str, model: Any
) -> None:
    expected = model[0].predict(np.array(ROWS)).tolist()
    names = model[0].predict_names(np.array(ROWS))
    answer = ask(client, run_id, ROWS)
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == expected
    assert answer.json()["names"] == names

    python = Client("http://127.0.0.1")
    python._http.close()
    python._http = client
    assert python.predict(run_id, np.array(ROWS)).labels == names

    wrong = ask(client, run_id, [[1.0]])
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/rows")
    assert ask(client, run_id, [["a", {}]]).status_code == 422
    assert ask(client, run_id, []).status_code == 422

    archive = io.BytesIO()
    np.savez(archive, x=np.array(ROWS))
    filed = ask_file(client, run_id, "npz", archive.getvalue())
    assert filed.status_code == 200, filed.text
    with np.load(io.BytesIO(filed.content)) as arrays:
        assert arrays["prediction"].tolist() == expected
        assert arrays["name"].tolist() == names
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    for format, content in (("npz", pickled.getvalue()), ("parquet", b"no"), ("csv", b"")):
        refused = ask_file(client, run_id, format, content)
        assert (refused.status_code, format) == (422, format)
        assert refused.json()["errors"][0]["pointer"] == "/file"
    left = client.app.state.settings.predictor_dir  # type: ignore[attr-defined]
    assert [path for path in left.iterdir() if not path.name.startswith("run_")] == []


def test_a_network_is_exported(client: TestClient, run_id: str, model: Any, tmp_path: Path) -> None:
    import torch

    answer = client.post(f"/v1/models/{run_id}/export", json={"format": "pt2"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"] == f'attachment; filename="{run_id}.pt2"'
    path = tmp_path / "network.pt2"
    path.write_bytes(answer.content)
    network = torch.export.load(path).module()
    inputs = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(inputs), model[0].module(inputs), atol=1e-6)
    left = list(client.app.state.settings.predictor_dir.glob("export-*"))  # type: ignore[attr-defined]
    assert left == []
    wrong = client.post(f"/v1/models/{run_id}/export", json={"format": "h5"})
    assert wrong.status_code == 422
    assert "'onnx' or 'pt2'" in wrong.json()["detail"]


def test_what_has_no_model_is_said(client: TestClient, rows: Any) -> None:
    assert ask(client, rows.run(rows.job()), ROWS).status_code == 409
    assert ask(client, "run_absent", ROWS).status_code == 404


def test_a_process_that_ends_or_hangs_is_replaced(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlhf_service.kit.problems import Unavailable

    process = PredictorProcess(settings)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Unavailable, match="ended"):
        process.ask({"rows": [1]})
    monkeypatch.undo()
    process.stop()


def test_it_outlives_the_thread_that_started_it_and_not_the_one_who_asks(
    settings: Settings, model: Any
) -> None:
    process = PredictorProcess(settings)
    request = {"folder": str(model[1]), "rows": ROWS}
    first = threading.Thread(target=process.ask, args=(request,))
    first.start()
    first.join()
    child = process._process
    assert child is not None
    with pytest.raises(subprocess.TimeoutExpired):  # a signal would come at once
        child.wait(0.5)
    process.ask(request)
    assert process._process is child
    assert child.stdin is not None
    child.stdin.close()  # as when the API has ended
    assert child.wait(DEADLINE) == 0
    process.stop()


def test_images_are_numbers_and_never_paths() -> None:
    from types import SimpleNamespace

    from mlhf.core.errors import DataError
    from mlhf.predictor import _inputs

    image = SimpleNamespace(info=SimpleNamespace(kind="image"))
    with pytest.raises(DataError, match="numbers"):
        _inputs(image, ["/etc/hostname"])
    assert _inputs(image, [[[1, 2]]]).shape == (1, 1, 2)
