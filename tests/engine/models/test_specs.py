"""The torch-free descriptions of models: what they refuse, and where they point."""

import subprocess
import sys

import pytest

from mlhf.core.errors import SpecError
from mlhf.data.info import DataInfo
from mlhf.models.specs import MODELS, summarize

IMAGE = DataInfo("image", (3, 32, 32), 10, "classification", 100, 20)
TINY = DataInfo("image", (1, 2, 2), 10, "classification", 100, 20)
TABLE = DataInfo("table", (7,), 1, "regression", 100, 20)
TEXT = DataInfo("text", (16,), 30, "language", 100, 20, vocabulary=30)

FLATTEN, LINEAR = {"type": "flatten"}, {"type": "linear"}
EMBED = {"type": "embedding", "dimension": 4}


def nested(depth: int) -> dict:
    layer = {"type": "activation"}
    for _ in range(depth):
        layer = {"type": "residual", "layers": [layer]}
    return layer


def test_specs_import_no_torch():
    code = (
        "import sys, mlhf.models.specs as m, mlhf.data.specs as d\n"
        "m.summarize('resnet', {}, d.describe('digits', {}))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_described(name):
    schema = MODELS[name].params.model_json_schema()
    assert all("description" in field for field in schema["properties"].values())
    assert MODELS[name].description.endswith(".")


@pytest.mark.parametrize(
    ("name", "params", "data", "pointer"),
    [
        ("nothing", {}, IMAGE, "/name"),
        ("mlp", {}, TEXT, "/name"),
        ("mlp", {"hidden": [4, 0]}, IMAGE, "/params/hidden/1"),
        ("mlp", {"hidden": [65_537]}, IMAGE, "/params/hidden/0"),
        ("mlp", {"hidden": [4.5]}, IMAGE, "/params/hidden/0"),
        ("mlp", {"hidden": [1] * 41}, IMAGE, "/params/hidden"),
        ("mlp", {"activation": "step"}, IMAGE, "/params/activation"),
        ("mlp", {"dropout": 1.0}, IMAGE, "/params/dropout"),
        ("cuda_convnet", {}, TABLE, "/name"),
        ("cuda_convnet", {}, TINY, "/name"),
        ("cuda_convnet", {"width": 5}, IMAGE, "/params/width"),
        ("resnet", {}, TEXT, "/name"),
        ("resnet", {"depth": 9}, IMAGE, "/params/depth"),
        ("resnet", {"depth": 56}, IMAGE, "/params/depth"),
        ("resnet", {"depth": 20, "stem": "imagenet"}, IMAGE, "/params/stem"),
        ("sequential", {}, IMAGE, "/params/layers"),
        ("sequential", {"layers": []}, IMAGE, "/params/layers"),
        ("sequential", {"layers": [{"type": "magic"}]}, IMAGE, "/params/layers/0/type"),
        ("sequential", {"layers": [FLATTEN, {"out_features": 3}]}, IMAGE, "/params/layers/1/type"),
        (
            "sequential",
            {"layers": [FLATTEN, {**LINEAR, "units": 3}]},
            IMAGE,
            "/params/layers/1/units",
        ),
    ],
)
def test_the_pointer_leads_to_the_mistake(name, params, data, pointer):
    with pytest.raises(SpecError) as caught:
        summarize(name, params, data)
    assert caught.value.pointer == pointer


@pytest.mark.parametrize(
    ("layers", "data", "pointer"),
    [
        ([LINEAR], IMAGE, "/0"),
        ([FLATTEN, {"type": "linear", "out_features": 9}], IMAGE, "/1"),
        ([FLATTEN, LINEAR, {"type": "global_avg_pool"}], IMAGE, "/2"),
        ([{"type": "conv2d", "out_channels": 4, "kernel_size": 33}], IMAGE, "/0/kernel_size"),
        ([{"type": "conv2d", "out_channels": 4, "groups": 2}], IMAGE, "/0/groups"),
        ([{"type": "max_pool2d", "kernel_size": 2, "padding": 2}], IMAGE, "/0/padding"),
        ([{"type": "avg_pool2d", "kernel_size": 40}], IMAGE, "/0/kernel_size"),
        ([{"type": "group_norm", "groups": 2}], IMAGE, "/0/groups"),
        ([EMBED], IMAGE, "/0"),
        ([LINEAR], TEXT, "/0"),
        ([nested(1)], TEXT, "/0"),
        ([EMBED], TEXT, "/0"),
        ([EMBED, {"type": "batch_norm"}], TEXT, "/1"),
        ([EMBED, {"type": "last_step"}, LINEAR], TEXT, "/2"),
        ([{"type": "lstm", "hidden_size": 4}], TABLE, "/0"),
        ([EMBED, {"type": "causal_attention", "heads": 3}, LINEAR], TEXT, "/1/heads"),
        ([{"type": "position_embedding"}], TEXT, "/0"),
        ([{"type": "image_rows"}], TABLE, "/0"),
        ([{"type": "activation", "function": "relu6"}], TABLE, "/0/function"),
        ([{"type": "residual", "layers": []}], TABLE, "/0/layers"),
        ([{"type": "residual", "layers": [{"type": "flatten"}, EMBED]}], TABLE, "/0/layers/1"),
        ([{"type": "residual", "layers": [FLATTEN]}], IMAGE, "/0"),
        (
            [
                {
                    "type": "residual",
                    "shortcut": "identity",
                    "layers": [{"type": "linear", "out_features": 5}],
                }
            ],
            TABLE,
            "/0/shortcut",
        ),
        ([nested(9)], TABLE, "/0" + "/layers/0" * 9),
        ([{"type": "activation"}] * 201, TABLE, ""),
        ([{"type": "residual", "layers": [{"type": "activation"}] * 150}] * 2, TABLE, ""),
    ],
)
def test_the_pointer_leads_to_the_layer(layers, data, pointer):
    with pytest.raises(SpecError) as caught:
        summarize("sequential", {"layers": layers}, data)
    assert caught.value.pointer == "/params/layers" + pointer


def test_the_bounds_themselves_are_allowed():
    layers = [nested(8), *[{"type": "activation"}] * 190, LINEAR]
    assert summarize("sequential", {"layers": layers}, TABLE).parameters == 8


def test_the_paper_s_network_has_the_paper_s_size():
    assert summarize("cuda_convnet", {}, IMAGE).parameters == 1_756_426


def test_sizes_beyond_any_memory_are_only_numbers():
    layers = [FLATTEN, *[{"type": "linear", "out_features": 65_536}] * 100, LINEAR]
    assert summarize("sequential", {"layers": layers}, IMAGE).parameters > 4 * 10**11


def test_parse_fills_in_the_defaults():
    assert MODELS.parse("mlp", {}).model_dump()["hidden"] == [128, 64]
