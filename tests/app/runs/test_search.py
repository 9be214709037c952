"""Runs are found, sorted and tabulated by hyperparameters, metrics, seconds and tags."""

import csv
import io
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.database import Database
from mlhf_service.runs import fields, search
from mlhf_service.runs.models import Run
from tests.app.conftest import Rows


def measured(best: float, last: float | str) -> dict[str, Any]:
    return {"test_loss": {"last": last, "best": best, "best_step": 3}}


@pytest.fixture
def known(rows: Rows) -> dict[str, str]:
    """Four runs by a letter: of two optimizers, one queued, one diverged."""
    totals = {"steps": 10, "samples": 640, "epochs": 1.0}
    return {
        "a": rows.run(
            name="first",
            config={"optimizer": {"name": "adam", "params": {"lr": 0.001}}},
            summary=measured(0.2, 0.3),
            totals={**totals, "wall_seconds": 4.0},
            tags={"team": "vision", "paper": "12"},
        ),
        "b": rows.run(
            name="second",
            config={"optimizer": {"name": "adam", "params": {"lr": 0.1}}},
            summary=measured(0.5, "NaN"),
            totals={**totals, "wall_seconds": 2.0},
            status="failed",
            tags={"team": "text", "paper": "3"},
        ),
        "c": rows.run(
            name="third",
            optimizer="hf_adam",
            config={
                "optimizer": {"name": "hf_adam", "params": {"warm_start": True}},
                "model": {"name": "mlp", "params": {"hidden": [64, 32]}},
                "batch_size": 128,
            },
            summary=measured(0.1, 0.15),
            totals={**totals, "wall_seconds": 9.0},
        ),
        "d": rows.run(name="fourth", status="queued", notes="**later**"),
    }


def letters(known: dict[str, str], ids: list[str]) -> str:
    names = {identity: letter for letter, identity in known.items()}
    return "".join(names[identity] for identity in ids)


def found(client: TestClient, known: dict[str, str], **params: Any) -> str:
    response = client.get("/v1/runs", params=params)
    assert response.status_code == 200, response.json()
    return letters(known, [run["id"] for run in response.json()["data"]])


FILTERS = [
    ("optimizer.lr < 0.01", "a"),
    ("params.optimizer.lr >= 0.001", "ba"),
    ("test_loss.best <= 0.2", "ca"),
    ("metrics.test_loss > 0.2", "a"),
    ("test_loss = nan", "b"),
    ("seconds < 5 and status = succeeded", "a"),
    ("tags.team = 'vision' or optimizer = hf_adam", "ca"),
    ("tag.paper > 5", "a"),
    ("tags.team is null", "dc"),
    ("optimizer.warm_start = true", "c"),
    ("model.hidden = '[64, 32]'", "c"),
    ("batch_size in (128, 256)", "c"),
    ("not batch_size = 128", "dba"),
    ("name ~ 'IR'", "ca"),
    ("name !~ 'ir'", "db"),
    ("status in (queued, failed)", "db"),
    ("status not in (queued, failed)", "ca"),
    ("notes ~ later", "d"),
    ("dataset = digits and optimizer != adam", "c"),
    ("created_at > 2020-01-01", "dcba"),
    ("created_at > 2020-01-01T00:00Z and attempts = 1", "dcba"),
    ("project = default", "dcba"),
    ("optimizer.lr = '0.1'", "b"),
]


@pytest.mark.parametrize("rare", [2000, 0])
def test_a_filter_finds(
    client: TestClient, known: dict[str, str], monkeypatch: pytest.MonkeyPatch, rare: int
) -> None:
    monkeypatch.setattr(search, "RARE", rare)
    for text, wanted in FILTERS:
        assert found(client, known, filter=text) == wanted, text


ORDERS = [
    ("test_loss.best", "cabd"),
    ("-test_loss.best", "bacd"),
    ("test_loss", "cadb"),  # NaN is no number: such a run has no place, and comes last
    ("-seconds", "cabd"),
    ("optimizer.lr", "abdc"),
    ("tags.team", "badc"),
    ("-tags.paper", "abdc"),
    ("-created_at", "dcba"),
    ("name", "adbc"),
]


def test_runs_are_sorted_by_any_field_and_paged(client: TestClient, known: dict[str, str]) -> None:
    for sort, wanted in ORDERS:
        assert found(client, known, sort=sort) == wanted, sort
        for limit in (1, 2, 3):
            assert letters(known, pages(client, sort, limit)) == wanted, (sort, limit)


def pages(client: TestClient, sort: str, limit: int) -> list[str]:
    """The ids of all runs, page by page."""
    ids: list[str] = []
    following: dict[str, str] = {}
    while True:
        page = client.get("/v1/runs", params={"sort": sort, "limit": limit, **following})
        ids += [run["id"] for run in page.json()["data"]]
        if page.json()["next_cursor"] is None:
            return ids
        following = {"cursor": page.json()["next_cursor"]}


@pytest.mark.parametrize("rare", [2000, 0])
def test_a_filter_and_a_sort_by_other_values_go_together(
    client: TestClient, known: dict[str, str], monkeypatch: pytest.MonkeyPatch, rare: int
) -> None:
    monkeypatch.setattr(search, "RARE", rare)
    text = "test_loss.best < 0.4 and not optimizer.lr > 0.01"
    assert found(client, known, filter=text, sort="-seconds") == "ca"
    assert found(client, known, filter=text, sort="optimizer.lr") == "ac"
    assert found(client, known, tag="team", sort="seconds") == "ba"


def test_columns_are_in_the_list(client: TestClient, known: dict[str, str]) -> None:
    runs = {run["id"]: run for run in client.get("/v1/runs").json()["data"]}
    first = runs[known["a"]]
    assert first["params"]["optimizer.lr"] == 0.001
    assert first["params"]["batch_size"] == 64
    assert first["tags"] == {"team": "vision", "paper": "12"}
    assert (first["project"], first["dataset_name"]) == ("default", "digits")


def test_fields_are_listed_with_what_they_are(client: TestClient, known: dict[str, str]) -> None:
    fields = {
        f["name"]: (f["kind"], f["type"]) for f in client.get("/v1/runs/fields").json()["data"]
    }
    assert fields["optimizer.lr"] == ("param", "number")
    assert fields["test_loss.best"] == ("metric", "number")
    assert fields["seconds"] == ("total", "number")
    assert fields["tags.team"] == ("tag", "text")
    assert fields["status"] == ("attribute", "text")


REFUSED = [
    ({"filter": "lr < 1"}, "filter", "did you mean 'optimizer.lr'?"),
    ({"filter": "test_los < 1"}, "filter", "did you mean 'test_loss'?"),
    ({"filter": "started_at > soon"}, "filter", "a time such as"),
    ({"filter": "created_at ~ 2026"}, "filter", "created_at is a time, and only texts"),
    ({"filter": "attempts !~ 1"}, "filter", "attempts is a number, and only texts"),
    ({"filter": "project = nowhere"}, "filter", "unknown project 'nowhere'"),
    ({"project": "nowhere"}, "project", "unknown project 'nowhere'"),
    ({"sort": "sekonds"}, "sort", "did you mean 'seconds'?"),
    ({"format": "csv", "columns": "tets_loss"}, "columns", "did you mean 'test_loss'?"),
]


def test_what_there_is_not_is_refused_with_a_guess(
    client: TestClient, known: dict[str, str]
) -> None:
    for params, pointer, said in REFUSED:
        response = client.get("/v1/runs", params=params)
        assert response.status_code == 422, params
        assert response.json()["errors"][0]["pointer"] == pointer
        assert said in response.json()["detail"]


@pytest.mark.parametrize("name", [*fields.ATTRIBUTES, "project", "optimizer.lr", "tags.team"])
def test_no_operator_on_any_field_is_an_error_of_ours(
    client: TestClient, known: dict[str, str], name: str
) -> None:
    """What one database compares, the other may not know how to."""
    for operator in ("=", "!=", "<", "<=", ">", ">=", "~", "!~"):
        for value in ("1", "'1'", "'text'", "'2026-01-31'"):
            response = client.get("/v1/runs", params={"filter": f"{name} {operator} {value}"})
            assert response.status_code in (200, 422), response.request.url


def test_csv_is_the_same_list(
    client: TestClient, known: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlhf_service.runs.run_table._AT_ONCE", 2)
    params = {"format": "csv", "sort": "-seconds"}
    response = client.get("/v1/runs", params=params)
    assert response.headers["Content-Type"].startswith("text/csv")
    table = list(csv.DictReader(io.StringIO(response.text)))
    assert letters(known, [line["id"] for line in table]) == "cabd"
    assert table[1]["optimizer.lr"] == "0.001"
    assert table[1]["tags.team"] == "vision"
    assert table[0]["model.hidden"] == "[64, 32]"
    chosen = client.get("/v1/runs", params={**params, "columns": ["name", "seconds"]})
    assert client.get("/v1/runs", params={**params, "columns": "name,seconds"}).text == chosen.text
    assert chosen.text.splitlines()[:2] == ["name,seconds", "third,9.0"]


def test_values_follow_a_run(client: TestClient, known: dict[str, str], database: Database) -> None:
    with database.write() as session:
        run = session.get_one(Run, known["d"])
        run.status, run.summary = "running", measured(0.01, 0.01)
    assert found(client, known, sort="test_loss.best") == "dcab"
    with database.write() as session:
        session.delete(session.get_one(Run, known["a"]))
    assert found(client, known, filter="optimizer.lr < 0.01") == ""
