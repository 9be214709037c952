"""The catalogue: every entry can be used as it says."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf.optimizers.specs import OPTIMIZERS

KINDS = ("models", "optimizers", "dataset-formats")


@pytest.fixture(params=["sqlite"])
def database_url(tmp_path: Any) -> str:
    return f"sqlite:///{tmp_path}/unused.sqlite3"  # the catalogue reads no table


@pytest.mark.parametrize("kind", KINDS)
def test_entries_have_schemas(client: TestClient, kind: str) -> None:
    entries = client.get(f"/v1/{kind}").json()["data"]
    assert entries
    for entry in entries:
        assert client.get(f"/v1/{kind}/{entry['name']}").json() == entry
        assert entry["description"].endswith(".")
        assert "\n" not in entry["description"]
        assert entry["params_schema"]["type"] == "object"
        assert entry["params_schema"]["additionalProperties"] is False


def test_optimizers_say_defaults_bounds_and_meaning(client: TestClient) -> None:
    names = [e["name"] for e in client.get("/v1/optimizers").json()["data"]]
    assert names == list(OPTIMIZERS)
    schema = client.get("/v1/optimizers/hf").json()["params_schema"]
    iterations = schema["properties"]["iterations"]
    assert (iterations["default"], iterations["minimum"], iterations["maximum"]) == (4, 1, 250)
    assert iterations["description"]


def test_sequential_is_a_closed_union_of_layers(client: TestClient) -> None:
    schema = str(client.get("/v1/models/sequential").json()["params_schema"])
    assert "discriminator" in schema
    assert "conv2d" in schema


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["nope", "%00", "../models"])
def test_unknown_names(client: TestClient, kind: str, name: str) -> None:
    assert client.get(f"/v1/{kind}/{name.replace('/', '%2F')}").status_code == 404
