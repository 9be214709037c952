"""A graph is trained as other models are, and goes back into the user's class."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import mlhf
from mlhf.core.errors import DataError, SpecError
from mlhf.data.info import DataInfo
from mlhf.models.build import build
from mlhf.models.specs import MODELS, summarize
from tests.engine.models.graph.networks import Vision

DIGITS = DataInfo("image", (1, 8, 8), 10, "classification", 100, 20)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    module = Vision(0.2)
    return module, mlhf.trace(module, torch.randn(2, 1, 8, 8)).save(
        tmp_path_factory.mktemp("net") / "net"
    )


@pytest.mark.parametrize("optimizer", ["adam", "mlhf"])
def test_it_trains_and_its_weights_load_into_the_users_class(network, optimizer, tmp_path):
    _, path = network
    result = mlhf.train(
        {
            "model": {"name": "graph", "params": {"network": str(path)}},
            "dataset": {"name": "digits", "params": {"train_samples": 200, "test_samples": 50}},
            "optimizer": {"name": optimizer},
            "budget": {"steps": 3},
        },
        run_dir=tmp_path,
    )
    assert result.status == "succeeded"
    trained = Vision(0.2)
    trained.load_state_dict(load_file(tmp_path / "artifacts" / "model.safetensors"))
    loaded = mlhf.load_model(tmp_path / "artifacts")  # by the graph alone
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(trained.eval()(x), loaded.module(x))


def test_initial_weights_are_those_given_or_fresh_by_seed(network):
    module, path = network
    params = {"network": str(path)}
    given = build("graph", params, DIGITS, seed=1)
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in given.state_dict().items())
    one, two, three = (
        build("graph", {**params, "initial": "fresh"}, DIGITS, seed=seed) for seed in (1, 1, 2)
    )
    for name, value in one.named_parameters():
        assert torch.equal(value, two.get_parameter(name))
        if "bias" not in name and value.ndim > 1 and "unused" not in name:
            assert not torch.equal(value, three.get_parameter(name))
            assert not torch.equal(value, given.get_parameter(name))
    assert torch.equal(one.get_buffer("scale"), module.scale)


def test_the_optimizer_finds_the_layers_that_it_finds_in_the_users_module(network):
    from mlhf.optimizers.mlhf.kronecker.blocks import layer_blocks

    module, path = network
    rebuilt = build("graph", {"network": str(path)}, DIGITS, seed=0)
    module.unused.requires_grad_(False)  # nothing trains it; the graph says so
    theirs, ours = (
        [[p.shape for p in block.parameters] for block in layer_blocks(each, 256)]
        for each in (module, rebuilt)
    )
    assert ours == theirs


def test_data_that_do_not_fit_are_refused(network):
    _, path = network
    params = {"network": str(path)}
    assert summarize("graph", params, DIGITS).output_shape == (10,)
    other = DataInfo("image", (3, 8, 8), 10, "classification", 100, 20)
    with pytest.raises(SpecError, match="takes samples of shape"):
        summarize("graph", params, other)
    with pytest.raises(SpecError, match="as many outputs"):
        summarize("graph", params, DataInfo("image", (1, 8, 8), 4, "classification", 100, 20))
    with pytest.raises(SpecError, match="missing"):
        summarize("graph", {"network": str(path) + "x.json"}, DIGITS)
    with pytest.raises(SpecError, match="one of the two"):
        MODELS.parse("graph", {})


def test_broken_files_are_refused(network, tmp_path):
    _, path = network
    (tmp_path / "a.json").write_text(path.read_text()[:-30])
    with pytest.raises(SpecError, match="broken"):
        build("graph", {"network": str(tmp_path / "a.json")}, DIGITS, seed=0)
    weights = load_file(path.with_suffix(".safetensors"))
    from mlhf.models.graph.network import load_weights, read_network

    module = read_network(path).module()
    with pytest.raises(DataError, match=r"no head\.weight"):
        load_weights(module, {k: v for k, v in weights.items() if k != "head.weight"})
    with pytest.raises(DataError, match="of shape"):
        load_weights(module, {**weights, "head.weight": torch.zeros(3)})


class _Price(nn.Module):
    """A regression network as people write it: one number a sample, (B,)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x):
        return self.layers(x).squeeze(-1)


@pytest.mark.parametrize("optimizer", ["mlhf", "kfac", "gauss_newton"])
def test_one_number_a_sample_needs_no_axis(optimizer, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(80, 4)
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=x.sum(1).numpy())
    module = _Price()
    path = mlhf.trace(module, x[:2]).save(tmp_path / "net")
    spec = {
        "model": {"name": "graph", "params": {"network": str(path)}},
        "dataset": {"name": "npz", "root": str(tmp_path)},
        "optimizer": {"name": optimizer},
        "budget": {"epochs": 8},
    }
    result = mlhf.train(spec, run_dir=tmp_path / "run")
    assert result.status == "succeeded"
    module.load_state_dict(load_file(tmp_path / "run" / "artifacts" / "model.safetensors"))
    loaded = mlhf.load_model(tmp_path / "run" / "artifacts")
    torch.testing.assert_close(loaded.module(x[:3]), module(x[:3]).unsqueeze(1))
    spread = (module(x) - module(x).mean()).detach()
    assert torch.corrcoef(torch.stack([spread, x.sum(1)]))[0, 1] > 0.9
