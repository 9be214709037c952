"""The basis against dense algebra: rotations, factors, and the diagonal they promise."""

import pytest
import torch
from torch import nn

from engine import MLHF
from engine.curvature.ggn import GGN
from engine.mlhf.kronecker.basis import Basis


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


def _turned(model, x, y, autocast=None, **options):
    settings = {"decay": 0.95, "samples": 100, "max_dimension": 1024, "seed": 0, **options}
    parameters = list(model.parameters())
    loss = settings.pop("loss", "cross_entropy")
    basis = Basis(model, parameters, loss, **settings)
    for _ in range(2):
        with basis.watching():
            GGN(model, loss, x, y, parameters, autocast=autocast)
        basis.update(y)
        basis.forget()
    basis.refresh()
    return basis


@pytest.mark.parametrize("most", [1024, 5, 1])
def test_rotations_keep_lengths_and_come_back(most):
    torch.manual_seed(0)
    model = Mixed().double()
    x, y = torch.randn(8, 2, 4, 4).double(), torch.randint(0, 3, (8,))
    basis = _turned(model, x, y, max_dimension=most)
    v = [torch.randn_like(p) for p in model.parameters()]
    turned = basis.rotate(v)
    flat = torch.cat([t.reshape(-1) for t in v])
    torch.testing.assert_close(turned.norm(), flat.norm())
    for before, after in zip(v, basis.back(turned), strict=True):
        torch.testing.assert_close(after, before)
    assert len(basis.diagonal) == len(flat)
    assert sum(size for size, _ in basis.kinds) == len(flat)
    assert bool((basis.diagonal >= 0).all())


def test_one_linear_layer_with_squared_error_is_diagonal_there():
    """For z = Wa and mean squared error, G = mean(aaᵀ) ⊗ 2/C: exactly a Kronecker product."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False).double()
    x, y = torch.randn(4000, 4).double(), torch.zeros(4000, 3).double()
    parameters = list(model.parameters())
    basis = Basis(model, parameters, "mse", decay=0.95, samples=4000, max_dimension=9, seed=1)
    with basis.watching():
        ggn = GGN(model, "mse", x, y, parameters)
    basis.update(y)
    basis.refresh()
    columns = []
    for i in range(12):
        unit = torch.zeros(12).double()
        unit[i] = 1
        columns.append(basis.rotate(ggn.product(basis.back(unit))))
    matrix = torch.stack(columns)
    exact = torch.linalg.eigvalsh(x.T @ x / len(x)).repeat(3) * 2 / 3
    torch.testing.assert_close(matrix.diagonal().sort().values, exact.sort().values)
    # Labels are drawn: the output's factor is right to a few per cent.
    torch.testing.assert_close(basis.diagonal, matrix.diagonal(), rtol=0.1, atol=0)
    assert float((matrix - torch.diag(matrix.diagonal())).abs().max()) < 1e-12


def test_a_part_of_the_batch_gives_factors_of_the_same_size():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(6000, 5).double(), torch.randint(0, 3, (6000,))
    whole, part = (_turned(model, x, y, samples=n).diagonal for n in (6000, 3000))
    torch.testing.assert_close(part.sum(), whole.sum(), rtol=0.1, atol=0)


def test_a_look_of_its_own_sees_the_first_samples_and_leaves_no_trace():
    torch.manual_seed(0)
    model = Mixed().double()
    parameters = list(model.parameters())
    x, y = torch.randn(20, 2, 4, 4).double(), torch.randint(0, 3, (20,))
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    settings = {"decay": 0.95, "samples": 8, "max_dimension": 1024, "seed": 0}
    looked = Basis(model, parameters, "cross_entropy", **settings)
    assert looked.look(x)
    looked.update(y)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name])
    watched = Basis(model, parameters, "cross_entropy", **settings)
    with watched.watching():
        GGN(model, "cross_entropy", x[:8], y[:8], parameters)
    watched.update(y[:8])
    for basis in (looked, watched):
        basis.refresh()
    torch.testing.assert_close(looked.diagonal, watched.diagonal)


def test_it_does_not_look_where_that_would_not_be_cheaper_or_samples_are_not_known():
    model, x = nn.Linear(4, 3), torch.randn(20, 4)

    def look(loss, batch):
        settings = {"decay": 0.95, "samples": 8, "max_dimension": 9, "seed": 0}
        return Basis(model, list(model.parameters()), loss, **settings).look(batch)

    assert look("cross_entropy", x)
    assert not look("cross_entropy", x[:15])
    assert not look("cross_entropy", {"x": x})
    assert not look(lambda z, y: z.square().mean(), x)


def test_a_network_for_batches_of_one_size_is_watched_in_its_own_pass():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 3)

        def forward(self, x):
            return self.out(x.view(20, 4))

    torch.manual_seed(0)
    x, y = torch.randn(20, 4), torch.randint(0, 3, (20,))
    ends = []
    for samples in (8, 11):  # of 20, 11 are too many for a pass of their own
        torch.manual_seed(1)
        model = Fixed()
        optimizer = MLHF(model, meta_checkpoint=None, samples=samples)
        assert optimizer._basis.look(x) is False
        first = optimizer.step(x, y).loss
        for _ in range(5):
            last = optimizer.step(x, y).loss
        assert last < first
        ends.append(optimizer._basis._may_look)
    assert ends == [False, True]


@pytest.mark.parametrize(("rows", "seen"), [(20, 5), (8, 4), (1000, 7)])
def test_a_layer_of_many_places_takes_its_inputs_factor_from_fewer_samples(rows, seen, monkeypatch):
    """4 positions a sample: enough samples for so many rows, at least 4, at most ``samples``."""
    from engine.mlhf.kronecker import blocks

    monkeypatch.setattr(blocks, "_ROWS", rows)
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 2, 1, bias=False)
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(8, 2))
    x = torch.arange(1.0, 9).view(8, 1, 1, 1).expand(8, 1, 2, 2)
    basis = _turned(model, x, torch.zeros(8, dtype=torch.long), samples=7)
    _, inputs = basis._layers[0]._factors
    torch.testing.assert_close(inputs.squeeze(), torch.arange(1.0, seen + 1).square().mean())


def test_a_general_loss_takes_the_datas_labels():
    torch.manual_seed(0)
    model = Mixed()
    x, y = torch.randn(8, 2, 4, 4), torch.randint(0, 3, (8,))

    def loss(z, target):
        return nn.functional.cross_entropy(z, target)

    basis = Basis(model, list(model.parameters()), loss, decay=0.95, samples=8,
                  max_dimension=99, seed=0)  # fmt: skip
    with basis.watching():
        GGN(model, loss, x, y, list(model.parameters()))
    basis.update(y)
    basis.refresh()
    assert torch.isfinite(basis.diagonal).all()
    assert float(basis.diagonal.max()) > 0


@pytest.mark.parametrize("loss", ["cross_entropy", nn.functional.cross_entropy])
def test_under_autocast_the_basis_keeps_the_parameters_type(loss):
    torch.manual_seed(0)
    model = Mixed()
    x, y = torch.randn(64, 2, 4, 4), torch.randint(0, 3, (64,))
    full = _turned(model, x, y, loss=loss)
    low = _turned(model, x, y, loss=loss, autocast=torch.bfloat16)
    assert low.diagonal.dtype == torch.float32
    torch.testing.assert_close(low.diagonal.sum(), full.diagonal.sum(), rtol=0.02, atol=0)
    v = [torch.randn_like(p) for p in model.parameters()]
    for before, after in zip(v, low.back(low.rotate(v)), strict=True):
        torch.testing.assert_close(after, before)  # the eigenvectors are orthogonal in float32


def test_what_the_loss_does_not_reach_has_no_curvature():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)
            self.table = nn.Parameter(torch.ones(2, 2))

        def forward(self, x):
            return self.used(x)

    basis = _turned(Idle(), torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    assert int((basis.diagonal == 0).sum()) >= 8 + 4  # the unused layer's and the table's
    assert float(basis.diagonal.max()) > 0
