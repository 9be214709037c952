"""Data sets over HTTP: uploads of each format, bad ones, lists, deletion."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy import func, select

from mlhf.core.errors import SpecError
from mlhf.data import specs
from mlhf_service.context import Context
from mlhf_service.database import Database
from mlhf_service.datasets import progress, service
from mlhf_service.datasets.models import Dataset
from mlhf_service.datasets.resolve import resolve_dataset
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage

RNG = np.random.default_rng(0)
CSV = b"a,b,label\n" + b"".join(
    b"%d,%f,%s\n" % (i, i / 7, b"xy"[i % 2 : i % 2 + 1]) for i in range(30)
)


def _npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _png(shade: int = 0, size: int = 9) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), (shade, 0, 0)).save(out, "PNG")
    return out.getvalue()


def _folder_zip(**extra: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for split, count in (("train", 4), ("val", 2)):
            for label in ("cat", "dog"):
                for i in range(count):
                    archive.writestr(f"{split}/{label}/{i}.png", _png(i))
        for name, content in extra.items():
            archive.writestr(name, content)
    return out.getvalue()


def _hf(count: int = 6) -> bytes:
    images = [{"bytes": _png(i), "path": f"{i}.png"} for i in range(count)]
    table = pa.table({"image": images, "label": [i % 2 for i in range(count)]})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _table_parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"a": np.arange(30.0), "y": np.arange(30.0) ** 2}), out)
    return out.getvalue()


NPZ = _npz(x=RNG.standard_normal((20, 5)), y=np.arange(20) % 3)
GOOD: dict[str, tuple[str, list[tuple[str, bytes]], dict[str, Any], dict[str, Any]]] = {
    "npz": (
        "npz",
        [("d.npz", NPZ)],
        {"test_fraction": 0.25},
        {"kind": "table", "input_shape": [5], "outputs": 3, "train_samples": 15},
    ),
    "images": (
        "image_folder",
        [("d.zip", _folder_zip())],
        {"size": 8},
        {
            "kind": "image",
            "input_shape": [3, 8, 8],
            "class_names": ["cat", "dog"],
            "train_samples": 8,
            "test_samples": 4,
        },
    ),
    "hf": (
        "hf_images",
        [("train-0.parquet", _hf(6)), ("test-0.parquet", _hf(4))],
        {"size": 8},
        {"kind": "image", "train_samples": 6, "test_samples": 4},
    ),
    "csv": (
        "table",
        [("d.csv", CSV)],
        {"target": "label"},
        {"kind": "table", "task": "classification", "outputs": 2},
    ),
    "parquet": (
        "table",
        [("d", _table_parquet())],
        {"target": "y"},
        {"kind": "table", "task": "regression", "outputs": 1},
    ),
    "text": (
        "text",
        [("../../t.sh", "wörter, Wörter. ".encode() * 40)],
        {"sequence_length": 8},
        {"kind": "text", "input_shape": [8]},
    ),
}


def _post(
    client: TestClient, format: str, files: list[tuple[str, bytes]], params: Any = None
) -> Any:
    data = {"name": "mine", "format": format}
    if params is not None:
        data["params"] = params if isinstance(params, str) else json.dumps(params)
    return client.post("/v1/datasets", data=data, files=[("file", f) for f in files])


@pytest.fixture(autouse=True)
def nothing_is_left_over(settings: Settings) -> Any:
    yield
    assert not list((settings.root / "uploads").glob("*"))


@pytest.mark.parametrize("case", GOOD)
def test_upload_then_use(
    case: str, client: TestClient, database: Database, settings: Settings, storage: FolderStorage
) -> None:
    format, files, params, info = GOOD[case]
    response = _post(client, format, files, params)
    assert response.status_code == 201, response.text
    body = response.json()
    assert response.headers["location"] == f"/v1/datasets/{body['id']}"
    assert body["source"] == "uploaded"
    channels = {"channels": 3} if case in ("images", "hf") else {}  # decided by the files
    assert body["params"] == {**params, **channels}
    assert info.items() <= body["info"].items()
    assert client.get(f"/v1/datasets/{body['id']}").json() == body

    with database.read() as session:
        resolved = resolve_dataset(
            Context(session, settings, storage), body["id"], {"train_samples": 2}
        )
        assert resolved.family == format
        assert resolved.params == {**params, **channels, "train_samples": 2}
        assert resolved.info.train_samples == 2
        assert resolved.sha256 == body["sha256"]
        folder = resolved.files()
        assert folder is not None
        assert folder.is_dir()
        assert settings.root in folder.parents


def test_the_answer_says_what_was_understood(client: TestClient) -> None:
    table = b"price;kind;y\n" + b"".join(b"%d,5;x;%d\n" % (i, i % 2) for i in range(20))
    body = _post(client, "table", [("t.csv", table)], {"target": "y", "ignore": ["kind"]}).json()
    report = body["report"]
    columns = {c["name"]: (c["role"], c["type"]) for c in report["columns"]}
    assert columns == {"price": ("input", "number"), "y": ("target", "class")}
    assert report["label"] == "y"
    assert sum(c["train"] + c["test"] for c in report["classes"]) == 20
    assert [s["samples"] for s in report["splits"]] == [16, 4]
    assert report["ignored"] == ["column kind"]
    assert "price: numbers written with decimal mark ','" in report["converted"][0]
    assert report["sample"][0] == {"price": 0.5, "y": 0}
    assert client.get(f"/v1/datasets/{body['id']}").json() == body
    listed = client.get("/v1/datasets").json()["data"]
    assert all(dataset["report"] is None for dataset in listed)


def test_what_is_no_image_is_left_out_and_named(client: TestClient) -> None:
    content = _folder_zip(
        **{"README.txt": b"no", "train/cat/x.py": b"no", "test/cat/1.png": _png()}
    )
    body = _post(client, "image_folder", [("a.zip", content)]).json()
    assert body["info"]["input_shape"] == [3, 9, 9]
    assert body["params"] == {"size": 9, "channels": 3}
    assert body["report"]["ignored"][:2] == ["README.txt", "train/cat/x.py"]
    assert body["report"]["ignored"][2].startswith("test/: 1 files")
    assert [s["source"] for s in body["report"]["splits"]] == ["train/<class>/", "val/<class>/"]


def test_the_digest_is_of_the_content(client: TestClient) -> None:
    first, second = (_post(client, "npz", [(name, NPZ)]).json() for name in ("a.npz", "b.npz"))
    assert first["id"] != second["id"]
    assert first["sha256"] == second["sha256"]
    other = _npz(x=RNG.standard_normal((20, 5)), y=np.arange(20) % 3)
    assert _post(client, "npz", [("a.npz", other)]).json()["sha256"] != first["sha256"]
    assert len(hashlib.sha256().hexdigest()) == len(first["sha256"])


class _Evil:
    def __reduce__(self) -> Any:
        return (Path("/tmp/mlhf-pickle-was-run").touch, ())


def _bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/cat/0.png", bytes(80 * 2**20))
    return out.getvalue()


def _npz_bomb() -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, x=np.zeros((80, 2**20), np.uint8), y=np.arange(80) % 2)
    return out.getvalue()


BAD: dict[str, tuple[str, list[tuple[str, bytes]], Any, str]] = {
    "pickle": ("npz", [("a.npz", _npz(x=np.array([_Evil()] * 4), y=np.arange(4)))], {}, "/file"),
    "raw pickle": ("npz", [("a.npz", b"\x80\x04cos\nsystem\n.")], {}, "/file"),
    "empty npz": ("npz", [("a.npz", b"")], {}, "/file"),
    "no arrays": ("npz", [("a.npz", _npz())], {}, "/file"),
    "0 rows": ("npz", [("a.npz", _npz(x=np.zeros((0, 3)), y=np.zeros(0, int)))], {}, "/file"),
    "NaN": ("npz", [("a.npz", _npz(x=np.full((9, 2), np.nan), y=np.arange(9) % 2))], {}, "/file"),
    "cut npz": ("npz", [("a.npz", NPZ[:-200])], {}, "/file"),
    "npz bomb": ("npz", [("a.npz", _npz_bomb())], {}, "/file"),
    "two npz": ("npz", [("a.npz", NPZ), ("b.npz", NPZ)], {}, "/file"),
    "zip bomb": ("image_folder", [("a.zip", _bomb())], {"size": 8}, "/file"),
    "path": ("image_folder", [("a.zip", _folder_zip(**{"../x.png": _png()}))], {}, "/file"),
    "no image": (
        "image_folder",
        [("a.zip", _folder_zip(**{"train/cat/x.png": b"no"}))],
        {},
        "/file",
    ),
    "pixels": (
        "image_folder",
        [("a.zip", _folder_zip(**{"train/cat/x.png": _png(0, 5100)}))],
        {},
        "/file",
    ),
    "no images": ("image_folder", [("a.zip", _npz(x=RNG.standard_normal(3)))], {}, "/file"),
    "npz as zip": ("image_folder", [("a.zip", NPZ)], {}, "/file"),
    "cut parquet": ("hf_images", [("train-0.parquet", _hf()[:-100])], {}, "/file"),
    "no parquet": ("hf_images", [("train-0.parquet", CSV)], {}, "/file"),
    "no image column": ("hf_images", [("train-0.parquet", _table_parquet())], {}, "/file"),
    "same names": ("hf_images", [("train.parquet", _hf()), ("train.parquet", _hf())], {}, "/file"),
    "ragged": ("table", [("a.csv", b"a,label\n1,2\n1,2,3\n")], {"target": "label"}, "/file"),
    "no rows": ("table", [("a.csv", b"a,label\n")], {"target": "label"}, "/file"),
    "empty csv": ("table", [("a.csv", b"")], {"target": "label"}, "/file"),
    "cut table": ("table", [("a.parquet", _table_parquet()[:300])], {"target": "y"}, "/file"),
    "binary csv": ("table", [("a.csv", RNG.bytes(5000))], {"target": "label"}, "/file"),
    "no target": ("table", [("a.csv", CSV)], {}, "/params/target"),
    "other target": ("table", [("a.csv", CSV)], {"target": "z"}, "/params/target"),
    "latin-1": ("text", [("a.txt", b"\xe4\xf6\xfc" * 100)], {}, "/file"),
    "short text": ("text", [("a.txt", b"ab")], {}, "/params/sequence_length"),
    "unknown param": ("npz", [("a.npz", NPZ)], {"layot": "chw"}, "/params/layot"),
    "NaN param": ("npz", [("a.npz", NPZ)], '{"test_fraction": NaN}', "/params/test_fraction"),
    "huge param": ("npz", [("a.npz", NPZ)], {"train_samples": 10**40}, "/params/train_samples"),
    "too many": ("npz", [("a.npz", NPZ)], {"train_samples": 10**6}, "/params/train_samples"),
    "no JSON": ("npz", [("a.npz", NPZ)], "{", "/params"),
    "deep JSON": ("npz", [("a.npz", NPZ)], "[" * 50_000, "/params"),
    "no object": ("npz", [("a.npz", NPZ)], "[]", "/params"),
    "NUL param": ("table", [("a.csv", CSV)], '{"target":"label","ignore":["\\u0000"]}', "/params"),
    "surrogate": ("table", [("a.csv", CSV)], '{"target":"label","ignore":["\\ud800"]}', "/params"),
    "format": ("pickle", [("a", b"x")], {}, "/format"),
    "built-in": ("digits", [("a", b"x")], {}, "/format"),
}


@pytest.mark.parametrize("case", BAD)
# One database is enough for what is refused.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_bad_upload_is_a_problem_and_leaves_nothing(
    case: str, client: TestClient, database: Database, storage: FolderStorage
) -> None:
    format, files, params, pointer = BAD[case]
    response = _post(client, format, files, params)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()["errors"][0]
    assert found["pointer"].startswith(pointer)
    assert len(found["detail"]) > 10
    assert "/tmp" not in response.text
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Dataset)) == 0
    assert not list(storage.root.rglob("ds_*"))
    assert not Path("/tmp/mlhf-pickle-was-run").exists()


def test_fields_that_are_missing(client: TestClient) -> None:
    data = {"name": "mine", "format": "npz"}
    for response, pointer in (
        (client.post("/v1/datasets", data=data), "/file"),
        (client.post("/v1/datasets", data={"format": "npz"}, files={"file": b"x"}), "/name"),
        (client.post("/v1/datasets", data={**data, "name": "a\nb"}, files={"file": b"x"}), "/name"),
        (client.post("/v1/datasets", data={**data, "file": "text"}), "/file"),
    ):
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"].startswith(pointer)
    assert client.post("/v1/datasets", json={"name": "mine"}).status_code == 422
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/datasets", content=b"--y\r\n", headers=headers).status_code in (
        400,
        422,
    )


def test_a_row_that_cannot_be_written_leaves_no_files(
    client: TestClient, storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = service.store

    def fail(*args: Any) -> Any:
        real(*args)
        raise RuntimeError("as if the commit failed")

    monkeypatch.setattr(service, "store", fail)
    assert _post(client, "npz", [("a.npz", NPZ)]).status_code == 500
    assert not list(storage.root.rglob("*.npz"))


def test_list_holds_builtins_then_uploads(client: TestClient) -> None:
    made = [_post(client, "npz", [("a.npz", NPZ)]).json()["id"] for _ in range(3)]
    expected = ["digits", "cifar10", "mnist", "fashion_mnist", "function", "pde", *reversed(made)]
    for limit in (1, 2, 3, 4, 5, 7, 50):
        seen, cursor = [], None
        while True:
            params = {"limit": limit, **({"cursor": cursor} if cursor else {})}
            page = client.get("/v1/datasets", params=params).json()
            assert len(page["data"]) <= limit
            seen += [d["id"] for d in page["data"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == expected
    assert client.get("/v1/datasets", params={"cursor": "x"}).status_code == 400


def test_builtins_say_whether_they_are_here(client: TestClient, settings: Settings) -> None:
    digits = client.get("/v1/datasets/digits").json()
    assert digits["available"]
    assert digits["info"]["input_shape"] == [1, 8, 8]
    assert digits["params_schema"]["properties"]["train_samples"]["description"]
    cifar = client.get("/v1/datasets/cifar10").json()
    assert not cifar["available"]
    assert "MLHF_DATASETS_DIR" in cifar["reason"]
    assert cifar["info"] is None

    (settings.datasets_root / "cifar10").mkdir(parents=True)
    assert not client.get("/v1/datasets/cifar10").json()["available"]  # an empty folder
    record = bytes(3073)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        (settings.datasets_root / "cifar10" / name).write_bytes(record * 10_000)
    cifar = client.get("/v1/datasets/cifar10").json()
    assert cifar["available"]
    assert cifar["info"]["train_samples"] == 50_000


def test_delete(
    client: TestClient,
    database: Database,
    settings: Settings,
    storage: FolderStorage,
    rows: Any,
) -> None:
    made = _post(client, "npz", [("a.npz", NPZ)]).json()["id"]
    rows.run(dataset=made, status="succeeded")
    paused = rows.run(dataset=made, status="paused")
    assert client.delete(f"/v1/datasets/{made}").status_code == 409
    assert client.get(f"/v1/datasets/{made}").status_code == 200

    with database.write() as session:
        from mlhf_service.runs.models import Run

        session.get_one(Run, paused).status = "cancelled"
    assert client.delete(f"/v1/datasets/{made}").status_code == 409  # named by what ended
    assert client.delete(f"/v1/datasets/{made}?force=true").status_code == 204
    assert not list(storage.root.rglob("*.npz"))
    assert client.get(f"/v1/datasets/{made}").status_code == 404
    assert client.delete(f"/v1/datasets/{made}").status_code == 404
    assert made not in client.get("/v1/datasets").text
    with database.read() as session, pytest.raises(SpecError, match="deleted") as found:
        resolve_dataset(Context(session, settings, storage), made, {})
    assert found.value.pointer == "/name"


@pytest.mark.parametrize("name", ["nope", "ds_0", "ds_" + "0" * 26, "%00", "npz", "..%2Fx"])
def test_unknown_ids(client: TestClient, name: str) -> None:
    for method in ("GET", "DELETE"):
        response = client.request(method, f"/v1/datasets/{name}")
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"


def test_builtins_stay(client: TestClient) -> None:
    assert client.delete("/v1/datasets/digits").status_code == 409


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_upload_says_how_far_it_is(
    client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress_id = "0123456789-abcdef"
    url = f"/v1/datasets/progress/{progress_id}"
    inspect = specs.inspect
    seen = []

    def watched(name: str, params: Any, root: Any, report: Any) -> Any:
        def observed(done: int, total: int) -> None:
            monkeypatch.setattr(report, "_written", 0.0)  # else it writes a few times a second
            report(done, total)
            seen.append(progress.find(settings, "local", progress_id))

        seen.append(progress.find(settings, "local", progress_id))
        return inspect(name, params, root, observed)

    monkeypatch.setattr(specs, "inspect", watched)
    assert client.get(url).json()["stage"] == "waiting"
    data = {"name": "mine", "format": "npz", "progress_id": progress_id}
    content = _npz(x=np.zeros((20, 3)), y=np.arange(20) % 2)
    response = client.post("/v1/datasets", data=data, files={"file": ("d.npz", content)})
    assert response.status_code == 201
    received = len(content)
    assert seen[0].model_dump() == {
        "received": received,
        "stage": "checking",
        "done": 0,
        "total": 0,
    }
    assert (seen[-1].done, seen[-1].total) == (20, 20)
    assert client.get(url).json()["stage"] == "waiting", "it is answered"
    for bad in ("short", "../" * 8, "x" * 65):
        assert client.post("/v1/datasets", data={**data, "progress_id": bad}).status_code == 422
