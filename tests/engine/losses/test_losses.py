"""Losses with options against torch's own and dense derivatives in float64."""

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.ggn import GGN
from mlhf.curvature.microbatches import MicrobatchCurvature
from mlhf.losses.cross_entropy import CrossEntropy
from mlhf.losses.elementwise import BinaryCrossEntropy, Huber, Poisson, Quantile
from mlhf.losses.heads import Head, Heads
from mlhf.optimizers.hessian_free import HessianFree
from mlhf.optimizers.kfac.kfac import Kfac
from mlhf.optimizers.mlhf.variants import MLHF
from tests.engine.losses.cases import CASES, D

every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def dense(case):
    """Value, gradient and Hessian of torch's own in the outputs, flat."""
    flat = case.z.reshape(-1)
    of = lambda v: case.reference(v.view(case.z.shape), case.y)  # noqa: E731
    hessian = torch.autograd.functional.hessian(of, flat)
    return of(flat), torch.autograd.functional.jacobian(of, flat), hessian


@every_case
def test_value_gradient_and_hessian_are_those_of_torch(case):
    value, gradient, hessian = dense(case)
    torch.testing.assert_close(case.loss(case.z, case.y), value)
    at = case.loss.at(case.z, case.y)
    torch.testing.assert_close(at.value, value)
    torch.testing.assert_close(at.gradient.reshape(-1), gradient)
    columns = torch.eye(case.z.numel(), dtype=D)
    found = [at.hessian_product(e.view(case.z.shape)).reshape(-1) for e in columns]
    torch.testing.assert_close(torch.stack(found), hessian)
    assert torch.linalg.eigvalsh(hessian).min() > -1e-12, "it is convex"
    leaf = case.z.clone().requires_grad_()
    (by_autograd,) = torch.autograd.grad(case.loss(leaf, case.y), leaf)
    torch.testing.assert_close(by_autograd.reshape(-1), gradient)


@every_case
def test_the_gauss_newton_matrix_is_that_of_a_dense_product(case):
    torch.manual_seed(1)
    x = torch.randn(len(case.z), 3, dtype=D)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, case.z[0].numel()))
    model = nn.Sequential(model, nn.Unflatten(1, case.z.shape[1:])).to(D)
    z = model(x)
    parameters = list(model.parameters())
    rows = [torch.autograd.grad(e, parameters, retain_graph=True) for e in z.reshape(-1)]
    jacobian = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])
    of = lambda v: case.reference(v.view(z.shape), case.y)  # noqa: E731
    hessian = torch.autograd.functional.hessian(of, z.detach().reshape(-1))
    ggn = GGN(model, case.loss, x, case.y)
    v = [torch.randn_like(p) for p in parameters]
    flat = torch.cat([t.reshape(-1) for t in v])
    wanted = jacobian.T @ hessian @ jacobian @ flat
    product = torch.cat([t.reshape(-1) for t in ggn.product(v)])
    torch.testing.assert_close(product, wanted)
    # In microbatches the same: what part each has in the mean follows from the targets.
    if isinstance(case.loss, Heads):  # each has a mean of its own
        return
    parts = MicrobatchCurvature(model, case.loss, x, case.y, size=3)
    torch.testing.assert_close(parts.loss, ggn.loss)
    again = torch.cat([t.reshape(-1) for t in parts.product(v)])
    torch.testing.assert_close(again, wanted)


@every_case
def test_roots_of_the_hessian_for_the_fisher(case):
    """Those of kfac: exactly, and in the mean of many draws."""
    _, _, hessian = dense(case)
    rows = case.loss.rows(case.z)
    axis = getattr(case.loss, "channel_axis", -1)
    arranged = lambda t: t if axis == -1 else t.movedim(axis, -1)  # noqa: E731
    index = arranged(torch.arange(case.z.numel()).view(case.z.shape)).reshape(rows, -1)
    blocks = torch.stack([hessian[i][:, i] for i in index])
    roots = [arranged(g).reshape(rows, -1) for g in case.loss.exact_root(case.z, case.y)]
    if isinstance(case.loss, Heads):  # the pixels of a row are drawn together
        blocks, roots = blocks[:, :4, :4], [g[:, :4] for g in roots[:4]]
    exact = sum(g.unsqueeze(2) * g.unsqueeze(1) for g in roots)
    torch.testing.assert_close(exact, blocks)
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros_like(blocks)
    for _ in range(2000):
        g = arranged(case.loss.sampled_root(case.z, case.y, generator)).reshape(rows, -1)
        g = g[:, : blocks.shape[1]]
        total += g.unsqueeze(2) * g.unsqueeze(1) / 2000
    assert (total - blocks).norm() < 0.1 * blocks.norm()


@every_case
def test_sums_over_batches_give_the_loss_of_the_set(case):
    if isinstance(case.loss, Heads):
        return  # evaluated head by head
    cut = lambda part: pytree.tree_map(lambda t: t[part], (case.z, case.y))  # noqa: E731
    sums = [case.loss.sums(*cut(slice(i, i + 2))) for i in range(0, len(case.z), 2)]
    total, weight = (sum(each) for each in zip(*sums, strict=True))
    value = case.loss(case.z, case.y)
    if case.loss.sample_weights:  # there the weights that are in the set make 1
        weights = case.y[1]
        parts = torch.ones(case.z.shape[:1]) if case.parts is None else case.parts
        spread = weights.view(-1, *[1] * (parts.ndim - 1))
        value = value * parts.sum() / (parts * spread).sum()
    torch.testing.assert_close(total / weight, value)


@pytest.mark.parametrize("make", [MLHF, HessianFree, Kfac])
@pytest.mark.parametrize("name", ["all of them", "maps", "sample weights", "quantile", "heads"])
def test_optimizers_take_them(make, name):
    case = CASES[name]
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Linear(3, 8),
        nn.Tanh(),
        nn.Linear(8, case.z[0].numel()),
        nn.Unflatten(1, case.z[0].shape),
    )
    to_float = lambda t: t.float() if t.is_floating_point() else t  # noqa: E731
    x, y = torch.randn(len(case.z), 3), pytree.tree_map(to_float, case.y)
    optimizer = make(model, case.loss)
    losses = [float(optimizer.step(x, y).loss) for _ in range(12)]
    assert losses[-1] < 0.9 * losses[0]


def test_what_does_not_fit_is_refused():
    z = torch.randn(4, 3)
    y = torch.tensor([0, 1, 2, 0])
    with pytest.raises(CurvatureError, match="2 class_weights, but the output has 3"):
        CrossEntropy(class_weights=[1, 2])(z, y)
    with pytest.raises(CurvatureError, match="labels run from 0 to 7"):
        CrossEntropy()(z, torch.tensor([0, 1, 7, 0]))
    with pytest.raises(CurvatureError, match="pair as target"):
        CrossEntropy(sample_weights=True)(z, y)
    with pytest.raises(CurvatureError, match=r"weights of shape \(4,\)"):
        CrossEntropy(sample_weights=True)(z, (y, torch.ones(3)))
    with pytest.raises(CurvatureError, match="least is -1"):
        Poisson()(z, torch.full((4, 3), -1.0))
    with pytest.raises(CurvatureError, match="shaped like the output"):
        Huber()(z, torch.randn(4, 2))
    with pytest.raises(CurvatureError, match="2 outputs for each target"):
        Quantile([0.1, 0.9])(z, torch.randn(4, 3))
    for wrong in (
        lambda: CrossEntropy(1.0),
        lambda: CrossEntropy(class_weights=[-1.0, 1.0]),
        lambda: CrossEntropy(class_weights=[0.0, 0.0]),
        lambda: Huber(0.0),
        lambda: Quantile([1.0]),
        lambda: Quantile(smoothing=0.0),
        lambda: BinaryCrossEntropy([0.0]),
        lambda: Heads({"a": Head(Huber(), (1,)), "b": Head(Huber(sample_weights=True), (1,))}),
    ):
        with pytest.raises(ValueError, match=r"should|either"):
            wrong()


def test_heads_with_means_of_their_own_cannot_be_cut():
    heads = Heads({"a": Head(CrossEntropy(), (2,)), "b": Head(Huber(), (1,))})
    y = {"a": torch.tensor([0, -100, -100, 1]), "b": torch.randn(4, 1)}
    with pytest.raises(CurvatureError, match="leave out micro_batch"):
        heads.part_weights(y, [slice(0, 1), slice(1, 4)])
    with pytest.raises(CurvatureError, match="heads a, b"):
        heads(torch.randn(4, 3), {"a": y["a"]})
