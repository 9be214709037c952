"""Predictions asked for by the client: what rows may be, and how many."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mlhf_service.client import ServiceError
from mlhf_service.client.rows import MOST_ROWS, json_rows
from tests.app.client.transports import async_client_of, client_of

pd = pytest.importorskip("pandas")


def answer(count: int, names: list[str] | None = None) -> httpx.Response:
    found = {"run_id": "run_1", "task": "classification", "predictions": [1] * count}
    return httpx.Response(200, json={**found, "names": names})


@pytest.mark.parametrize(
    ("rows", "sent"),
    [
        ([{"a": 1.5, "b": "x"}], [{"a": 1.5, "b": "x"}]),
        ({"a": np.float32(0.5)}, [{"a": 0.5}]),
        ("text", ["text"]),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        ([np.ones(2), (1, 2)], [[1.0, 1.0], [1, 2]]),
        (
            pd.DataFrame({"a": [1, 2], "b": [0.5, float("nan")], "c": ["x", None]}),
            [{"a": 1, "b": 0.5, "c": "x"}, {"a": 2, "b": None, "c": None}],
        ),
    ],
)
def test_what_rows_may_be(rows: Any, sent: list[Any]) -> None:
    assert json_rows(rows) == sent


@pytest.mark.parametrize("rows", [3, np.float64(1.0), [float("nan")], [{"a": object()}]])
def test_what_they_may_not_be(rows: Any) -> None:
    with pytest.raises(ServiceError, match="rows"):
        json_rows(rows)


def test_many_rows_take_several_requests() -> None:
    client, asked = client_of(answer(MOST_ROWS, ["b"] * MOST_ROWS), answer(2, ["b", "b"]))
    found = client.predict("run_1", np.zeros((MOST_ROWS + 2, 1)))
    assert [len(json.loads(one.content)["rows"]) for one in asked] == [MOST_ROWS, 2]
    assert asked[0].url.path == "/v1/models/run_1/predict"
    assert found.labels == ["b"] * (MOST_ROWS + 2)
    assert found.to_numpy().shape == (MOST_ROWS + 2,)
    assert list(found.to_pandas().columns) == ["prediction", "name"]
    assert repr(found) == f"<Predictions of run_1: {MOST_ROWS + 2} rows>"


def test_predictions_without_names_and_by_asyncio() -> None:
    client, asked = async_client_of(answer(1))
    found = asyncio.run(client.predict({"id": "run_1"}, [[1.0]]))
    assert found.labels == [1]
    assert len(asked) == 1


def test_a_file_is_predicted_into_a_file(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "new" / "out.csv"
    source.write_text("a,b\n1,2\n")
    client, asked = client_of(httpx.Response(200, content=b"prediction\n1\n"))
    assert client.predict_file("run_1", source, target) == target
    assert target.read_bytes() == b"prediction\n1\n"
    assert b'name="format"\r\n\r\ncsv' in asked[0].content
    with pytest.raises(ServiceError, match="cannot read"):
        client.predict_file("run_1", tmp_path / "absent.csv", target)


def test_a_network_is_written_in_the_format_of_the_file_s_name(tmp_path: Path) -> None:
    client, asked = client_of(httpx.Response(200, content=b"made"))
    path = client.export("run_1", tmp_path / "a" / "network.PT2")
    assert path.read_bytes() == b"made"
    assert (asked[0].url.path, json.loads(asked[0].content)) == (
        "/v1/models/run_1/export",
        {"format": "pt2"},
    )
    other, _ = async_client_of(httpx.Response(200, content=b"again"))
    assert asyncio.run(other.export("run_1", tmp_path / "n.onnx")).read_bytes() == b"again"
