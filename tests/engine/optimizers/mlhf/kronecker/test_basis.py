"""The basis against dense algebra: rotations, factors, and the diagonal they predict."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf.curvature.ggn import GGN
from mlhf.models.layers import PositionEmbedding
from mlhf.optimizers.mlhf.kronecker import blocks
from mlhf.optimizers.mlhf.kronecker.basis import Basis
from mlhf.optimizers.mlhf.kronecker.blocks import _INPUT_ROWS as INPUT_ROWS

LOSSES = {"binary_cross_entropy": F.binary_cross_entropy_with_logits, "mse": F.mse_loss}


class Mixed(nn.Module):
    """A convolution, a norm, an LSTM, a linear layer and a vector of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 2)
        self.norm = nn.BatchNorm2d(3)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.out = nn.Linear(4, 3)
        self.own = nn.Parameter(torch.ones(3))

    def forward(self, x):
        h = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        return self.out(self.lstm(h)[0][:, -1]) * self.own


def _refreshed(model, x, y, autocast=None, **options):
    settings = {"decay": 0.95, "samples": 100, "max_dimension": 1024, "seed": 0, **options}
    parameters = list(model.parameters())
    loss = settings.pop("loss", "cross_entropy")
    basis = Basis(model, parameters, **settings)
    for _ in range(2):
        _update(basis, model, loss, x, y, autocast=autocast)
    basis.refresh()
    return basis


def _update(basis, model, loss, x, y, **options):
    with basis.recording():
        parameters = list(model.parameters())
        ggn = GGN(model, loss, x, y, parameters, edges=lambda _: basis.edges, **options)
    basis.update(ggn)
    basis.clear()
    return ggn


@pytest.mark.parametrize("large", [1 << 18, 1], ids=["as it comes", "aligned"])
@pytest.mark.parametrize("most", [1024, 5, 1])
def test_rotations_keep_lengths_and_come_back(most, large, monkeypatch):
    monkeypatch.setattr(blocks, "_LARGE", large)
    torch.manual_seed(0)
    model = Mixed().double()
    x, y = torch.randn(8, 2, 4, 4).double(), torch.randint(0, 3, (8,))
    basis = _refreshed(model, x, y, max_dimension=most)
    v = [torch.randn_like(p) for p in model.parameters()]
    rotated = basis.rotate(v)
    flat = torch.cat([t.reshape(-1) for t in v])
    torch.testing.assert_close(rotated.norm(), flat.norm())
    for before, after in zip(v, basis.rotate_back(rotated), strict=True):
        torch.testing.assert_close(after, before)
    assert len(basis.diagonal) == len(flat)
    assert sum(segment.size for segment in basis.segments) == len(flat)
    assert bool((basis.diagonal >= 0).all())


class _Sequence(nn.Module):
    """Tokens, tags called ``pos_embedding``, and places; an output for each token, or for all."""

    def __init__(self, each):
        super().__init__()
        self.tokens, self.pos_embedding = nn.Embedding(9, 3), nn.Embedding(5, 3)
        self.places, self.out = PositionEmbedding(6, 3), nn.Linear(3, 4)
        self.norm, self.each = nn.LayerNorm(3, elementwise_affine=False), each

    def forward(self, x):
        h = self.norm(self.places(self.tokens(x[..., 0]) + self.pos_embedding(x[..., 1])))
        return self.out(h if self.each else h.sum(1))


@pytest.mark.parametrize(("size", "share"), [(0.5, 1 / 9), (0.01, 0.25 / 6**0.5), (100.0, 1.0)])
@pytest.mark.parametrize("each", [True, False])
def test_a_rows_part_of_the_data_is_measured_whatever_its_name(each, size, share):
    """A place has a sixth of the tokens, and all of the samples."""
    torch.manual_seed(0)
    model = _Sequence(each)
    with torch.no_grad():
        for table, value in ((model.tokens, 0.5), (model.pos_embedding, 0.5)):
            table.weight.fill_(value)
        model.places.vectors.fill_(size)
    basis = Basis(model, list(model.parameters()), decay=0.9, samples=8, max_dimension=9, seed=0)
    for _ in range(3):
        x = torch.stack([torch.randint(0, n, (8, 6)) for n in (9, 5)], -1)
        target = torch.randint(0, 4, (8, 6) if each else (8,))
        _update(basis, model, "cross_entropy", x, target)
    found = {segment.size: segment.damping_factor for segment in basis.segments}
    expected = {16: 1.0, 27: 1.0, 15: 1.0, 18: share if each else 1.0}
    assert found == pytest.approx(expected, abs=0.02)


def test_tokens_that_are_equally_frequent_by_chance_are_no_positions():
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.out = nn.Embedding(6, 3), nn.Linear(3, 4)

        def forward(self, x):
            return self.out(self.tokens(x) + 100)

    model = Added()
    basis = Basis(model, list(model.parameters()), decay=0.9, samples=8, max_dimension=9, seed=0)
    for x, factor in (([[0, 1, 2]], 0.25 / 3**0.5), ([[0, 1, 1]], 1.0), ([[0, 1, 2]], 1.0)):
        _update(basis, model, "cross_entropy", torch.tensor(x), torch.zeros(1, 3).long())
        assert [s.damping_factor for s in basis.segments] == pytest.approx([1.0, factor])


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_one_linear_layer_with_squared_error_is_diagonal_there(scale):
    """For z = Wa and mean squared error, G = mean(aaᵀ) ⊗ 2/C: exactly a Kronecker product.

    Whatever the size of what is left of the targets: G has nothing to do with it.
    """
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False).double()
    x = torch.randn(4000, 4).double()
    parameters = list(model.parameters())
    y = (model(x) + scale * torch.randn(4000, 3)).detach()
    basis = Basis(model, parameters, decay=0.95, samples=4000, max_dimension=9, seed=1)
    ggn = _update(basis, model, "mse", x, y)
    basis.refresh()
    columns = []
    for i in range(12):
        unit = torch.zeros(12).double()
        unit[i] = 1
        columns.append(basis.rotate(ggn.product(basis.rotate_back(unit))))
    matrix = torch.stack(columns)
    inputs, outputs = basis._layers[0]._factors[1], basis._layers[0]._factors[0]
    torch.testing.assert_close(outputs, torch.full((3,), 2 / 3).double())
    torch.testing.assert_close(inputs, x[:INPUT_ROWS].T @ x[:INPUT_ROWS] / INPUT_ROWS)
    # The inputs' factor is of some of the rows: right to a few per cent.
    torch.testing.assert_close(basis.diagonal, matrix.diagonal(), rtol=0.15, atol=0)
    torch.testing.assert_close(basis.diagonal.sum(), matrix.trace(), rtol=0.05, atol=0)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mse"])
def test_the_datas_gradients_are_given_the_weight_of_the_losss_hessian(loss):
    """However wrong the network is, D's trace over the last layer is that of mean(aaᵀ) ⊗ H."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False).double()
    x = torch.randn(512, 4).double()
    z = model(x).detach()
    y = z.argmin(-1) if loss == "cross_entropy" else (z < 0).double()  # the least likely

    def value(v):
        return F.cross_entropy(v, y) if loss == "cross_entropy" else LOSSES[loss](v, y)

    hessian = torch.autograd.functional.hessian(value, z).reshape(z.numel(), -1)
    basis = Basis(model, list(model.parameters()), decay=0.95, samples=512, max_dimension=9, seed=0)
    _update(basis, model, loss, x, y)
    outputs, inputs = basis._layers[0]._factors
    total = outputs.trace() if loss == "cross_entropy" else outputs.sum()
    torch.testing.assert_close(total, hessian.trace(), rtol=0.1, atol=0)
    torch.testing.assert_close(inputs, x.T @ x / 512)


def test_some_of_the_batch_gives_factors_of_the_same_size():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(6000, 5).double(), torch.randint(0, 3, (6000,))
    whole, some = (_refreshed(model, x, y, samples=n).diagonal for n in (6000, 3000))
    torch.testing.assert_close(some.sum(), whole.sum(), rtol=0.1, atol=0)


def test_samples_are_drawn_from_the_whole_batch():
    """Kinds of samples may be stacked in order: here no sample of the first 48 has input 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    x, y = torch.rand(64, 2).double() + 0.5, torch.randint(0, 3, (64,))
    x[:48, 0] = 0
    _, inputs = _refreshed(model, x, y, samples=16)._layers[0]._factors
    expected = 0.25 * x[48:, 0].square().mean()
    assert 0.25 * expected < inputs[0, 0] < 4 * expected


@pytest.mark.parametrize(("rows", "seen"), [(20, 5), (8, 2), (1000, 7)])
def test_a_layer_of_many_places_takes_its_inputs_factor_from_fewer_samples(rows, seen, monkeypatch):
    """4 positions a sample: enough samples for so many rows, at most ``samples``."""
    from mlhf.optimizers.mlhf.kronecker import blocks

    monkeypatch.setattr(blocks, "_INPUT_ROWS", rows)
    monkeypatch.setattr(Basis, "_choose", lambda self, count: torch.arange(7))
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 2, 1, bias=False)
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(8, 2))
    x = torch.arange(1.0, 9).view(8, 1, 1, 1).expand(8, 1, 2, 2)
    basis = _refreshed(model, x, torch.zeros(8, dtype=torch.long), samples=7)
    _, inputs = basis._layers[0]._factors
    torch.testing.assert_close(inputs.squeeze(), torch.arange(1.0, seen + 1).square().mean())


def test_a_general_loss_gives_what_the_named_one_does():
    torch.manual_seed(0)
    model = Mixed()
    x, y = torch.randn(8, 2, 4, 4), torch.randint(0, 3, (8,))
    model.eval()

    def loss(z, target):
        return F.cross_entropy(z, target)

    torch.testing.assert_close(
        _refreshed(model, x, y, loss=loss).diagonal, _refreshed(model, x, y).diagonal
    )


@pytest.mark.parametrize("loss", ["cross_entropy", nn.functional.cross_entropy])
def test_under_autocast_the_basis_keeps_the_parameters_type(loss):
    torch.manual_seed(0)
    model = Mixed()
    x, y = torch.randn(64, 2, 4, 4), torch.randint(0, 3, (64,))
    full = _refreshed(model, x, y, loss=loss)
    low = _refreshed(model, x, y, loss=loss, autocast=torch.bfloat16)
    assert low.diagonal.dtype == torch.float32
    torch.testing.assert_close(low.diagonal.sum(), full.diagonal.sum(), rtol=0.02, atol=0)
    v = [torch.randn_like(p) for p in model.parameters()]
    for before, after in zip(v, low.rotate_back(low.rotate(v)), strict=True):
        torch.testing.assert_close(after, before)  # the eigenvectors are orthogonal in float32


def test_what_the_loss_does_not_reach_has_no_curvature():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)
            self.table = nn.Parameter(torch.ones(2, 2))

        def forward(self, x):
            return self.used(x)

    basis = _refreshed(Idle(), torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    assert int((basis.diagonal == 0).sum()) >= 8 + 4  # the unused layer's and the table's
    assert float(basis.diagonal.max()) > 0


@pytest.mark.parametrize("positions", [5, 1])
def test_of_many_positions_inputs_are_seen_in_every_second_update_after_the_first(positions):
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False).double()
    parameters = list(model.parameters())
    basis = Basis(model, parameters, decay=0.9, samples=8, max_dimension=9, seed=0)
    inputs = torch.zeros(3, 3).double()
    for k in range(25):
        x, y = torch.randn(8, positions, 3).double(), torch.randint(2, (8, positions))
        before = basis._layers[0]._factors
        left = None if before is None else before[0].clone()
        _update(basis, model, "cross_entropy", x, y)
        weight = max(0.1, 1 / (k + 1))
        if positions > 1 and k >= 20:
            weight = 0 if k % 2 else 1 - 0.9**2  # the same reach, in updates
        rows = x.flatten(0, 1)
        inputs += weight * (rows.T @ rows / len(rows) - inputs)
        torch.testing.assert_close(basis._layers[0]._factors[1], inputs)
        assert left is None or not torch.equal(basis._layers[0]._factors[0], left)


@pytest.mark.parametrize(("loss", "rotated"), [("mse", False), (F.cross_entropy, True)])
def test_independent_outputs_are_not_rotated(loss, rotated):
    """Errors may be correlated where the Gauss-Newton matrix is diagonal."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    x, common = torch.randn(64, 3).double(), torch.randn(64, 1).double()
    y = (model(x) + common).detach() if loss == "mse" else torch.randint(0, 4, (64,))
    basis = _refreshed(model, x, y, loss=loss)
    one_row = [torch.zeros_like(p) for p in model.parameters()]
    one_row[2][1] = torch.randn(5).double()
    rows = basis.rotate(one_row)[20:].view(4, 6).norm(dim=1)
    assert (torch.count_nonzero(rows > 1e-12) > 1) == rotated
    torch.testing.assert_close(rows.norm(), one_row[2].norm())
    if loss == "mse":  # G = 2/4 I ⊗ mean aaᵀ
        a = torch.cat([model[:2](x), torch.ones(64, 1).double()], 1)
        expected = torch.linalg.eigvalsh(a.T @ a / 64) * 2 / 4
        for row in basis.diagonal[20:].view(4, 6):
            torch.testing.assert_close(row.sort().values, expected)


def test_a_gated_last_layer_is_rotated():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.GLU()).double()
    basis = _refreshed(model, torch.randn(64, 3).double(), torch.randn(64, 4).double(), loss="mse")
    one_row = [torch.zeros_like(p) for p in model.parameters()]
    one_row[0][1] = torch.randn(3).double()
    rows = basis.rotate(one_row).view(8, 4).norm(dim=1)
    assert torch.count_nonzero(rows > 1e-12) > 1
