"""K-FAC against dense matrices in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.ggn import GGN
from mlhf.optimizers.kfac import fisher
from mlhf.optimizers.kfac.kfac import Kfac
from mlhf.optimizers.kfac.layers import BatchNormLayer, KroneckerLayer, layers_of

BARE = {"lr": 1.0, "factors_every": 1, "momentum": 0.0, "kl_clip": None, "inverse_every": 1}


def _ggn(model, loss, x, y):
    ggn = GGN(model, loss, x, y)
    n = sum(p.numel() for p in ggn.parameters)
    columns = []
    for column in torch.eye(n, dtype=x.dtype):
        pieces = torch.split(column, [p.numel() for p in ggn.parameters])
        v = [piece.view_as(p) for piece, p in zip(pieces, ggn.parameters, strict=True)]
        columns.append(torch.cat([t.reshape(-1) for t in ggn.product(v)]))
    return torch.stack(columns), torch.cat([g.reshape(-1) for g in ggn.gradient])


def _flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("fitted", [False, True])
def test_on_one_linear_layer_with_squared_error_it_is_newton(fitted):
    """A ⊗ G is the Gauss-Newton matrix there; G is a multiple of I, so π splits λ exactly."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False).double()
    x, y = torch.randn(20, 3).double(), torch.randn(20, 2).double()
    matrix, gradient = _ggn(model, "mse", x, y)
    layer = KroneckerLayer(model, 100)
    z = model(x)
    calls = [(x, list(fisher.exact("mse", z.detach())))]
    a, g = layer.factors(calls, fisher.rows(z))
    assert torch.allclose(torch.kron(g, a), matrix, atol=1e-12)
    if fitted:
        before = _flat(model)
        Kfac(model, "mse", fisher="exact", damping=1e-14, **BARE).step(x, y)
        expected = before - torch.linalg.solve(matrix, gradient)
        assert torch.allclose(_flat(model), expected, atol=1e-5)


def _damped_kronecker(a, g, damping):
    ratio = (a.trace() / len(a) / (g.trace() / len(g))) ** 0.5
    a = a + ratio * damping**0.5 * torch.eye(len(a)).double()
    g = g + damping**0.5 / ratio * torch.eye(len(g)).double()
    return torch.kron(g, a)


@pytest.mark.parametrize("kind", ["exact", "empirical"])
def test_a_step_on_two_layers_is_the_dense_kronecker_solve(kind):
    torch.manual_seed(0)
    first, second = nn.Linear(5, 4).double(), nn.Linear(4, 3).double()
    model = nn.Sequential(first, nn.Tanh(), second)
    x, y = torch.randn(9, 5).double(), torch.randint(0, 3, (9,))
    damping, decay = 0.03, 0.02

    h = torch.tanh(first(x)).detach()
    p = torch.softmax(second(h), -1).detach()
    labels = [F.one_hot(y, 3).double()] if kind == "empirical" else list(torch.eye(3).double())
    weights = [torch.ones(9).double()] if kind == "empirical" else list(p.T)
    expected = []
    for layer, inputs, back in (
        (first, x, lambda g: (g @ second.weight.detach()) * (1 - h**2)),
        (second, h, lambda g: g),
    ):
        rows = torch.cat([inputs, torch.ones(9, 1)], 1)
        a = sum(torch.outer(r, r) for r in rows) / 9
        g = torch.zeros(layer.out_features, layer.out_features).double()
        for label, weight in zip(labels, weights, strict=True):
            for r, w in zip(back(p - label), weight, strict=True):
                g += w * torch.outer(r, r) / 9
        loss = F.cross_entropy(model(x), y)
        dw, db = torch.autograd.grad(loss, [layer.weight, layer.bias])
        joint = torch.cat([layer.weight, layer.bias[:, None]], 1).detach()
        gradient = torch.cat([dw, db[:, None]], 1) + decay * joint
        matrix = _damped_kronecker(a, g, damping + decay)
        step = torch.linalg.solve(matrix, gradient.reshape(-1)).view_as(gradient)
        expected += [(joint - 0.5 * step)[:, :-1], (joint - 0.5 * step)[:, -1]]
    options = {**BARE, "lr": 0.5, "damping": damping, "weight_decay": decay}
    Kfac(model, "cross_entropy", fisher=kind, **options).step(x, y)
    for mine, theirs in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-10)


CONVOLUTIONS = {
    "plain": (nn.Conv2d(2, 3, 3), (4, 2, 6, 5)),
    "no bias, stride, padding, dilation": (
        nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 1), bias=False),
        (4, 2, 7, 6),
    ),
    "same": (nn.Conv2d(1, 2, (5, 3), padding="same"), (3, 1, 6, 4)),
    "1d": (nn.Conv1d(2, 3, 3, padding=1, dilation=2), (4, 2, 9)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolutions_unfolded_input_times_its_weight_is_its_output(case):
    torch.manual_seed(0)
    module, shape = CONVOLUTIONS[case]
    module = copy.deepcopy(module).double()
    x = torch.randn(shape).double()
    ((_, layer),) = layers_of(module, 1000)
    columns = torch.cat(list(layer._inputs(x)))
    expected = layer._outputs(module(x))
    found = module.weight.flatten(1) @ columns
    if module.bias is not None:
        found = found + module.bias[:, None]
    assert torch.allclose(found, expected, atol=1e-12)
    # The factor of the inputs is the mean of ccᵀ over those columns, each with a 1 for the bias.
    c = columns.transpose(0, 1).flatten(1)
    if module.bias is not None:
        c = torch.cat([c, torch.ones(1, c.shape[1]).double()])
    for most in (1000, 2):  # whole, and its diagonal
        ((_, layer),) = layers_of(module, most)
        inputs, _ = layer.factors([(x, [module(x)])], len(x))
        whole = c @ c.T / c.shape[1]
        assert torch.allclose(inputs, whole if most == 1000 else whole.diagonal(), atol=1e-12)


def test_a_convolutions_factors_are_curvlinops():
    """Another library's K-FAC, on a convolution and a linear layer."""
    linop = pytest.importorskip("curvlinops")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)).double()
    x, y = torch.randn(6, 2, 5, 5).double(), torch.randint(0, 4, (6,))
    theirs = linop.KFACLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        [(x, y)],
        fisher_type="type-2",
        kfac_approx="expand",
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    mine = Kfac(model, fisher="exact", **{**BARE, "lr": 1e-30})
    mine.step(x, y)
    blocks = []
    for block in mine._blocks:
        a, g = block.factors.values
        order = torch.arange(len(g) * len(a)).view(len(g), len(a))
        order = torch.cat([order[:, :-1].reshape(-1), order[:, -1]])  # weight, then bias
        blocks.append(torch.kron(g, a)[order][:, order])
    n = sum(p.numel() for p in model.parameters())
    dense = theirs @ torch.eye(n).double()
    assert torch.allclose(torch.block_diag(*blocks), torch.as_tensor(dense), atol=1e-10)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 2)], ids=["pointwise", "wide"])
def test_windows_are_those_of_unfold_however_the_input_lies_in_memory(kernel):
    from mlhf.optimizers.kfac.layers import _windows

    x = torch.randn(6, 3, 12, 7)[2:]
    for each in (x, x.contiguous(memory_format=torch.channels_last), x[:, :, ::2]):
        found = _windows(each, kernel, (2, 1), (1, 2))
        assert torch.equal(found, F.unfold(each, kernel, (2, 1), 0, (1, 2)))


def test_a_large_unfolded_input_is_treated_in_chunks(monkeypatch):
    module = nn.Conv2d(2, 3, 3, padding=1).double()
    x, g = torch.randn(8, 2, 6, 6).double(), torch.randn(8, 3, 6, 6).double()
    whole = KroneckerLayer(module, 100).factors([(x, [g])], 8)
    monkeypatch.setattr("mlhf.optimizers.kfac.layers._CHUNK", 1000)
    for mine, theirs in zip(KroneckerLayer(module, 100).factors([(x, [g])], 8), whole, strict=True):
        assert torch.allclose(mine, theirs)


@pytest.mark.parametrize("stride", [1, 2])
def test_inputs_may_be_taken_at_every_so_many_positions(stride):
    conv = nn.Conv2d(2, 3, 3, stride=stride, padding=1).double()
    x = torch.randn(4, 2, 9, 9).double()
    g = torch.randn_like(conv(x))
    strided = KroneckerLayer(conv, 99).input_factor([(x, [g])], stride=2)
    columns = F.unfold(F.pad(x, [1] * 4), 3, stride=stride).unflatten(2, g.shape[2:])
    seen = columns[:, :, ::2, ::2].flatten(2)
    ones = torch.cat([seen, torch.ones_like(seen[:, :1])], 1).transpose(0, 1).flatten(1)
    torch.testing.assert_close(strided, ones @ ones.T / ones.shape[1])


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("shape", "stride"), [((3,), 1), ((5, 3), 1), ((2, 7, 3), 2)])
@pytest.mark.parametrize("calls", [1, 2])
def test_a_linear_layers_factors_are_its_rows_second_moments(
    shape, stride, bias, calls, large, monkeypatch
):
    from mlhf.optimizers.kfac import layers as module

    if large:  # the way of wide layers
        monkeypatch.setattr(module, "LARGE", 1)
    linear = nn.Linear(3, 2, bias=bias).double()
    inputs = [torch.randn(shape).double() for _ in range(calls)]
    gradients = [torch.randn(*shape[:-1], 2).double() for _ in range(calls)]
    pairs = [(x, [g]) for x, g in zip(inputs, gradients, strict=True)]
    seen = [x[:, ::stride] if x.ndim == 3 else x for x in inputs]
    rows = torch.cat([x.reshape(-1, 3) for x in seen])
    if bias:
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
    layer = KroneckerLayer(linear, 99)
    found = layer.input_factor(pairs, stride)
    torch.testing.assert_close(found, rows.T @ rows / len(rows))
    out = torch.cat([g.reshape(-1, 2) for g in gradients])
    torch.testing.assert_close(layer.output_factor(pairs, 4), out.T @ out / 4)
    diagonal = KroneckerLayer(linear, 1)
    torch.testing.assert_close(diagonal.input_factor(pairs, stride), found.diagonal())


def test_products_side_by_side_are_those_one_after_the_other(monkeypatch):
    from mlhf.optimizers.kfac import layers as module

    conv = nn.Conv2d(2, 3, 3).double()
    x = torch.randn(4, 2, 9, 9).double()
    calls = [(x, [torch.randn_like(conv(x)) for _ in range(2)])]
    beside = KroneckerLayer(conv, 99).factors(calls, 4)
    monkeypatch.setattr(module, "_BATCHED", 0)
    for a, b in zip(beside, KroneckerLayer(conv, 99).factors(calls, 4), strict=True):
        torch.testing.assert_close(a, b)


def test_a_large_factor_keeps_its_diagonal():
    module = nn.Linear(9, 2, bias=False).double()
    x, g = torch.randn(8, 9).double(), torch.randn(8, 2).double()
    full, small = KroneckerLayer(module, 100), KroneckerLayer(module, 5)
    a, b = full.factors([(x, [g])], 8)
    diagonal, other = small.factors([(x, [g])], 8)
    assert torch.allclose(diagonal, a.diagonal())
    assert torch.equal(other, b)
    gradient = [torch.randn(2, 9).double()]
    as_matrix = full.apply(full.invert([a.diagonal().diag(), b], 0.1), gradient)
    as_vector = small.apply(small.invert([diagonal, b], 0.1), gradient)
    assert torch.allclose(as_matrix[0], as_vector[0])


@pytest.mark.parametrize("training", [True, False])
def test_batch_norms_block_is_that_of_per_sample_gradients(training):
    torch.manual_seed(0)
    module = nn.BatchNorm2d(3).double().train(training)
    module.running_mean.copy_(torch.randn(3))
    x, g = torch.randn(5, 3, 2, 2).double(), torch.randn(5, 3, 2, 2).double()
    (block,) = BatchNormLayer(module).factors([(x, [g])], 5)
    mean = x.mean((0, 2, 3)) if training else module.running_mean
    var = x.var((0, 2, 3), unbiased=False) if training else module.running_var
    normal = (x - mean.view(1, 3, 1, 1)) / (var.view(1, 3, 1, 1) + module.eps).sqrt()
    for c in range(3):
        expected = torch.zeros(2, 2).double()
        for n in range(5):
            v = torch.stack([(g[n, c] * normal[n, c]).sum(), g[n, c].sum()])
            expected += torch.outer(v, v) / 5
        assert torch.allclose(block[c], expected)
    gradient = [torch.randn(3).double(), torch.randn(3).double()]
    out = BatchNormLayer(module).apply(BatchNormLayer(module).invert([block], 0.1), gradient)
    solved = torch.linalg.solve(block + 0.1 * torch.eye(2).double(), torch.stack(gradient, -1))
    assert torch.allclose(torch.stack(out, -1), solved)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "binary_cross_entropy"])
def test_drawn_labels_have_the_exact_fisher_as_their_mean(loss):
    torch.manual_seed(0)
    z = torch.randn(1, 4).double()
    exact = sum(g.T @ g for g in fisher.exact(loss, z))
    generator = torch.Generator().manual_seed(1)
    draws = fisher.sampled(loss, z.expand(200_000, 4), generator)
    assert torch.allclose(draws.T @ draws / len(draws), exact, atol=4e-3)
    assert draws.mean(0).abs().max() < 5e-3
    if loss != "binary_cross_entropy":
        y = torch.tensor([2]) if loss == "cross_entropy" else torch.randn(1, 4).double()
        model = nn.Linear(4, 4, bias=False).double()
        with torch.no_grad():
            model.weight.copy_(torch.diag(z[0]))
        matrix, _ = _ggn(model, loss, torch.ones(1, 4).double(), y)  # 1⊗: every 4th entry is H
        assert torch.allclose(matrix[::4, ::4], exact, atol=1e-12)


def test_factors_and_inverses_change_when_they_are_due():
    """Weights stay where they are, so that each batch's factors can be had by themselves."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    batches = [(torch.randn(6, 3).double(), torch.randint(0, 2, (6,))) for _ in range(7)]
    still = {"lr": 0.0, "kl_clip": None, "fisher": "exact"}
    optimizer = Kfac(model, factors_every=2, inverse_every=3, decay=0.6, **still)
    factors, inverses, alone = [], [], []
    for x, y in batches:
        optimizer.step(x, y)
        factors.append([t.clone() for b in optimizer._blocks for t in b.factors.values])
        inverses.append([t.clone() for b in optimizer._blocks for t in b.inverses])
        fresh = Kfac(model, **still)
        fresh.step(x, y)
        alone.append([t for b in fresh._blocks for t in b.factors.values])

    def changes(values):
        steps = range(1, len(values))
        return [k for k in steps if not all(map(torch.equal, values[k - 1], values[k]))]

    assert changes(factors) == [2, 4, 6]
    assert changes(inverses) == [3, 6]
    for found, a, b, c, d in zip(factors[6], *alone[::2], strict=True):
        assert torch.allclose(found, 0.6 * (0.6 * (a + b) / 2 + 0.4 * c) + 0.4 * d)


def test_a_general_loss_has_no_labels_to_draw():
    model, x = nn.Linear(3, 2), torch.randn(5, 3)

    def loss(z, y):
        return (z - y).abs().pow(1.5).mean()

    with pytest.raises(ValueError, match="is not allowed with a loss function"):
        Kfac(model, loss)
    Kfac(model, loss, fisher="empirical").step(x, torch.zeros(5, 2))


def test_the_bounds_hold():
    torch.manual_seed(0)
    x, y = torch.randn(30, 6), torch.randint(0, 3, (30,))
    for bound in ({"kl_clip": 1e-4}, {"kl_clip": None, "norm_clip": 0.01}):
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        gradient = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        before = _flat(model)
        result = Kfac(model, **{**BARE, **bound}).step(x, y)
        step = before - _flat(model)
        scale = float(result.stats["step_scale"])
        if bound["kl_clip"] is None:
            assert step.norm() == pytest.approx(0.01, rel=1e-3)
        else:
            inner = float(step @ torch.cat([g.reshape(-1) for g in gradient])) * scale
            assert inner == pytest.approx(1e-4, rel=1e-3)


class _Odd(nn.Module):
    """Everything without a factored block: shared, embedded, attended, unused, in place."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.attention = nn.TransformerEncoderLayer(8, 2, 12, 0.1, batch_first=True)
        self.twice = nn.Linear(8, 8)
        self.tied = nn.Linear(8, 7, bias=False)
        self.tied.weight = self.embed.weight
        self.unused = nn.Linear(3, 3)
        self.grouped = nn.Conv1d(8, 8, 3, padding=1, groups=2)
        self.act = nn.ReLU(inplace=True)

    def forward(self, tokens):
        h = self.attention(self.embed(tokens))
        h = self.act(self.twice(self.act(self.twice(h))))
        return self.tied(self.grouped(h.transpose(1, 2)).transpose(1, 2))


@pytest.mark.parametrize("kind", ["sampled", "empirical", "exact"])
def test_any_network_trains(kind):
    torch.manual_seed(0)
    model = _Odd()
    tokens, y = torch.randint(0, 7, (16, 5)), torch.randint(0, 7, (16, 5))
    optimizer = Kfac(model, fisher=kind)
    layers = {type(b.calls.module) for b in optimizer._blocks}
    assert layers == {nn.Linear}
    assert any(p is model.embed.weight for p in optimizer._others)
    assert any(p is model.grouped.weight for p in optimizer._others)
    losses = [float(optimizer.step(tokens, y).loss) for _ in range(40)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    other = Kfac(_Odd(), fisher=kind)
    other.load_state_dict(optimizer.state_dict())


def test_an_activation_in_place_changes_nothing():
    torch.manual_seed(0)
    x, y = torch.randn(20, 6), torch.randint(0, 3, (20,))
    first = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    second = copy.deepcopy(first)
    second[1] = nn.ReLU(inplace=True)
    for model in (first, second):
        Kfac(model).step(x, y)
    assert torch.equal(_flat(first), _flat(second))


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_gradients_of_ignored_positions_count_for_nothing(fisher):
    """G of a batch with positions that are ignored is that of the batch without them."""
    torch.manual_seed(0)
    model = nn.Linear(3, 4, dtype=torch.float64)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, -100, 3, 1, -100, 2])
    found = []
    for rows in (slice(None), y >= 0):
        optimizer = Kfac(copy.deepcopy(model), fisher=fisher)
        optimizer.step(x[rows], y[rows])
        found.append(optimizer._blocks[0].factors.values[1])
    assert torch.allclose(*found, rtol=1e-10)


@pytest.mark.parametrize("output", [lambda z: (z, z), lambda z: z.sum()])
def test_what_has_no_rows_is_refused(output):
    class Model(nn.Linear):
        def forward(self, x):
            return output(super().forward(x))

    with pytest.raises(CurvatureError, match="one tensor of outputs"):
        Kfac(Model(3, 2), lambda z, y: z, fisher="empirical").step(torch.ones(4, 3), None)
