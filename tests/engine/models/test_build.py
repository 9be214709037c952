"""What the specifications say of a model is what torch builds."""

import pytest
import torch
from torch import nn

from mlhf.core.errors import SpecError
from mlhf.data.info import DataInfo
from mlhf.models.build import build
from mlhf.models.recipes import sequential_plan
from mlhf.models.specs import MODELS, summarize

hypothesis = pytest.importorskip("hypothesis")
event, given, settings, st = (
    hypothesis.event,
    hypothesis.given,
    hypothesis.settings,
    hypothesis.strategies,
)

IMAGE = DataInfo("image", (3, 32, 32), 10, "classification", 100, 20)
SMALL = DataInfo("image", (1, 9, 7), 4, "classification", 100, 20)
LARGE = DataInfo("image", (3, 64, 64), 12, "classification", 100, 20)
TABLE = DataInfo("table", (6,), 3, "classification", 100, 20)
VALUES = DataInfo("table", (6,), 2, "regression", 100, 20)
TEXT = DataInfo("text", (11,), 30, "language", 100, 20, vocabulary=30)


def layer(kind, **params):
    return {"type": kind, **params}


CONV_BLOCK = layer(
    "residual",
    layers=[
        layer("conv2d", out_channels=6, stride=2, padding=1, bias=False),
        layer("batch_norm"),
        layer("activation", function="silu"),
        layer("conv2d", out_channels=6, kernel_size=1, groups=2),
    ],
)

CASES = {
    "mlp on an image": ("mlp", {}, SMALL),
    "linear model": ("mlp", {"hidden": []}, TABLE),
    "mlp with everything": (
        "mlp",
        {"hidden": [9, 5], "activation": "tanh", "batch_norm": True, "dropout": 0.2},
        VALUES,
    ),
    "cuda_convnet": ("cuda_convnet", {}, IMAGE),
    "narrow cuda_convnet": ("cuda_convnet", {"width": 0.25}, SMALL),
    "resnet 8": ("resnet", {"depth": 8}, IMAGE),
    "resnet 8 odd sides": ("resnet", {"depth": 8, "width": 0.5}, SMALL),
    "resnet 20": ("resnet", {"depth": 20}, IMAGE),
    "resnet 18 cifar": ("resnet", {"depth": 18, "width": 0.25}, IMAGE),
    "resnet 18 imagenet": ("resnet", {"depth": 18, "width": 0.25}, LARGE),
    "resnet 18 imagenet on a small image": (
        "resnet",
        {"depth": 18, "stem": "imagenet", "width": 0.25},
        SMALL,
    ),
    "resnet 34": ("resnet", {"depth": 34, "width": 0.25}, IMAGE),
    "resnet 50": ("resnet", {"depth": 50, "width": 0.25}, LARGE),
    "convolutions": (
        "sequential",
        {
            "layers": [
                layer("conv2d", out_channels=4, kernel_size=2, padding=1),
                layer("group_norm", groups=2),
                layer("activation"),
                layer("max_pool2d", kernel_size=3, stride=1, padding=1),
                CONV_BLOCK,
                layer("layer_norm"),
                layer("avg_pool2d", kernel_size=2, padding=1),
                layer("dropout", p=0.1),
                layer("global_avg_pool"),
                layer("batch_norm"),
                layer("group_norm", groups=3),
                layer("linear", bias=False),
            ]
        },
        SMALL,
    ),
    "residual table": (
        "sequential",
        {
            "layers": [
                layer("residual", layers=[layer("linear", out_features=6), layer("layer_norm")]),
                layer("residual", layers=[layer("linear", out_features=8)], shortcut="projection"),
                layer("residual", layers=[layer("activation")], shortcut="projection"),
                layer("linear"),
            ]
        },
        TABLE,
    ),
    "rows of an image": (
        "sequential",
        {
            "layers": [
                layer("image_rows"),
                layer("gru", hidden_size=5),
                layer("causal_conv1d", out_channels=4, dilation=2, bias=False),
                layer("last_step"),
                layer("linear"),
            ]
        },
        IMAGE,
    ),
    "mean over time": (
        "sequential",
        {"layers": [layer("image_rows"), layer("mean_over_time"), layer("linear")]},
        SMALL,
    ),
    "character lstm": (
        "sequential",
        {
            "layers": [
                layer("embedding", dimension=5),
                layer("lstm", hidden_size=7, num_layers=2),
                layer("dropout"),
                layer("linear"),
            ]
        },
        TEXT,
    ),
    "character gru": (
        "sequential",
        {
            "layers": [
                layer("embedding", dimension=5),
                layer("residual", layers=[layer("gru", hidden_size=7, num_layers=3)]),
                layer("linear"),
            ]
        },
        TEXT,
    ),
    "character transformer": (
        "sequential",
        {
            "layers": [
                layer("embedding", dimension=6),
                layer("position_embedding"),
                layer(
                    "residual",
                    layers=[layer("layer_norm"), layer("causal_attention", heads=3)],
                ),
                layer("linear"),
            ]
        },
        TEXT,
    ),
    "causal convolutions": (
        "sequential",
        {
            "layers": [
                layer("embedding", dimension=5),
                layer("causal_conv1d", out_channels=8, kernel_size=4, dilation=2),
                layer("layer_norm"),
                layer("activation", function="gelu"),
                layer("residual", layers=[layer("causal_conv1d", out_channels=8)]),
                layer("linear"),
            ]
        },
        TEXT,
    ),
}
for function in ("leaky_relu", "elu", "selu", "sigmoid", "softplus"):
    CASES[function] = ("mlp", {"hidden": [3], "activation": function}, TABLE)


def inputs(data: DataInfo, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if data.kind == "text":
        return torch.randint(data.outputs, (batch, *data.input_shape), generator=generator)
    return torch.randn(batch, *data.input_shape, generator=generator)


@pytest.mark.parametrize("case", CASES)
def test_torch_builds_what_the_summary_says(case):
    name, params, data = CASES[case]
    summary = summarize(name, params, data)
    network = build(name, params, data, seed=0)
    x = inputs(data)
    before = x.clone()
    outputs = network(x)
    assert sum(p.numel() for p in network.parameters()) == summary.parameters
    assert outputs.shape == (2, *summary.output_shape)
    assert torch.isfinite(outputs).all()
    assert torch.equal(x, before)
    assert not any(getattr(m, "inplace", False) for m in network.modules())
    outputs.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def weighted_depth(network: nn.Module) -> int:
    kinds = (nn.Linear, nn.Conv2d, nn.Conv1d, nn.Embedding)
    shortcuts = {id(m) for name, m in network.named_modules() if name.endswith("shortcut")}
    found = [m for m in network.modules() if id(m) not in shortcuts]
    layers = sum(m.num_layers for m in found if isinstance(m, nn.RNNBase))
    return layers + sum(isinstance(m, kinds) for m in found)


@pytest.mark.parametrize("case", CASES)
def test_depth_counts_the_layers_with_weights(case):
    name, params, data = CASES[case]
    assert weighted_depth(build(name, params, data, seed=0)) == summarize(name, params, data).depth


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c][0] == "sequential"])
def test_every_layer_has_the_inferred_shape(case):
    name, params, data = CASES[case]
    network = build(name, params, data, seed=0)
    x = inputs(data)
    for planned, layer_module in zip(
        sequential_plan(MODELS.parse(name, params), data), network, strict=True
    ):
        x = layer_module(x)
        assert x.shape[1:] == planned.result.sizes
        assert sum(p.numel() for p in layer_module.parameters()) == planned.parameters


@pytest.mark.parametrize("case", ["cuda_convnet", "resnet 20", "resnet 18 imagenet"])
def test_activations_are_near_what_autograd_keeps(case):
    name, params, data = CASES[case]
    network = build(name, params, data, seed=0)
    parameters = {p.data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in parameters and tensor.is_floating_point():
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = network(inputs(data, 4)).sum()
    ratio = summarize(name, params, data).activations * 4 / sum(kept.values())
    assert loss.requires_grad
    assert 0.7 < ratio < 2


@pytest.mark.parametrize("case", ["mlp on an image", "cuda_convnet", "resnet 8", "character lstm"])
def test_the_seed_decides_and_the_global_state_stays(case):
    name, params, data = CASES[case]
    state = torch.get_rng_state()
    one, same, other = (build(name, params, data, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    pairs = zip(one.parameters(), same.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "case", ["character lstm", "character gru", "causal convolutions", "character transformer"]
)
def test_a_text_model_sees_no_later_character(case):
    name, params, data = CASES[case]
    network = build(name, params, data, seed=0).eval()
    x = inputs(data)
    changed = x.clone()
    changed[:, 6] = (changed[:, 6] + 1) % data.outputs
    with torch.no_grad():
        difference = (network(x) - network(changed)).abs().amax((0, 2))
    assert difference[:6].max() == 0
    assert difference[6] > 0


sizes = st.integers(1, 5)
windows = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["conv2d", "max_pool2d", "avg_pool2d"]),
        "kernel_size": sizes,
        "stride": st.integers(1, 3),
        "padding": st.integers(0, 2),
    }
)


@given(
    chain=st.lists(windows, min_size=1, max_size=4),
    sides=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    shortcut=st.booleans(),
)
@settings(max_examples=150)
def test_any_chain_of_windows_is_refused_or_has_the_inferred_shape(chain, sides, shortcut):
    data = DataInfo("image", (2, *sides), 3, "classification", 10, 10)
    layers = [{**w, "out_channels": 2} if w["type"] == "conv2d" else w for w in chain]
    if shortcut:
        layers = [layer("residual", layers=layers)]
    params = {"layers": [*layers, layer("flatten"), layer("linear")]}
    try:
        summary = summarize("sequential", params, data)
    except SpecError as error:
        event("refused")
        assert error.pointer.startswith("/params/layers/")  # noqa: PT017
        return
    event("built")
    network = build("sequential", params, data, seed=0)
    assert network(inputs(data)).shape == (2, 3)
    assert sum(p.numel() for p in network.parameters()) == summary.parameters


def test_a_group_of_one_value_takes_a_batch_of_one():
    layers = [{"type": "group_norm", "groups": 4}, {"type": "linear"}]
    info = DataInfo("table", (4,), 2, "classification", 8, 2)
    model = build("sequential", {"layers": layers}, info, 0)
    x = torch.randn(3, 4)
    assert torch.equal(model(x)[:1], model(x[:1]))
    assert torch.equal(model[0](x), nn.GroupNorm(4, 4)(x))
