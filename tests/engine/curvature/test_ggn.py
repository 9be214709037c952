"""Gauss-Newton products of every kind of layer against the dense matrix."""

import contextlib
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.forward_pass import trainable
from mlhf.curvature.ggn import GGN
from mlhf.curvature.hessian import Hessian
from mlhf.curvature.losses import autograd_loss
from tests.engine.curvature.cases import (
    ALL,
    FIRST,
    Custom,
    D,
    Sine,
    SineCut,
    SineOnce,
    assert_close,
    case,
    flat,
    split,
)


@pytest.mark.parametrize("name", ALL)
def test_products_equal_those_of_the_dense_matrix(name, dense):
    model, x, y = case(name)
    expected = dense(model, "cross_entropy", x, y)
    ggn = GGN(model, "cross_entropy", x, y)
    assert_close(ggn.loss, expected.loss)
    assert_close(flat(ggn.gradient), expected.gradient)
    n = len(expected.gradient)
    u, v = torch.randn(n, dtype=D), torch.randn(n, dtype=D)
    ju, jv = ggn.jvps([split(w, model) for w in (u, v)])  # at once, before any alone
    for one, other, expect in (
        (ju, jv, u @ expected.matrix @ v),
        (jv, jv, v @ expected.matrix @ v),
    ):
        pairs = zip(one, ggn.output_hessian(other), strict=True)
        assert_close(sum((a * b).sum() for a, b in pairs), expect)
    gu, gv = (flat(ggn.product(split(w, model))) for w in (u, v))
    assert_close(gv, expected.matrix @ v)
    assert_close(gu, expected.matrix @ u)
    assert_close(u @ gv, v @ gu)
    assert v @ gv >= 0
    assert_close(ggn.quadratic(split(v, model)), v @ expected.matrix @ v)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["residual_conv", "lstm"])  # the first has batch norm
def test_products_on_a_gpu_are_those_on_a_cpu(name):
    model, x, y = case(name)
    there = copy.deepcopy(model).cuda()
    v = [torch.randn_like(p) for p in model.parameters()]
    here = GGN(model, "cross_entropy", x, y)
    ggn = GGN(there, "cross_entropy", x.cuda(), y.cuda())
    product = ggn.product([t.cuda() for t in v])
    assert all(t.is_cuda for t in product)
    assert_close(ggn.loss.cpu(), here.loss)
    assert_close(flat(ggn.gradient).cpu(), flat(here.gradient))
    assert_close(flat(product).cpu(), flat(here.product(v)))
    for mine, theirs in zip(there.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(mine.cpu(), theirs)


def test_mse_products_equal_those_of_the_dense_matrix(dense):
    model, x, _ = case("mlp")
    y = torch.randn(5, 3, dtype=D)
    expected = dense(model, "mse", x, y)
    ggn = GGN(model, "mse", x, y)
    v = torch.randn(len(expected.gradient), dtype=D)
    assert_close(ggn.loss, expected.loss)
    assert_close(flat(ggn.gradient), expected.gradient)
    assert_close(flat(ggn.product(split(v, model))), expected.matrix @ v)


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (F.cross_entropy, "cross_entropy"),
        (lambda z, y: F.mse_loss(z, F.one_hot(y, 3).to(D)), None),
        (lambda z, y: z.sum(), None),
    ],
)
def test_a_loss_given_as_a_function(loss, named):
    model, x, y = case("mlp")
    ggn = GGN(model, loss, x, y)
    v = [torch.randn_like(p) for p in trainable(model)]
    product = flat(ggn.product(v))
    if named is None:  # the same product by the definition, from autograd's own pieces
        z, u = torch.autograd.functional.jvp(
            lambda *p: torch.func.functional_call(
                model, dict(zip(dict(model.named_parameters()), p, strict=True)), x
            ),
            tuple(model.parameters()),
            tuple(v),
        )
        w = torch.autograd.functional.hvp(lambda z: loss(z, y), z.detach(), u.detach())[1]
        expected = flat(torch.autograd.grad(model(x), trainable(model), w))
        assert (product - expected).abs().max() < 1e-12
    else:
        other = GGN(model, named, x, y)
        assert_close(flat(ggn.gradient), flat(other.gradient))
        assert_close(product, flat(other.product(v)))


def test_relu_networks_have_the_hessians_diagonal_blocks(dense):
    model, x, y = case("ReLU")
    ggn = GGN(model, "cross_entropy", x, y)
    parameters = trainable(model)
    loss = F.cross_entropy(model(x), y)
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    for i, p in enumerate(parameters):
        v = [torch.zeros_like(q) for q in parameters]
        v[i] = torch.randn_like(p)
        (hessian,) = torch.autograd.grad(gradient[i], p, v[i], retain_graph=True)
        assert_close(ggn.product(v)[i], hessian)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("function", [SineOnce, SineCut])
def test_a_backward_that_cannot_be_differentiated_is_refused(function, first, autocast):
    torch.manual_seed(0)
    model, x, y = Custom(function), torch.randn(5, 6), torch.randint(0, 3, (5,))
    ggn = GGN(model, "cross_entropy", x, y, autocast=autocast)
    for _ in range(2):  # the second time as well
        with pytest.raises(CurvatureError, match="would be wrong"):
            ggn.product(FIRST[first](model))


@pytest.mark.parametrize("function", [Sine, SineCut])
def test_the_check_of_a_backward_draws_no_random_numbers(function):
    torch.manual_seed(0)
    model, x, y = Custom(function), torch.randn(5, 6), torch.randint(0, 3, (5,))
    ggn = GGN(model, "cross_entropy", x, y)
    before = torch.get_rng_state()
    with contextlib.suppress(CurvatureError):
        ggn.product(ggn.gradient)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_backward_is_checked_once():
    """The checks are backward passes, as all that a product does there."""
    passes = []

    class Counted(Sine):
        @staticmethod
        def backward(ctx, gradient):
            passes.append(1)
            return Sine.backward(ctx, gradient)

    model, x, y = Custom(Counted), torch.randn(5, 6), torch.randint(0, 3, (5,))
    ggn = GGN(model, "cross_entropy", x, y)
    counts = []
    for _ in range(3):
        passes.clear()
        ggn.product(ggn.gradient)
        counts.append(len(passes))
    assert counts == [3, 1, 1]  # u ↦ Jᵀu and the check's Jᵀw, then Jᵀw of each product


@pytest.mark.parametrize("name", ["batch_norm", "batch_norm2d"])
def test_running_statistics_move_once_as_in_a_plain_step(name):
    model, x, y = case(name)
    plain = copy.deepcopy(model)
    plain(x)
    ggn = GGN(model, "cross_entropy", x, y)
    for _ in range(3):
        ggn.product(ggn.gradient)
    for mine, theirs in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", ["dropout", "dropout2d", "lstm_deep"])
def test_one_mask_is_drawn_and_products_draw_none(name):
    model, x, y = case(name)
    torch.manual_seed(3)
    model(x)
    after_plain = torch.get_rng_state()
    torch.manual_seed(3)
    ggn = GGN(model, "cross_entropy", x, y)
    ggn.product(ggn.gradient)
    assert torch.equal(torch.get_rng_state(), after_plain)


@pytest.mark.parametrize("matrix", [GGN, Hessian])
def test_parameters_changed_under_a_product_are_noticed(matrix):
    """Also after a product, where a walk of the graph has all that it needs."""
    model, x, y = case("mlp")
    curvature = matrix(model, "cross_entropy", x, y)
    curvature.product(curvature.gradient)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    with pytest.raises(CurvatureError, match="the parameters were changed"):
        curvature.product(curvature.gradient)
    with pytest.raises(CurvatureError, match="the parameters were changed"):
        curvature.quadratic(curvature.gradient)


def test_switches_are_as_before_afterwards():
    read = torch._C
    before = read._get_mkldnn_enabled(), read._get_flash_sdp_enabled()
    model, x, y = case("lstm")
    GGN(model, "cross_entropy", x, y)
    assert (read._get_mkldnn_enabled(), read._get_flash_sdp_enabled()) == before


def test_frozen_parameters_are_left_out():
    model, x, y = case("mlp")
    model[0].weight.requires_grad_(False)
    ggn = GGN(model, "cross_entropy", x, y)
    assert [p.shape for p in ggn.gradient] == [p.shape for p in trainable(model)]
    assert len(ggn.gradient) == 5


def test_what_has_no_product_says_so():
    x, y = torch.randn(2, 3), torch.tensor([0, 1])
    with pytest.raises(CurvatureError, match="one tensor"):
        GGN(nn.LSTM(3, 2), "cross_entropy", x, y)
    with pytest.raises(CurvatureError, match="no parameter"):
        GGN(nn.ReLU(), "cross_entropy", x, y)
    with pytest.raises(CurvatureError, match="integer classes"):
        GGN(nn.Linear(3, 2), "cross_entropy", x, torch.randn(2))
    with pytest.raises(CurvatureError, match="shaped like"):
        GGN(nn.Linear(3, 2), "mse", x, torch.randn(2, 1))
    with pytest.raises(ValueError, match="unknown loss"):
        GGN(nn.Linear(3, 2), "hinge", x, y)


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        (2, "0 to 2"),
        (-1, "-1 to 0"),
    ],
)
def test_labels_beyond_the_classes_are_named(label, shown):
    x, y = torch.randn(2, 3), torch.tensor([0, label])
    with pytest.raises(CurvatureError, match=f"labels from {shown}, but the output has 2 classes"):
        GGN(nn.Linear(3, 2), "cross_entropy", x, y)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_are_integers_of_any_size(dtype):
    model, x, y = nn.Linear(3, 2), torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    small = GGN(model, "cross_entropy", x, y.to(dtype))
    expected = F.cross_entropy(model(x), y)
    assert torch.allclose(small.loss, expected.detach())
    assert torch.equal(autograd_loss("cross_entropy")(model(x), y.to(dtype)), expected)


def test_the_gradient_is_also_had_where_it_passes():
    """At a layer's output, overwritten in place after it, and None where nothing passes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)).to(D)
    aside = nn.Linear(3, 2).to(D)
    x, y = torch.randn(5, 3, dtype=D), torch.randint(0, 2, (5,))
    edges = []
    hook = model[0].register_forward_hook(
        lambda m, i, output: edges.append(torch.autograd.graph.get_gradient_edge(output))
    )

    def watched(output):
        return [*edges, torch.autograd.graph.get_gradient_edge(aside(x))]

    ggn = GGN(model, "cross_entropy", x, y, edges=watched)
    hook.remove()
    at, nowhere = ggn.edge_gradients
    assert nowhere is None
    hidden = model[0](x).detach().requires_grad_()
    loss = F.cross_entropy(model[2](F.relu(hidden)), y)
    assert_close(at, torch.autograd.grad(loss, hidden)[0])
    plain = GGN(model, "cross_entropy", x, y)
    assert plain.edge_gradients == []
    assert_close(flat(ggn.gradient), flat(plain.gradient))


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_trace_of_the_losss_hessian_and_the_square_of_its_gradient(loss):
    torch.manual_seed(0)
    model, x = nn.Linear(3, 4).to(D), torch.randn(2000, 3, dtype=D)
    y = torch.randint(0, 4, (2000,))
    target = y if loss == "cross_entropy" else F.one_hot(y, 4).to(D)
    z = model(x).detach()
    if loss == "cross_entropy":
        p = torch.softmax(z, -1)
        trace, gradient = (p - p.square()).sum() / len(z), p - F.one_hot(y, 4)
    else:
        trace, gradient = z.new_tensor(2.0), (z - target) * 2 / 4
    ggn = GGN(model, loss, x, target)
    found = ggn.output_trace(torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, trace, rtol=0.06, atol=0)
    square = (gradient / len(z)).square().sum()
    torch.testing.assert_close(ggn.output_gradient_square(), square)


def test_the_trace_is_not_negative_where_the_data_are_fitted():
    """There the trace is of the size of its rounding errors, of either sign."""

    class Offset(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset = nn.Parameter(torch.zeros(10))

        def forward(self, x):
            return x + self.offset

    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        x = 3 * torch.randn(2, 10, generator=generator)
        y = x.argmax(1)
        x[torch.arange(2), y] += 15
        ggn = GGN(Offset(), "cross_entropy", x, y)
        assert ggn.output_trace(torch.Generator().manual_seed(0)) >= 0
