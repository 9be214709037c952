"""Files of a run's curves: made when they are first asked for, and then kept."""

import csv
import hashlib
import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from mlhf_service.database import Database
from mlhf_service.runs import curve_files, made_files
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.storage.folder import FolderStorage
from tests.app.conftest import Rows

NAMES = ["curves.csv", "curves.parquet", "curves.png", "events.out.tfevents.mlhf"]


@pytest.fixture
def run(rows: Rows) -> str:
    run = rows.run(name="odd $name_{")
    rows.points(run, "train_loss", {0: 2.5, 1: float("nan"), 2: 0.5})
    rows.points(run, "test_accuracy", {0: 0.1, 2: 0.9})
    return run


def listed(client: TestClient, run: str) -> dict[str, tuple[int | None, str | None]]:
    found = client.get(f"/v1/runs/{run}/artifacts").json()["data"]
    return {one["name"]: (one["size"], one["sha256"]) for one in found}


def test_they_are_listed_before_they_are_made_and_kept_then(
    client: TestClient, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert listed(client, run) == dict.fromkeys(NAMES, (None, None))
    answers = {name: client.get(f"/v1/runs/{run}/artifacts/{name}") for name in NAMES}
    monkeypatch.setattr(curve_files, "csv_pieces", None)  # nothing is made a second time
    for name, answer in answers.items():
        digest = hashlib.sha256(answer.content).hexdigest()
        assert answer.headers["etag"] == f'"{digest}"'
        assert listed(client, run)[name] == (len(answer.content), digest)
        url = f"/v1/runs/{run}/artifacts/{name}"
        assert client.get(url).content == answer.content
        assert client.get(url, headers={"If-None-Match": f'"{digest}"'}).status_code == 304
        part = client.get(url, headers={"Range": "bytes=2-5"})
        assert (part.status_code, part.content) == (206, answer.content[2:6])
    table = list(csv.DictReader(io.StringIO(answers["curves.csv"].text)))
    assert [(row["metric"], row["step"], row["value"]) for row in table] == [
        ("test_accuracy", "0", "0.1"),
        ("test_accuracy", "2", "0.9"),
        ("train_loss", "0", "2.5"),
        ("train_loss", "1", "NaN"),
        ("train_loss", "2", "0.5"),
    ]
    assert pq.read_table(io.BytesIO(answers["curves.parquet"].content)).num_rows == 5
    assert answers["curves.png"].content.startswith(b"\x89PNG")


def test_a_head_request_makes_them_too(client: TestClient, run: str) -> None:
    head = client.head(f"/v1/runs/{run}/artifacts/curves.csv")
    assert head.status_code == 200
    assert int(head.headers["content-length"]) == listed(client, run)["curves.csv"][0]


@pytest.mark.parametrize("status", ["queued", "running", "paused"])
def test_a_run_that_has_not_ended_has_none(client: TestClient, rows: Rows, status: str) -> None:
    run = rows.run(status=status)
    rows.points(run, "train_loss", {0: 1.0})
    assert listed(client, run) == {}
    assert client.get(f"/v1/runs/{run}/artifacts/curves.csv").status_code == 404


def test_a_run_without_points_has_empty_ones(client: TestClient, rows: Rows) -> None:
    run = rows.run(status="failed")
    files = {n: client.get(f"/v1/runs/{run}/artifacts/{n}").content for n in NAMES}
    assert files["curves.csv"].count(b"\n") == 1
    assert pq.read_table(io.BytesIO(files["curves.parquet"])).num_rows == 0
    assert files["curves.png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_one_that_was_lost_is_made_again(
    client: TestClient, storage: FolderStorage, run: str, damage: str
) -> None:
    url = f"/v1/runs/{run}/artifacts/curves.csv"
    first = client.get(url)
    (path,) = Path(storage.root).rglob("curves.csv")
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"x" * len(first.content))
    again = client.get(url)
    assert (again.status_code, again.content) == (200, first.content)


def test_a_run_deleted_meanwhile_leaves_no_file(
    database: Database, storage: FolderStorage, run: str
) -> None:
    with database.read() as session:
        known = session.get_one(Run, run)
    with database.write() as session:
        session.delete(session.get_one(Run, run))
    file = made_files.made_files(known)["curves.csv"]
    assert made_files.make(database, storage, known, file) is None
    assert [path for path in Path(storage.root).rglob("*") if path.is_file()] == []
    with database.read() as session:
        assert list(session.scalars(select(Artifact))) == []


def test_a_long_curve_is_written_in_many_pieces(
    rows: Rows, database: Database, storage: FolderStorage
) -> None:
    run = rows.run()
    rows.points(run, "batch_loss", {step: 1.0 / (1 + step) for step in range(40_000)})
    with database.read() as session:
        known = session.get_one(Run, run)
    files = made_files.made_files(known)
    pieces = list(files["curves.csv"].content(database, storage, known))
    assert max(map(len, pieces)) < 3_000_000
    assert len(pieces) >= 3
    text = b"".join(pieces).decode()
    values = [float(row["value"]) for row in csv.DictReader(io.StringIO(text))]
    assert values == [1.0 / (1 + step) for step in range(40_000)]
    parquet = b"".join(files["curves.parquet"].content(database, storage, known))
    assert pq.read_table(io.BytesIO(parquet))["value"].to_pylist() == values
