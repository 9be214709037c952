"""The pages of models, optimizers and meta-checkpoints, as a client without scripts gets them."""

import pytest
from fastapi.testclient import TestClient

from mlhf.models.layer_specs import SequentialParams
from mlhf.models.specs import MODELS
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf_service.catalogue import service
from mlhf_service.kit.parameters import parameters, parts
from tests.app.conftest import Rows
from tests.app.web.test_pages import text_of


@pytest.mark.parametrize(("kind", "registry"), [("models", MODELS), ("optimizers", OPTIMIZERS)])
def test_each_entry_has_a_page(client: TestClient, kind: str, registry: dict[str, object]) -> None:
    listed = client.get(f"/{kind}").text
    for name in registry:
        assert f'href="/{kind}/{name}"' in listed
        assert client.get(f"/{kind}/{name}").status_code == 200
    assert client.get(f"/{kind}/no_such").status_code == 404


def test_parameters_are_shown_with_bounds_and_defaults(client: TestClient) -> None:
    text = text_of(client.get("/models/mlp").text)
    for shown in ("hidden", "list of integer", "[128, 64]", "gelu", "≥ 0, &lt; 1"):
        assert shown in text
    adam = {one.name: one for one in parameters(service.find("optimizer", "adam").params_schema)}
    assert adam["lr"].type == "number"
    assert adam["schedule"].default is not None or not adam["schedule"].required


def test_each_layer_has_an_example_that_is_valid() -> None:
    layers = parts(service.find("model", "sequential").params_schema)
    assert len(layers) >= 20
    for layer in layers:
        assert layer.example["type"] == layer.name
        parsed = SequentialParams.model_validate({"layers": [layer.example]})
        assert parsed.layers[0].type == layer.name


def test_a_meta_checkpoint_shows_its_lineage(client: TestClient, rows: Rows) -> None:
    listed = client.get("/meta-checkpoints").text
    assert 'href="/meta-checkpoints/mc_shipped_mlhf"' in listed
    html = client.get("/meta-checkpoints/mc_shipped_mlhf").text
    assert "shipped with the product" in text_of(html)
    assert "/v1/meta-checkpoints/mc_shipped_mlhf/file" in html
    assert client.get("/meta-checkpoints/mc_none").status_code == 404
