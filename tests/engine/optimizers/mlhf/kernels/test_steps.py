"""The Kronecker form's operators, against dense algebra in float64 and against torch alone."""

import copy

import pytest
import torch
from torch import nn

from mlhf import MLHF
from mlhf.curvature.vectors import flatten, unflatten
from mlhf.optimizers.mlhf.kernels import steps
from mlhf.optimizers.mlhf.kernels.steps import Numbers, Rotations

NUMBERS = Numbers(0.99, 0.005, 1e-5, 1.3, 1.7, 0.01)
pytestmark = pytest.mark.skipif(not steps.fits(torch.zeros(1)), reason="no compiler")


def _orthogonal(size):
    return torch.linalg.qr(torch.randn(size, size))[0].contiguous()


def _blocks(shapes):
    """Return rotations of blocks, the dense map of each, and where its parameters are.

    Of each: out, in without the bias, and whether there are a bias, U_L and U_R. The parameters
    lie in the opposite order of the blocks.
    """
    bases, layout, maps, places = [], [], [], []
    end = sum(out * (inner + bias) for out, inner, bias, _, _ in shapes)
    for out, inner, bias, left, right in shapes:
        end -= out * (inner + bias)
        left_basis = _orthogonal(out) if left else None
        right_basis = _orthogonal(inner + bias) if right else None
        bases += [left_basis] if left else []
        bases += [right_basis, right_basis.mT.contiguous()] if right else []
        layout += [out, inner + bias, bias, left, right, end, end + out * inner]
        maps.append(
            [
                torch.eye(n) if b is None else b
                for b, n in ((left_basis, out), (right_basis, inner + bias))
            ]
        )
        places.append(end)
    return Rotations(bases, [int(v) for v in layout], []), maps, places


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 1, False, True, True)],
        [(5, 3, True, True, True), (1, 7, True, True, True)],
        [(17, 33, False, True, True), (9, 8, True, False, True), (64, 64, True, True, True)],
        [(6, 20, False, False, False), (21, 16, True, True, False), (3, 1, False, False, False)],
        [(70, 66, True, True, True), (13, 1, False, False, False)],
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_direction_is_that_of_dense_algebra(shapes, first):
    torch.manual_seed(0)
    rotations, maps, places = _blocks(shapes)
    gradients, matrices = [], []
    for out, inner, bias, _, _ in shapes:
        matrix = torch.randn(out, inner + bias)
        matrices.append(matrix.double())
        gradients += [matrix[:, :inner].contiguous(), matrix[:, -1].contiguous()][: 1 + bias]
    n = sum(m.numel() for m in matrices)
    moment, diagonal, scale = torch.rand(n), torch.rand(n), torch.tensor(3.0)
    factors = [0.5 + k for k in range(len(shapes))]
    found = steps.direction(
        gradients, rotations, None if first else moment, diagonal, scale, factors, NUMBERS
    )
    rotated = [
        (left.double().T @ m @ right.double()).reshape(-1)
        for m, (left, right) in zip(matrices, maps, strict=True)
    ]
    b = torch.cat(rotated)
    kept, added, epsilon, correction, on_diagonal, decay = NUMBERS
    v = added * b**2 + (0 if first else kept * moment.double())
    factor = torch.cat([torch.full_like(r, f) for r, f in zip(rotated, factors, strict=True)])
    s = factor * (correction * v.sqrt() + 3.0 * epsilon) + decay
    damped = s + on_diagonal * diagonal.double()
    p, flat, at = b / damped, torch.empty(n).double(), 0
    for (out, inner, bias, _, _), (left, right), place in zip(shapes, maps, places, strict=True):
        part = p[at : at + out * (inner + bias)].view(out, -1)
        back = left.double() @ part @ right.double().T
        flat[place : place + out * inner] = back[:, :inner].reshape(-1)
        if bias:
            flat[place + out * inner : place + out * (inner + 1)] = back[:, -1]
        at += part.numel()
    products = torch.stack([(p * b).sum(), (b * b).sum()])
    for name, ours, exact in zip(
        ("b", "v", "s", "D + s", "Pb", "U Pb", "products"),
        found,
        (b, v, s, damped, p, flat, products),
        strict=True,
    ):
        torch.testing.assert_close(ours.double(), exact, rtol=2e-5, atol=2e-5, msg=name)


@pytest.mark.parametrize("n", [1, 7, 4095, 4097, 40_001])
def test_damping_products_and_combinations_are_their_formulas(n):
    torch.manual_seed(n)
    b, q, r = torch.randn(3, n)
    moment, diagonal = torch.rand(2, n)
    cut = n // 3
    found = steps.damp(
        b, moment, diagonal, torch.tensor(2.0), [(cut, 2.0), (n - cut, 3.0)], NUMBERS
    )
    exact = b.double()
    v = 0.005 * exact**2 + 0.99 * moment.double()
    factor = torch.cat([torch.full((cut,), 2.0), torch.full((n - cut,), 3.0)]).double()
    s = factor * (1.3 * v.sqrt() + 2e-5) + 0.01
    damped = s + 1.7 * diagonal.double()
    p = exact / damped
    products = torch.stack([(p * exact).sum(), (exact**2).sum()])
    for ours, expected in zip(found, (v, s, damped, p, products), strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)

    vectors = [q, r, b]
    stacked = torch.stack(vectors).double()
    expected = torch.cat(
        [
            (stacked * moment.double()) @ stacked.T,
            (stacked * diagonal.double()) @ stacked.T,
            (stacked @ exact).unsqueeze(1),
        ],
        1,
    )
    ours = steps.products(vectors, moment, diagonal, b)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5 * n**0.5)
    assert torch.equal(ours[:, :3], ours[:, :3].T)
    one, two = steps.combine([0.5, -2.0], [q, r], [r, b])
    torch.testing.assert_close(one, 0.5 * q - 2 * r)
    torch.testing.assert_close(two, 0.5 * r - 2 * b)


@pytest.mark.parametrize("weight", [1.0, 0.7, 0.03])
def test_an_advance_moves_parameters_and_means(weight):
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape)) for shape in ((70, 61), (5,), ())]
    means = [torch.randn_like(p) for p in parameters]
    n = sum(p.numel() for p in parameters)
    vectors = torch.randn(4, n)
    before = [p.detach().double() for p in parameters]
    means_before = [m.double() for m in means]
    versions = [p._version for p in parameters]
    first, second = steps.advance(
        [0.5, -2.0], [*vectors[:2]], [*vectors[2:]], parameters, means, -0.3, weight
    )
    torch.testing.assert_close(first, 0.5 * vectors[0] - 2 * vectors[1])
    torch.testing.assert_close(second, 0.5 * vectors[2] - 2 * vectors[3])
    step = unflatten(second.double(), before)
    for p, m, old, old_mean, d in zip(parameters, means, before, means_before, step, strict=True):
        moved = old - 0.3 * d
        torch.testing.assert_close(p.detach().double(), moved, rtol=1e-6, atol=1e-6)
        expected = old_mean + weight * (moved - old_mean)
        torch.testing.assert_close(m.double(), expected, rtol=1e-6, atol=1e-6)
    assert all(p._version > v for p, v in zip(parameters, versions, strict=True))
    if weight == 1:  # no average: θ̄ is θ to the last bit
        assert all(torch.equal(p, m) for p, m in zip(parameters, means, strict=True))


def test_threads_change_no_bit():
    n = 300_001
    torch.manual_seed(0)
    b, q = torch.randn(2, n)
    moment, diagonal = torch.rand(2, n)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            damped = steps.damp(b, moment, diagonal, torch.tensor(1.0), [(n, 2.0)], NUMBERS)
            found.append([*damped, steps.products([b, q], moment, diagonal, b)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, c) for a, c in zip(*found, strict=True))


def test_what_is_not_finite_shows():
    b = torch.ones(20)
    b[3] = float("inf")
    *_, products = steps.damp(b, None, torch.ones(20), torch.tensor(1.0), [(20, 1.0)], NUMBERS)
    assert not products.isfinite().all()


def test_what_does_not_fit_is_refused():
    rotations, _, _ = _blocks([(5, 3, True, True, True)])
    gradients = [torch.randn(5, 3), torch.randn(5)]
    n, one = 20, torch.tensor(1.0)
    fine = (gradients, rotations, None, torch.ones(n), one, [1.0], NUMBERS)
    steps.direction(*fine)
    for at, wrong in (
        (0, gradients[:1]),
        (0, [torch.randn(4, 3), gradients[1]]),
        (1, rotations._replace(bases=rotations.bases[:-1])),
        (1, rotations._replace(layout=[*rotations.layout[:5], 10, 15])),
        (2, torch.ones(n - 1)),
        (3, torch.ones(n).double()),
        (5, [1.0, 2.0]),
    ):
        changed = list(fine)
        changed[at] = wrong
        with pytest.raises(RuntimeError):
            steps.direction(*changed)
    with pytest.raises(RuntimeError):
        steps.combine([1.0], [torch.ones(3), torch.ones(3)], [torch.ones(3), torch.ones(3)])
    with pytest.raises(RuntimeError):
        steps.products([torch.ones(3), torch.ones(4)], *torch.ones(3, 3))


class Tokens(nn.Module):
    """An embedding whose last rows no batch has, a stack, a convolution and a norm."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 12)
        self.mix = nn.Parameter(torch.randn(12, 12) / 4)
        self.conv = nn.Conv1d(12, 9, 3, padding=1)
        self.norm = nn.LayerNorm(9)
        self.head = nn.Linear(9, 4)

    def forward(self, x):
        h = torch.tanh(self.embedding(x) @ self.mix)
        h = torch.relu(self.conv(h.mT)).mT
        return self.head(self.norm(h).mean(1))


def _mlp():
    return nn.Sequential(
        nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 150), nn.ReLU(), nn.Linear(150, 4)
    )


@pytest.mark.parametrize("kind", ["tokens", "small", "wide"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_steps_are_those_of_torch_alone(kind, weight_decay, monkeypatch):
    """From the same state, since rounding grows quickly over steps."""
    torch.manual_seed(0)
    if kind == "tokens":
        model, x = Tokens(), torch.randint(0, 20, (12, 16, 5))
        y = x[..., 0] % 4
    else:
        model = _mlp() if kind == "wide" else _mlp()[:2].append(nn.Linear(20, 4))
        x = torch.randn(12, 16, 6)
        y = x[..., :4].argmax(-1)
    unused = model.embedding.weight[20:].clone() if kind == "tokens" else None
    optimizer = MLHF(model, weight_decay=weight_decay)
    for at, (a, b) in enumerate(zip(x, y, strict=True)):
        other = copy.deepcopy(model)
        plain = MLHF(other, weight_decay=weight_decay)
        if at:
            plain.load_state_dict(optimizer.state_dict())
        before = flatten(list(model.parameters())).detach().clone()
        loss = optimizer.step(a, b).loss
        assert (optimizer._basis.rotations is None) == (kind == "wide")
        with monkeypatch.context() as patch:
            patch.setattr(steps, "fits", lambda like: False)
            assert float(plain.step(a, b).loss) == pytest.approx(float(loss), rel=1e-5)
            assert plain._basis.rotations is None
        ours, theirs = (flatten(list(m.parameters())) - before for m in (model, other))
        assert (ours - theirs).norm() < 2e-3 * theirs.norm()
        of_both = (flatten(o._average.mean) - before for o in (optimizer, plain))
        ours, theirs = of_both
        assert (ours - theirs).norm() < 2e-3 * theirs.norm()
    if unused is not None and not weight_decay:  # rows without a gradient do not move
        assert torch.equal(model.embedding.weight[20:], unused)


class Masked(nn.Module):
    """A matrix without a layer, of which the forward pass leaves single entries out."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(8, 6) / 3)
        self.register_buffer("mask", (torch.rand(8, 6) > 0.4).float())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.tanh(x @ (self.matrix * self.mask).T))


def test_entries_without_a_gradient_do_not_move():
    torch.manual_seed(0)
    model = Masked()
    before = model.matrix.detach().clone()
    optimizer = MLHF(model)
    for _ in range(6):
        x = torch.randn(16, 6)
        optimizer.step(x, x[:, :3].argmax(-1))
    assert optimizer._basis.rotations is not None
    left_out = model.mask == 0
    assert torch.equal(model.matrix[left_out], before[left_out])
    assert not torch.equal(model.matrix, before)
