"""Hooks on gradients: one that changes them is refused, one that looks changes nothing."""

import pytest
import torch
from torch import nn

from mlhf.curvature import linearize
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.fisher import EmpiricalFisher
from mlhf.curvature.ggn import GGN
from mlhf.curvature.hessian import Hessian
from mlhf.curvature.microbatches import MicrobatchCurvature
from mlhf.optimizers.mlhf.paper.optimizer import PaperMLHF
from tests.engine.curvature.cases import (
    Custom,
    D,
    Sine,
    assert_close,
    case,
    flat,
    split,
)


class Hooked(nn.Module):
    """Hangs a hook on a tensor, or on a node, in its forward pass."""

    def __init__(self, hang):
        super().__init__()
        self.first, self.out, self.hang = nn.Linear(6, 4), nn.Linear(4, 3), hang

    def forward(self, x):
        h = torch.relu(self.first(x))
        if self.hang is not None:
            self.hang(h)
        return self.out(h)


def _made(hang=None):
    torch.manual_seed(0)
    return Hooked(hang).to(D), torch.randn(5, 6, dtype=D), torch.randint(0, 3, (5,))


def _each(change):
    """A tuple of gradients, as modules and nodes have them, changed; None if that is None."""

    def hook(gradients):
        changed = [None if g is None else change(g) for g in gradients]
        return None if changed[-1] is None else tuple(changed)

    return hook


def _on_a_tensor(change):
    return _made(lambda h: h.register_hook(change))


def _before_a_node(change):
    return _made(lambda h: h.grad_fn.register_prehook(_each(change)))


def _after_a_node(change):
    return _made(lambda h: h.grad_fn.register_hook(lambda inputs, outputs: _each(change)(inputs)))


def _on_a_parameter(change):
    made = _made()
    made[0].first.weight.register_hook(change)
    return made


def _after_a_module(change):
    made = _made()
    hook = lambda module, inputs, outputs: _each(change)(inputs)  # noqa: E731
    made[0].out.register_full_backward_hook(hook)
    return made


def _before_a_module(change):
    made = _made()
    hook = lambda module, outputs: _each(change)(outputs)  # noqa: E731
    made[0].out.register_full_backward_pre_hook(hook)
    return made


PLACES = {
    f.__name__.strip("_"): f
    for f in (
        *(_on_a_tensor, _before_a_node, _after_a_node),
        *(_on_a_parameter, _after_a_module, _before_a_module),
    )
}
CHANGES = {
    "scaled": lambda g: 2 * g,
    "dropped": torch.zeros_like,
    "clipped, but not on this batch": lambda g: g.clamp(-10, 10),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", PLACES)
def test_a_hook_that_changes_gradients_is_refused(place, change):
    model, x, y = PLACES[place](CHANGES[change])
    for kind in (GGN, EmpiricalFisher, MicrobatchCurvature):
        matrix = kind(model, "cross_entropy", x, y)
        for _ in range(2):  # the second time as well
            with pytest.raises(CurvatureError, match="a hook changes gradients"):
                matrix.product([torch.zeros_like(p) for p in model.parameters()])
    with pytest.raises(CurvatureError, match="a hook changes gradients"):
        PaperMLHF(model, meta_checkpoint=None).step(x, y)
    with pytest.raises(CurvatureError, match="not known whether"):
        Hessian(model, "cross_entropy", x, y, custom_functions=True)


@pytest.mark.parametrize("place", PLACES)
def test_a_hook_that_looks_is_let_be(place, dense):
    seen = []
    model, x, y = PLACES[place](lambda g: seen.append(g.shape))
    expected = dense(model, "cross_entropy", x, y)
    seen.clear()
    ggn = GGN(model, "cross_entropy", x, y)
    v = torch.randn(len(expected.gradient), dtype=D)
    assert_close(flat(ggn.gradient), expected.gradient)
    assert_close(flat(ggn.product(split(v, model))), expected.matrix @ v)
    assert seen


def test_a_hook_that_was_removed_is_not_there():
    model, x, y = _made()
    model.first.weight.register_hook(lambda g: 2 * g).remove()
    GGN(model, "cross_entropy", x, y).product(list(model.parameters()))
    Hessian(model, "cross_entropy", x, y).product(list(model.parameters()))


def test_a_hook_that_comes_after_the_gradient_is_seen():
    model, x, y = _made()
    ggn = GGN(model, "cross_entropy", x, y)
    model.first.weight.register_hook(lambda g: 2 * g)
    with pytest.raises(CurvatureError, match="a hook changes gradients"):
        ggn.product(ggn.gradient)


def test_where_it_cannot_be_told_what_a_hook_does_it_is_refused():
    torch.manual_seed(0)
    model = Custom(Sine)
    model.out.weight.register_hook(lambda g: None)
    ggn = GGN(model, "cross_entropy", torch.randn(5, 6), torch.randint(0, 3, (5,)))
    with pytest.raises(CurvatureError, match="not known whether"):
        ggn.product(ggn.gradient)


@pytest.mark.parametrize("name", ["mlp", "checkpointed", "batch_norm", "encoder", "lstm"])
def test_networks_without_such_hooks_pay_for_no_check(name, monkeypatch):
    """Nor do those with forward hooks, or hooks that only ``backward()`` runs."""
    model, x, y = case(name)
    for module in model.modules():
        module.register_forward_hook(lambda *_: None)
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: None)
    monkeypatch.setattr(linearize, "_is_adjoint", None)
    ggn = GGN(model, "cross_entropy", x, y)
    ggn.product(ggn.gradient)
