"""Hessian-free steps against a dense reference in NumPy."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mlhf.curvature.fisher import EmpiricalFisher
from mlhf.curvature.ggn import GGN
from mlhf.curvature.hessian import Hessian
from mlhf.curvature.microbatches import MicrobatchCurvature, split_batch
from mlhf.curvature.vectors import unflatten
from mlhf.optimizers.damping import AdamDamping, FixedDamping
from mlhf.optimizers.hessian_free import HessianFree
from mlhf.optimizers.levenberg_marquardt import LevenbergMarquardt
from mlhf.optimizers.reevaluate import BatchReevaluator

SHAPES = [(4, 5), (4,), (3, 4), (3,)]


def _unpack(theta):
    out, at = [], 0
    for shape in SHAPES:
        size = int(np.prod(shape))
        out.append(theta[at : at + size].reshape(shape))
        at += size
    return out


def _dense(theta, x, y):
    """Loss, gradient and dense Gauss-Newton matrix of tanh-net 5-4-3 with cross-entropy."""
    w1, b1, w2, b2 = _unpack(theta)
    h = np.tanh(x @ w1.T + b1)
    z = h @ w2.T + b2
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    n = len(x)
    loss = -np.mean(np.log(p[np.arange(n), y]))
    matrix, gradient = np.zeros((theta.size,) * 2), np.zeros(theta.size)
    for i in range(n):
        slope = w2 * (1 - h[i] ** 2)  # ∂z/∂(first layer's output), (3, 4)
        jacobian = np.concatenate(
            [
                np.einsum("ch,f->chf", slope, x[i]).reshape(3, -1),
                slope,
                np.einsum("cd,h->cdh", np.eye(3), h[i]).reshape(3, -1),
                np.eye(3),
            ],
            axis=1,
        )
        matrix += jacobian.T @ (np.diag(p[i]) - np.outer(p[i], p[i])) @ jacobian / n
        gradient += jacobian.T @ (p[i] - np.eye(3)[y[i]]) / n
    return loss, gradient, matrix


def _pcg(a, b, x, inverse, iterations):
    r = b - a @ x
    y = inverse * r
    p = y
    for _ in range(iterations):
        alpha = (r @ y) / (p @ a @ p)
        x = x + alpha * p
        new = r - alpha * (a @ p)
        z = inverse * new
        p = z + (new @ z) / (r @ y) * p
        r, y = new, z
    return x


def _reference(theta, batches, kind, decay):
    direction, v, losses = np.zeros_like(theta), np.zeros_like(theta), []
    for k, (x, y) in enumerate(batches):
        loss, b, matrix = _dense(theta, x, y)
        losses.append(loss)
        b = b + decay * theta
        if kind == "adam":
            v = 0.99 * v + 0.01 * b**2
            s = 50 * (1 + k / 100) ** 0.5 * (np.sqrt(v / (1 - 0.99 ** (k + 1))) + 1e-5)
            inverse, start = 1 / s, 0.9 * direction
        else:
            s, inverse, start = np.ones_like(theta), np.ones_like(theta), direction
        direction = _pcg(matrix + np.diag(s + decay), b, start, inverse, 4)
        theta = theta - direction
    return theta, losses


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["adam", "fixed"])
def test_steps_are_those_of_the_definition(kind, decay):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()
    generator = np.random.default_rng(0)
    batches = [(generator.normal(size=(7, 5)), generator.integers(0, 3, 7)) for _ in range(6)]
    expected, expected_losses = _reference(theta, batches, kind, decay)
    optimizer = HessianFree(model, "cross_entropy", kind, weight_decay=decay)
    losses = [
        float(optimizer.step(torch.from_numpy(x), torch.from_numpy(y)).loss) for x, y in batches
    ]
    mine = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-9)
    np.testing.assert_allclose(mine, expected, rtol=1e-8, atol=1e-11)


def test_damping_reported_grows_as_defined():
    damping = AdamDamping(damping=50, growth_steps=100, growth_exponent=0.5)
    scales = []
    for _ in range(301):
        damping.update(torch.ones(2))
        scales.append(damping.scale)
    assert scales[0] == 50
    assert scales[100] == pytest.approx(50 * 2**0.5)
    assert scales[300] == pytest.approx(100)


def test_running_statistics_move_as_in_one_plain_forward_pass():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)
    )
    plain = copy.deepcopy(model)
    x, y = torch.randn(8, 1, 6, 6), torch.randint(0, 2, (8,))
    plain(x)
    HessianFree(model).step(x, y)
    for mine, theirs in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(mine, theirs)


def test_loss_and_random_state_are_those_of_one_plain_forward_pass():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Dropout(0.5), nn.Linear(9, 3))
    plain = copy.deepcopy(model)
    x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))
    torch.manual_seed(5)
    expected = nn.functional.cross_entropy(plain(x), y)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    result = HessianFree(model).step(x, y)
    assert torch.allclose(result.loss, expected)
    assert torch.equal(torch.get_rng_state(), after)


def test_it_works_alone_on_regression():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    x = torch.randn(64, 3)
    y = x @ torch.randn(3, 2) + 1
    optimizer = HessianFree(model, "mse", FixedDamping(1e-4), iterations=8, warm_start=0.0)
    for _ in range(3):
        last = optimizer.step(x, y).loss
    assert last < 1e-5


def _problem(dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)
    batches = [(torch.randn(8, 5, dtype=dtype), torch.randint(0, 3, (8,))) for _ in range(4)]
    return model, batches


def _trained(batches, model, **settings):
    own = copy.deepcopy(model)
    settings = {"damping": "adam"} | settings
    optimizer = HessianFree(own, **settings)
    results = [optimizer.step(x, y) for x, y in batches]
    return torch.cat([p.detach().reshape(-1) for p in own.parameters()]), results


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("adaptive", [False, True])
def test_micro_batches_take_the_whole_batchs_steps(size, adaptive):
    model, batches = _problem()
    damping = LevenbergMarquardt if adaptive else AdamDamping
    whole, expected = _trained(batches, model, damping=damping())
    split, results = _trained(batches, model, damping=damping(), micro_batch=size)
    assert torch.allclose(split, whole, rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(results, expected, strict=True):
        assert torch.allclose(mine.loss, theirs.loss, rtol=1e-9)
        if adaptive:
            ratios = [r.stats["reduction_ratio"] for r in (mine, theirs)]
            assert torch.allclose(*ratios, rtol=1e-6)


def test_micro_batches_are_reevaluated_under_their_own_masks_and_statistics():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Dropout(0.5), nn.Linear(9, 3)
    ).double()
    x, y = torch.randn(8, 6, dtype=torch.float64), torch.randint(0, 3, (8,))
    reevaluator = BatchReevaluator(model, torch.device("cpu"))
    first = MicrobatchCurvature(model, "cross_entropy", x, y, size=3)
    found = reevaluator.loss("cross_entropy", x, y, split_batch(8, 3, None))
    assert torch.allclose(found, first.loss, rtol=1e-12)


def test_a_sub_batchs_curvature_with_the_whole_batchs_gradient():
    model, batches = _problem()
    (x, y), kept = batches[0], FixedDamping(0.5)
    own = copy.deepcopy(model)
    HessianFree(own, damping=kept, iterations=60, curvature_batch=3, tolerance=1e-14).step(x, y)
    parameters = list(model.parameters())
    flat = lambda ts: torch.cat([t.detach().reshape(-1) for t in ts])  # noqa: E731
    gradient = flat(GGN(model, "cross_entropy", x, y).gradient)
    small = GGN(model, "cross_entropy", x[:3], y[:3])
    columns = [
        flat(small.product(unflatten(e, parameters)))
        for e in torch.eye(len(gradient), dtype=torch.float64)
    ]
    matrix = torch.stack(columns) + 0.5 * torch.eye(len(gradient), dtype=torch.float64)
    expected = flat(parameters) - torch.linalg.solve(matrix, gradient)
    assert torch.allclose(flat(own.parameters()), expected, rtol=1e-8, atol=1e-10)


def test_a_choice_of_parameters_is_trained():
    model, batches = _problem()
    last = list(model[2].parameters())
    before = [p.detach().clone() for p in model.parameters()]
    HessianFree(model, parameters=last).step(*batches[0])
    moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
    assert moved == [False, False, True, True]


@pytest.mark.parametrize("curvature", [EmpiricalFisher, Hessian])
def test_other_matrices_train_too(curvature):
    model, batches = _problem()
    _, results = _trained(batches[:1] * 30, model, curvature=curvature, damping=FixedDamping(1.0))
    assert results[-1].loss < 0.5 * results[0].loss


def test_bfloat16_trains_nearly_as_float32():
    model, batches = _problem(torch.float32)
    many = batches * 10
    full, _ = _trained(many, model)
    low, results = _trained(many, model, autocast=torch.bfloat16)
    start = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    assert low.dtype == torch.float32
    assert not torch.equal(low, full)
    assert (low - full).norm() < 0.1 * (full - start).norm()
    assert results[-1].stats["cg_residual"].dtype == torch.float32


def test_several_outputs_and_binary_targets():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 1)

        def forward(self, x):
            return {"kind": self.a(x), "yes": self.b(x)}

    def loss(z, y):
        kind = nn.functional.cross_entropy(z["kind"], y["kind"])
        return kind + nn.functional.binary_cross_entropy_with_logits(z["yes"], y["yes"])

    torch.manual_seed(0)
    model, x = Both(), torch.randn(16, 4)
    y = {"kind": torch.randint(0, 3, (16,)), "yes": torch.randint(0, 2, (16, 1)).float()}
    optimizer = HessianFree(model, loss, FixedDamping(0.1))
    losses = [float(optimizer.step(x, y).loss) for _ in range(10)]
    assert losses[-1] < losses[0]
    alone = HessianFree(model.b, "binary_cross_entropy", FixedDamping(0.1))
    values = [float(alone.step(x, y["yes"]).loss) for _ in range(10)]
    assert values[-1] < values[0]
