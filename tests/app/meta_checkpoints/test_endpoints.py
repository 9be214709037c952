"""Meta-checkpoints over HTTP."""

import json

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import load_file, save

from mlhf_service.meta_checkpoints.files import describe, shipped


def upload(client: TestClient, content: bytes) -> object:
    return client.post(
        "/v1/meta-checkpoints",
        data={"name": "mine"},
        files={"file": ("x.safetensors", content)},
    )


def metadata(**changes: str) -> dict[str, str]:
    return {"format": "mlhf-meta-1", "optimizer": "mlhf", "lineage": "{}", **changes}


def test_what_ships_is_listed_downloaded_and_named_default(client: TestClient) -> None:
    listed = client.get("/v1/meta-checkpoints").json()["data"]
    assert [view["optimizer"] for view in listed] == ["mlhf", "mlhf_paper", "l2l"]
    assert [view["id"] for view in listed] == [f"mc_shipped_{v['optimizer']}" for v in listed]
    assert all(view["aliases"] == ["default"] for view in listed)
    only = client.get("/v1/meta-checkpoints", params={"optimizer": "mlhf_paper"}).json()["data"]
    assert [view["id"] for view in only] == ["mc_shipped_mlhf_paper"]
    one = client.get("/v1/meta-checkpoints/mc_shipped_mlhf").json()
    assert one["aliases"] == ["default"]
    assert one["lineage"]["config"]["tasks"]
    assert one["size"] < 2**20
    file = client.get("/v1/meta-checkpoints/mc_shipped_mlhf/file")
    assert file.content == shipped()["mlhf"].read_bytes()
    part = client.get("/v1/meta-checkpoints/mc_shipped_mlhf/file", headers={"Range": "bytes=0-7"})
    assert (part.status_code, part.content) == (206, file.content[:8])


def test_an_alias_is_moved_and_given_back(client: TestClient) -> None:
    made = upload(client, shipped()["mlhf"].read_bytes()).json()
    path = "/v1/meta-checkpoints/aliases/mlhf/default"
    client.put(path, json={"meta_checkpoint_id": made["id"]})
    assert client.get("/v1/meta-checkpoints/mc_shipped_mlhf").json()["aliases"] == []
    assert client.get(f"/v1/meta-checkpoints/{made['id']}").json()["aliases"] == ["default"]
    assert client.delete(path).status_code == 204
    assert client.get("/v1/meta-checkpoints/mc_shipped_mlhf").json()["aliases"] == ["default"]
    assert client.put(path, json={"meta_checkpoint_id": "mc_0"}).status_code == 404
    wrong = client.put(
        "/v1/meta-checkpoints/aliases/l2l/best", json={"meta_checkpoint_id": made["id"]}
    )
    assert wrong.status_code == 409


def test_a_file_that_names_no_variant_is_the_papers_by_its_networks(client: TestClient) -> None:
    paper = shipped()["mlhf_paper"]
    made = upload(client, paper.read_bytes()).json()
    assert made["optimizer"] == "mlhf_paper"
    put = {"json": {"meta_checkpoint_id": made["id"]}}
    own = client.put("/v1/meta-checkpoints/aliases/mlhf_paper/best", **put)
    assert own.json()["aliases"] == ["best"]
    other = client.put("/v1/meta-checkpoints/aliases/mlhf/best", **put)
    assert other.status_code == 409
    assert "for mlhf with variant paper, not for mlhf with variant kronecker" in other.text
    named = upload(client, save(load_file(paper), metadata(optimizer="mlhf_paper")))
    assert named.json()["optimizer"] == "mlhf_paper"


@pytest.mark.parametrize("family", sorted(shipped()))
def test_each_family_has_shapes_of_its_own(client: TestClient, family: str) -> None:
    good = load_file(shipped()[family])
    assert upload(client, save(good, metadata(optimizer=family))).json()["optimizer"] == family
    for name, values in good.items():
        wrong = {**good, name: np.append(values.ravel(), np.float32(0))}
        response = upload(client, save(wrong, metadata(optimizer=family)))
        assert response.status_code == 422, name
        assert name in response.json()["errors"][0]["detail"]
    for other in set(shipped()) - {family}:
        wrong = load_file(shipped()[other])
        # What calls itself mlhf is of the variant that has its networks.
        code = 201 if (family, other) == ("mlhf", "mlhf_paper") else 422
        assert upload(client, save(wrong, metadata(optimizer=family))).status_code == code, other


def test_what_is_no_meta_checkpoint_is_refused(client: TestClient) -> None:
    good = load_file(shipped()["mlhf"])
    name = next(iter(good))
    hostile = {
        "empty": b"",
        "no safetensors": b"\x80\x04pickle" * 100,
        "a header that lies": (2**63).to_bytes(8, "little") + b"{}",
        "no metadata": save(good),
        "another format": save(good, metadata(format="x")),
        "an unknown optimizer": save(good, metadata(optimizer="x")),
        "lineage that is no object": save(good, metadata(lineage="[]")),
        "a tensor too few": save({k: v for k, v in good.items() if k != name}, metadata()),
        "another shape": save({**good, name: good[name].ravel()[:1].copy()}, metadata()),
        "not finite": save({**good, name: np.full_like(good[name], np.nan)}, metadata()),
        "another type": save({**good, name: good[name].astype(np.float64)}, metadata()),
    }
    for what, content in hostile.items():
        response = upload(client, content)
        assert response.status_code == 422, what
        assert response.json()["errors"][0]["pointer"] == "/file", what
    assert upload(client, b"x" * (5 * 2**20)).status_code == 413
    listed = client.get("/v1/meta-checkpoints").json()["data"]
    assert all(view["source"] == "shipped" for view in listed)


@pytest.mark.parametrize("optimizer", sorted(shipped()))
def test_what_ships_tells_its_lineage(optimizer: str) -> None:
    found = describe(shipped()[optimizer])
    assert found.optimizer == optimizer
    assert found.lineage["iterations"] > 0
    assert json.dumps(found.lineage).count("/work") == 0
