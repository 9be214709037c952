"""A traced module computes what the module does, under its names; what cannot be is refused."""

import json
import random

import pytest
import torch
from torch import nn

import mlhf
from mlhf.models.graph.checks import examine
from mlhf.models.graph.errors import TraceError
from mlhf.models.graph.module import GraphModule
from mlhf.models.graph.network import read_network
from mlhf.models.graph.spec import Graph
from tests.engine.models.graph.networks import CASES, LanguageModel, Vision


def batched(example, size):
    parts = example if isinstance(example, tuple) else (example,)
    return [part[torch.arange(size) % len(part)].roll(1, -1) for part in parts]


def run(module, inputs, training):
    torch.manual_seed(3)
    found = module.train(training)(*(part.clone() for part in inputs))
    return (
        list(found.values()) if isinstance(found, dict) else torch.utils._pytree.tree_leaves(found)
    )


@pytest.mark.parametrize("name", CASES)
def test_the_rebuilt_module_agrees_for_any_batch_in_both_modes(name, tmp_path):
    torch.manual_seed(0)
    make, example = CASES[name]
    module, inputs = make(), example()
    state = {k: v.clone() for k, v in module.state_dict().items()}
    network = mlhf.trace(module, inputs)
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert module.training
    rebuilt = read_network(network.save(tmp_path / "net")).module()  # through both files
    assert set(rebuilt.state_dict()) == set(state)
    for size in (1, 4, 7):
        for training in (False, True):
            if training and size == 1:
                continue  # batch norm
            ours, theirs = (run(m, batched(inputs, size), training) for m in (rebuilt, module))
            for mine, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
    make().load_state_dict(rebuilt.state_dict())
    assert sum(p.numel() for p in rebuilt.parameters()) == sum(
        p.numel() for p in module.parameters()
    )


def test_layers_keep_their_types_and_names_and_unused_ones_are_not_trained():
    module = Vision()
    module.group.weight.requires_grad_(False)
    graph = mlhf.trace(module, torch.randn(2, 1, 8, 8)).graph
    rebuilt = GraphModule(graph)
    kinds = {n: type(m) for n, m in rebuilt.named_modules() if type(m).__module__ != "mlhf"}
    for name, each in module.named_modules():
        if name not in ("", "stem"):
            assert kinds[name] is type(each)
    assert set(graph.frozen) == {"group.weight", "unused.weight", "unused.bias"}
    assert graph.training_nodes is None


def test_tied_parameters_stay_one():
    rebuilt = mlhf.trace(LanguageModel(), torch.randint(40, (2, 9))).module()
    assert rebuilt.get_parameter("head.weight") is rebuilt.get_parameter("embed.weight")


def test_the_graph_is_plain_json_and_is_checked_without_memory():
    network = mlhf.trace(Vision(), torch.randn(2, 1, 8, 8))
    text = json.dumps(network.to_json())
    assert "/" not in text.replace("pad/", "")  # no paths of the user's machine
    sizes = examine(Graph.model_validate_json(text))
    module = Vision()
    del module.unused
    assert sizes.parameters == sum(p.numel() for p in module.parameters())
    assert sizes.normalized_over == 16
    assert sizes.outputs[""].shape == [10]


class Refused(nn.Module):
    """Takes its forward from the test."""

    def __init__(self, compute):
        super().__init__()
        self.layer, self.compute = nn.Linear(4, 4), compute

    def forward(self, x):
        return self.compute(self, self.layer(x))


class Double(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return 2 * x

    @staticmethod
    def backward(context, gradient):
        return 2 * gradient


def branch(module, x):
    return x if x.sum() > 0 else -x


def loop(module, x):
    while x.norm().item() > 1:
        x = x / 2
    return x


def chosen(module, x):
    return x[x > 0].sum() * x


def custom(module, x):
    return Double.apply(x) + 1


def drawn(module, x):
    return x * random.random()


def by_batch(module, x):
    for _ in range(len(x)):
        x = x + 1
    return x


def counted(module, x):
    module.calls = getattr(module, "calls", 0) + 1
    return x * module.calls


def through_numpy(module, x):
    return torch.from_numpy(x.detach().numpy()) + x


def unique(module, x):
    return torch.unique(x).sum() + x


@pytest.mark.parametrize(
    ("compute", "told"),
    [
        (branch, ["bool", "x if x.sum() > 0 else -x", "torch.where"]),
        (loop, ["item", "while x.norm().item() > 1", "torch.where"]),
        (chosen, ["mask", "x[x > 0].sum()"]),
        (custom, ["autograd.Function", "Double.apply(x) + 1"]),
        (by_batch, ["another number of samples"]),
        (through_numpy, ["numpy", "x.detach().numpy()"]),
        (unique, ["unique", "torch.unique(x).sum() + x"]),
        (counted, []),
    ],
)
def test_what_a_graph_cannot_do_is_refused_with_its_line(compute, told):
    module = Refused(compute)
    with pytest.raises(TraceError) as error:
        mlhf.trace(module, torch.randn(2, 4))
    for each in told:
        assert each in str(error.value)
    assert error.value.instead


def test_an_output_that_is_no_tensor_is_refused():
    with pytest.raises(TraceError, match="use_cache=False"):
        mlhf.trace(Refused(lambda module, x: (x, object())), torch.randn(2, 4))


def test_examples_that_do_not_fit_the_forward_are_refused():
    with pytest.raises(TraceError, match="does not take"):
        mlhf.trace(Vision(), {"picture": torch.randn(2, 1, 8, 8)})
    with pytest.raises(TraceError, match="first axis"):
        mlhf.trace(CASES["towers"][0](), (torch.randn(2, 5), torch.randn(3, 6, 3)))
    with pytest.raises(TraceError, match="Sequential"):
        mlhf.trace(nn.Linear(3, 3), torch.randn(2, 3))
