"""Trained networks as ONNX and torch.export files: the same outputs, for any batch."""

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

import mlhf
from mlhf.core.config import Component
from mlhf.core.errors import DataError
from mlhf.data.info import DataInfo
from mlhf.models.build import build
from mlhf.models.files import load_model, save_model
from tests.engine.models.graph.networks import CASES

IMAGES = DataInfo("image", (1, 8, 8), 3, "classification", 10, 10)
STEPS = DataInfo("sequence", (6, 2), 3, "classification", 10, 10, positions=(6,))
TOKENS = DataInfo("text", (9,), 40, "language", 10, 10, vocabulary=40)
LSTM = [{"type": "lstm", "hidden_size": 5}, {"type": "linear"}]
ATTENTION = [
    {"type": "embedding", "dimension": 8},
    {"type": "causal_attention", "heads": 2},
    {"type": "linear"},
]
PREPARED = {"mean": [0.5], "std": [2.0]}


def saved(folder, name, params, info, preprocessing):
    module = build(name, params, info, seed=0)
    model = Component(name=name, params=params)
    save_model(folder, module, model, info, preprocessing, "cross_entropy")
    return load_model(folder)


@pytest.fixture
def network(request, tmp_path):
    if request.param == "lstm":
        both = {"mean": [0.0, 1.0], "std": [1.0, 2.0]}
        return saved(tmp_path, "sequential", {"layers": LSTM}, STEPS, both)
    if request.param == "attention":
        return saved(tmp_path, "sequential", {"layers": ATTENTION}, TOKENS, {})
    if request.param == "graph":
        torch.manual_seed(0)
        make, example = CASES["vision"]
        path = mlhf.trace(make(), example()).save(tmp_path / "net")
        info = DataInfo("image", (1, 8, 8), 10, "classification", 10, 10)
        return saved(tmp_path, "graph", {"network": str(path)}, info, PREPARED)
    params = {"mlp": {"hidden": [7], "batch_norm": True}, "convnet": {"width": 0.125}}
    name = {"convnet": "cuda_convnet"}.get(request.param, request.param)
    small = params.get(request.param, {"depth": 8, "width": 0.25})
    return saved(tmp_path, name, small, IMAGES, PREPARED)


def inputs(network, count):
    if network.info.kind == "text":
        return torch.randint(40, (count, 9))
    return torch.randn(count, *network.info.input_shape)


# Each takes seconds, most of them in torch.
@pytest.mark.parametrize("network", ["lstm", "attention", "graph"], indirect=True)
def test_the_program_of_torch_export_computes_the_same(network, tmp_path):
    program = torch.export.load(network.export(tmp_path / "model.pt2")).module()
    for count in (1, 2, 5):
        x = inputs(network, count)
        torch.testing.assert_close(program(x), network.module(x))


@pytest.mark.parametrize(
    "network", ["mlp", "convnet", "resnet", "lstm", "attention", "graph"], indirect=True
)
def test_onnx_computes_the_same(network, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = network.export(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(path))
    for count in (1, 2, 5):
        x = inputs(network, count)
        (found,) = session.run(["output"], {"input": x.numpy()})
        expected = network.module(x).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_outputs_of_several_keep_their_names(tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    from mlhf.models.export import export

    make, example = CASES["language"]
    module = mlhf.trace(make(), example()).module().eval()
    path = export(module, TOKENS, tmp_path / "model.onnx", torch.float32)
    session = onnxruntime.InferenceSession(str(path))
    x = torch.randint(40, (3, 9))
    expected = module(x)
    names = [each.name for each in session.get_outputs()]
    assert names == list(expected)
    found = session.run(names, {"input": x.numpy()})
    for mine, other in zip(found, pytree.tree_leaves(expected), strict=True):
        np.testing.assert_allclose(mine, other.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    network = saved(tmp_path, "mlp", {"hidden": [4]}, IMAGES, PREPARED)
    with pytest.raises(DataError, match=r"ending in \.onnx or \.pt2"):
        network.export(tmp_path / "model.pb")

    def missing(*_, **__):
        raise ModuleNotFoundError("no onnxscript", name="onnxscript")

    monkeypatch.setattr(torch.onnx, "export", missing)
    with pytest.raises(DataError, match=r"pip install 'mlhf\[onnx\]'"):
        network.export(tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
