"""Several outputs, chosen parameters, and losses named and general, against dense matrices."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree as pytree

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.ggn import GGN
from mlhf.curvature.losses import LOSSES, autograd_loss
from tests.engine.curvature.cases import (
    D,
    Heads,
    assert_close,
    case,
    flat,
    shake,
    split,
)


def _joint_loss(z, y):
    """Couples the outputs, so that the blocks of its Hessian between them count."""
    found = [
        t for t in pytree.tree_leaves(z) if isinstance(t, torch.Tensor) and t.is_floating_point()
    ]
    a, rest = found[0], torch.cat([t.reshape(-1) for t in found[1:]])
    return F.cross_entropy(a * (1 + rest.square().mean()), y) + rest.exp().mean()


def _dense_by_parts(model, loss, x, y):
    """JᵀHJ of all outputs laid side by side, built from autograd's rows."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    z = model(x)
    leaves, spec = pytree.tree_flatten(z)
    at = [i for i, t in enumerate(leaves) if isinstance(t, torch.Tensor) and t.is_floating_point()]
    every = torch.cat([leaves[i].reshape(-1) for i in at])
    rows = [
        flat(
            torch.autograd.grad(
                e, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        )
        for e in every
    ]
    jacobian = torch.stack(rows)

    def of_flat(v):
        parts = v.split([leaves[i].numel() for i in at])
        filled = list(leaves)
        for i, part in zip(at, parts, strict=True):
            filled[i] = part.view(leaves[i].shape)
        return loss(pytree.tree_unflatten(filled, spec), y)

    hessian = torch.autograd.functional.hessian(of_flat, every.detach())
    gradient = torch.autograd.functional.jacobian(of_flat, every.detach())
    return jacobian.T @ hessian @ jacobian, jacobian.T @ gradient, of_flat(every.detach())


@pytest.mark.parametrize("form", ["tuple", "dict", "nested"])
def test_a_loss_over_several_outputs(form):
    torch.manual_seed(0)
    model = shake(Heads(form).to(D))
    x, y = torch.randn(5, 6, dtype=D), torch.randint(0, 3, (5,))
    matrix, gradient, loss = _dense_by_parts(model, _joint_loss, x, y)
    ggn = GGN(model, _joint_loss, x, y)
    v = torch.randn(len(gradient), dtype=D)
    assert_close(ggn.loss, loss)
    assert_close(flat(ggn.gradient), gradient)
    assert_close(flat(ggn.product(split(v, model))), matrix @ v)
    assert_close(ggn.quadratic(split(v, model)), v @ matrix @ v)


def test_an_output_the_loss_leaves_out():
    torch.manual_seed(0)
    model = Heads("tuple").to(D)
    x, y = torch.randn(5, 6, dtype=D), torch.randint(0, 3, (5,))
    ggn = GGN(model, lambda z, y: F.cross_entropy(z[0], y), x, y)
    product = dict(zip(dict(model.named_parameters()), ggn.product(ggn.gradient), strict=True))
    assert not product["second.weight"].any()
    alone = nn.Sequential(model.body, nn.Tanh(), model.first)
    expected = GGN(alone, "cross_entropy", x, y)
    assert_close(product["body.weight"], expected.product(expected.gradient)[0])


def test_a_recurrent_layer_alone_returns_a_tuple(dense):
    torch.manual_seed(0)
    model, x = nn.LSTM(3, 2).to(D), torch.randn(4, 3, 3, dtype=D)
    y = torch.randn(4, 3, 2, dtype=D)
    both = lambda z, y: F.mse_loss(z[0], y) + z[1][1].square().sum()  # noqa: E731
    ggn = GGN(model, both, x, y)
    torch._C._set_mkldnn_enabled(False)
    matrix, gradient, _ = _dense_by_parts(model, both, x, y)
    torch._C._set_mkldnn_enabled(True)
    v = torch.randn(len(gradient), dtype=D)
    assert_close(flat(ggn.product(split(v, model))), matrix @ v)


@pytest.mark.parametrize("loss", LOSSES)
def test_named_losses_are_the_general_form_of_the_same_function(loss):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).to(D), torch.randn(5, 6)
    x = x.to(D)
    y = torch.randint(0, 3, (5,)) if loss == "cross_entropy" else torch.rand(5, 3, dtype=D)
    named, general = GGN(model, loss, x, y), GGN(model, autograd_loss(loss), x, y)
    v = [torch.randn_like(p) for p in model.parameters()]
    assert_close(named.loss, general.loss)
    assert_close(flat(named.gradient), flat(general.gradient))
    assert_close(flat(named.product(v)), flat(general.product(v)))


def test_binary_cross_entropy_in_closed_form():
    """Logistic regression: G = Xᵀ diag(p(1−p)) X / N."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 1, bias=False).to(D), torch.randn(7, 4, dtype=D)
    y = torch.randint(0, 2, (7, 1))
    ggn = GGN(model, "binary_cross_entropy", x, y)
    p = torch.sigmoid(x @ model.weight.detach().T)
    assert_close(ggn.loss, -(y * p.log() + (1 - y) * (1 - p).log()).mean())
    assert_close(ggn.gradient[0], ((p - y).T @ x) / 7)
    v = torch.randn(1, 4, dtype=D)
    assert_close(ggn.product([v])[0], (x.T @ (p * (1 - p) * x) @ v.T / 7).T)


def test_binary_cross_entropy_far_out_keeps_its_curvature():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(30.0)
    ggn = GGN(model, "binary_cross_entropy", torch.ones(1, 1), torch.ones(1, 1))
    product = float(ggn.product([torch.ones(1, 1)])[0])
    assert product == pytest.approx(9.36e-14, rel=1e-2, abs=0)  # 1 − p would be 0 in float32


@pytest.mark.parametrize("name", ["mlp", "batch_norm2d", "lstm", "encoder_no_dropout", "shared"])
def test_a_chosen_subset_of_parameters_has_its_block_of_the_matrix(name, dense):
    model, x, y = case(name)
    expected = dense(model, "cross_entropy", x, y)
    parameters = list(model.parameters())
    chosen = list(range(len(parameters)))[::-2]  # not in the model's order
    ends = torch.tensor([0, *(p.numel() for p in parameters)]).cumsum(0)
    index = torch.cat([torch.arange(int(ends[i]), int(ends[i + 1])) for i in chosen])
    ggn = GGN(model, "cross_entropy", x, y, [parameters[i] for i in chosen])
    v = torch.randn(len(index), dtype=D)
    shaped = [
        part.view(parameters[i].shape)
        for i, part in zip(chosen, v.split([parameters[i].numel() for i in chosen]), strict=True)
    ]
    assert_close(flat(ggn.gradient), expected.gradient[index])
    assert_close(flat(ggn.product(shaped)), expected.matrix[index][:, index] @ v)


def test_parameters_that_cannot_be_told_apart_are_refused():
    model, x, y = nn.Linear(3, 2), torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    with pytest.raises(CurvatureError, match="twice"):
        GGN(model, "cross_entropy", x, y, [model.weight, model.weight])
    with pytest.raises(CurvatureError, match="leaves"):
        GGN(model, "cross_entropy", x, y, [model.weight * 1])
    with pytest.raises(CurvatureError, match="no parameter"):
        GGN(model, "cross_entropy", x, y, [])
    with pytest.raises(CurvatureError, match="by a graph"):
        GGN(nn.ReLU(), "cross_entropy", x, y, [model.weight])


def test_an_embedding_that_scales_its_gradient_is_refused():
    model = nn.Embedding(3, 2, scale_grad_by_freq=True)
    ggn = GGN(model, "cross_entropy", torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    with pytest.raises(CurvatureError, match="not its derivative"):
        ggn.product(ggn.gradient)


def _masked():
    model, x, _ = _three_classes()
    return model, x, torch.tensor([0, -100, 2, 1, -100, -100, 0, 1])


def _three_classes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return model, torch.randn(8, 4, dtype=D), torch.randint(0, 3, (8,))


def test_cross_entropy_leaves_out_positions_of_class_minus_100():
    model, x, y = _masked()
    counted = y != -100
    found = GGN(model, "cross_entropy", x, y)
    expected = GGN(model, "cross_entropy", x[counted], y[counted])
    assert_close(found.loss, expected.loss)
    v = [torch.randn_like(p) for p in found.parameters]
    for mine, theirs in (
        (found.gradient, expected.gradient),
        (found.product(v), expected.product(v)),
    ):
        assert_close(flat(mine), flat(theirs))
    as_function = GGN(model, F.cross_entropy, x, y)
    assert_close(flat(found.product(v)), flat(as_function.product(v)))


@pytest.mark.parametrize("label", [3, -1, -99])
def test_a_class_that_there_is_not_is_named(label):
    model, x, y = _three_classes()
    y[2] = label
    with pytest.raises(CurvatureError, match=r"labels from .* 3 classes.* -100 are ignored"):
        GGN(model, "cross_entropy", x, y)


@pytest.mark.parametrize("inside", [True, False])
def test_a_loss_that_depends_on_parameters_beside_the_outputs_is_refused(inside):
    model, x, y = _three_classes()
    if inside:

        def loss(z, y):
            return F.cross_entropy(z, y) + 0.1 * model[2].weight.square().sum()
    else:

        def loss(z, y):  # the model's own graph, by another way
            return F.cross_entropy(z, y) + model[2](torch.ones(5, dtype=D)).sum()

    with pytest.raises(CurvatureError, match=r"beside .* outputs: 2.weight.*weight_decay"):
        GGN(model, loss, x, y)
    others = [model[0].weight, model[0].bias]
    GGN(model, loss, x, y, others)  # those it knows of are in the outputs alone


def test_a_teacher_in_the_loss_is_no_parameter_of_the_model():
    model, x, y = _three_classes()
    teacher = nn.Linear(4, 3).double()

    def loss(z, y):
        return F.kl_div(
            z.log_softmax(-1), teacher(x).log_softmax(-1), log_target=True, reduction="batchmean"
        )

    GGN(model, loss, x, y)


class _OwnLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = _three_classes()[0]

    def forward(self, batch):
        return F.cross_entropy(self.inner(batch[0]), batch[1])


def test_a_model_that_returns_its_own_loss_is_refused():
    _, x, y = _three_classes()
    with pytest.raises(CurvatureError, match=r"computes its own loss.* such as logits"):
        GGN(_OwnLoss(), lambda z, y: z, (x, y), y)


def test_so_is_one_that_returns_it_beside_its_outputs():
    _, x, y = _three_classes()

    class Both(_OwnLoss):
        def forward(self, batch):
            z = self.inner(batch[0])
            return {"loss": F.cross_entropy(z, batch[1]), "logits": z}

    with pytest.raises(CurvatureError, match="computes its own loss"):
        GGN(Both(), lambda z, y: z["loss"], (x, y), y)
    found = GGN(Both(), lambda z, y: F.cross_entropy(z["logits"], y), (x, y), y)
    expected = GGN(_three_classes()[0], "cross_entropy", x, y)
    assert_close(flat(found.gradient), flat(expected.gradient))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            lambda z, y: F.cross_entropy(z, y, reduction="none"),
            r"one number, .* not a tensor \(8,\)",
        ),
        (lambda z, y: 3.0, "one number, .* not 3.0"),
        (lambda z, y: z.detach().sum(), "was it detached"),
    ],
)
def test_what_is_no_loss_is_refused(loss, message):
    model, x, y = _three_classes()
    with pytest.raises(CurvatureError, match=message):
        GGN(model, loss, x, y)


def test_a_loss_of_one_element_is_a_number():
    model, x, y = _three_classes()
    found = GGN(model, lambda z, y: F.cross_entropy(z, y).reshape(1), x, y)
    assert found.loss.shape == ()
