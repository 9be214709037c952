"""Passes run fused kernels, and products through these are those of the plain network."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf import MLHF
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.ggn import GGN
from mlhf.curvature.gru import OwnGRU
from mlhf.curvature.uses import _reachable

LSTM, ATTENTION = "MkldnnRnnLayerBackward0", "ScaledDotProductFlashAttentionForCpuBackward0"
RECURRENT = {
    "one layer": {},
    "two layers": {"num_layers": 2},
    "both ways": {"bidirectional": True, "num_layers": 2},
    "batch first": {"batch_first": True},
    "no biases": {"bias": False},
}
needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


class Recurrent(nn.Module):
    """A recurrent layer, from a state that is trained; logits of each time and the last states."""

    def __init__(self, cell, learned_state, **settings):
        super().__init__()
        self.cell = cell(5, 4, **settings)
        directions = 2 if settings.get("bidirectional") else 1
        states = directions * settings.get("num_layers", 1)
        self.state = None
        if learned_state:
            count = 2 if cell is nn.LSTM else 1
            self.state = nn.ParameterList(torch.randn(states, 6, 4) for _ in range(count))
        self.out, self.last = nn.Linear(4 * directions, 3), nn.Linear(4, 3)

    def forward(self, x):
        state = self.state
        if state is not None:
            state = tuple(state) if len(state) == 2 else state[0]
        outputs, last = self.cell(x, state)
        lasts = last if isinstance(last, tuple) else (last,)
        return self.out(outputs).flatten(0, 1), [self.last(t).flatten(0, 1) for t in lasts]


def total_loss(z, y):
    first, others = z
    return F.cross_entropy(first, y) + sum(F.cross_entropy(t, y[: len(t)]) for t in others)


def names(ggn):
    return {node.name() for node in _reachable(t.grad_fn for t in ggn.outputs)}


def check(model, x, y, loss, uses=None, tolerance=1e-5):
    """Compare gradient and products with those of a network in float64 without fused kernels."""
    vs = [[torch.randn_like(p) for p in model.parameters()] for _ in range(2)]
    ggn = GGN(model, loss, x, y)
    if uses is not None:
        assert uses in names(ggn)
    exact = copy.deepcopy(model).double()
    wide = x.double() if x.is_floating_point() else x
    flash = torch.backends.cuda.flash_sdp_enabled()
    torch.backends.cuda.enable_flash_sdp(False)
    try:
        z = exact(wide)
        outputs = [z] if isinstance(z, torch.Tensor) else [z[0], *z[1]]
        zeros = [torch.zeros_like(t, requires_grad=True) for t in outputs]
        parameters = list(exact.parameters())
        found = torch.autograd.grad(outputs, parameters, zeros, create_graph=True)
        value = F.cross_entropy(z, y) if loss == "cross_entropy" else loss(z, y)
        gradient = torch.autograd.grad(value, parameters, retain_graph=True)
    finally:
        torch.backends.cuda.enable_flash_sdp(flash)
    for got, wanted in zip(ggn.gradient, gradient, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance)
    for v, tangents in zip(vs, ggn.jvps(vs), strict=True):
        wanted = torch.autograd.grad(found, zeros, [t.double() for t in v], retain_graph=True)
        for got, right in zip(tangents, wanted, strict=True):
            torch.testing.assert_close(got.double(), right, rtol=tolerance, atol=20 * tolerance)
        for alone, together in zip(ggn.jvp(v), tangents, strict=True):
            torch.testing.assert_close(alone, together)
    w = [torch.randn_like(t) for t in ggn.outputs]
    for _ in range(2):  # the graph is kept
        left = sum((a * b).sum() for a, b in zip(w, ggn.jvp(vs[0]), strict=True))
        right = sum((a * b).sum() for a, b in zip(ggn.vjp(w), vs[0], strict=True))
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


@needs_onednn
@pytest.mark.parametrize("learned_state", [False, True])
@pytest.mark.parametrize("settings", RECURRENT.values(), ids=RECURRENT)
def test_lstm(settings, learned_state):
    torch.manual_seed(0)
    model = Recurrent(nn.LSTM, learned_state, **settings)
    x = torch.randn(6, 7, 5) if settings.get("batch_first") else torch.randn(7, 6, 5)
    check(model, x, torch.randint(3, (42,)), total_loss, LSTM)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("learned_state", [False, True])
@pytest.mark.parametrize("settings", RECURRENT.values(), ids=RECURRENT)
def test_gru(settings, learned_state, dtype):
    torch.manual_seed(0)
    model = Recurrent(nn.GRU, learned_state, **settings).to(dtype)
    x = torch.randn(6, 7, 5) if settings.get("batch_first") else torch.randn(7, 6, 5)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    check(model, x.to(dtype), torch.randint(3, (42,)), total_loss, "GRULayerBackward", tolerance)


class Attention(nn.Module):
    """Logits from queries, keys and values of one sequence."""

    def __init__(self, **settings):
        super().__init__()
        self.table, self.out = nn.Embedding(9, 8), nn.Linear(8, 3)
        self.project = nn.Linear(8, 24)
        self.settings = settings

    def forward(self, x):
        q, k, v = self.project(self.table(x)).unflatten(-1, (3, 2, 4)).transpose(1, 3).unbind(2)
        settings = {
            name: value.to(q.dtype)
            if isinstance(value, torch.Tensor) and value.dtype != torch.bool
            else value
            for name, value in self.settings.items()
        }
        attended = F.scaled_dot_product_attention(q, k, v, **settings)
        return self.out(attended.transpose(1, 2).flatten(2)).flatten(0, 1)


MASKS = {
    "plain": {},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.3},
    "added": {"attn_mask": torch.linspace(-2, 2, 25).view(5, 5)},
    "boolean": {"attn_mask": torch.arange(25).view(5, 5) % 3 != 1},
    "a row that sees nothing": {"attn_mask": torch.arange(5).view(5, 1).expand(5, 5) != 2},
}


@pytest.mark.parametrize("settings", MASKS.values(), ids=MASKS)
def test_attention(settings):
    torch.manual_seed(0)
    check(
        Attention(**settings),
        torch.randint(9, (4, 5)),
        torch.randint(3, (20,)),
        "cross_entropy",
        ATTENTION,
    )


@pytest.mark.parametrize("causal", [False, True])
def test_attention_whose_heads_share_keys(causal):
    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(5, 16), nn.Linear(5, 8), nn.Linear(5, 8)
            self.out = nn.Linear(16, 3)

        def forward(self, x):
            q, k, v = (
                layer(x).unflatten(-1, (-1, 4)).transpose(1, 2)
                for layer in (self.q, self.k, self.v)
            )
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
            return self.out(attended.transpose(1, 2).flatten(2).mean(1))

    torch.manual_seed(0)
    check(Grouped(), torch.randn(6, 7, 5), torch.randint(3, (6,)), "cross_entropy", ATTENTION)


class Doubled(torch.autograd.Function):
    """2x, by a backward that can be differentiated."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


class CutOff(Doubled):
    """2x, by a backward that cannot."""

    @staticmethod
    def backward(ctx, g):
        return 2 * g.detach()


class WithFunction(nn.Module):
    def __init__(self, function, cell=nn.LSTM):
        super().__init__()
        self.cell, self.out = cell(5, 4, batch_first=True), nn.Linear(4, 3)
        self.function = function

    def forward(self, x):
        return self.function.apply(self.out(self.cell(x)[0])).flatten(0, 1)


def test_a_function_in_python_beside_a_fused_kernel():
    torch.manual_seed(0)
    x, y = torch.randn(6, 7, 5), torch.randint(3, (42,))
    check(WithFunction(Doubled), x, y, "cross_entropy")
    ggn = GGN(WithFunction(CutOff), "cross_entropy", x, y)
    with pytest.raises(CurvatureError, match="cannot be differentiated"):
        ggn.jvp(ggn.gradient)


def test_dropout_between_gated_layers_draws_as_torch_does():
    model, x = nn.GRU(5, 4, num_layers=2, dropout=0.5), torch.randn(7, 6, 5)
    torch.manual_seed(1)
    wanted = model(x)[0]
    torch.manual_seed(1)
    ggn = GGN(nn.Sequential(model, First()), "mse", x, torch.zeros(7, 6, 4))
    torch.testing.assert_close(ggn.output, wanted)


@pytest.mark.parametrize("bias", [False, True])
def test_a_gated_layer_can_be_differentiated_twice(bias):
    torch.manual_seed(0)
    model = nn.GRU(3, 2, bias=bias).double()
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    h = torch.randn(1, 2, 2, dtype=torch.float64, requires_grad=True)
    weights = [p.detach().clone().requires_grad_() for p in model.parameters()]

    def run(x, h, *weights):
        with OwnGRU():
            return torch.gru(x, h, weights, bias, 1, 0.0, True, False, False)

    assert run(x, h, *weights)[0].grad_fn.name() == "GRULayerBackward"
    assert torch.autograd.gradcheck(run, (x, h, *weights))
    assert torch.autograd.gradgradcheck(run, (x, h, *weights))


class First(nn.Module):
    def forward(self, x):
        return x[0]


def trained(model, x, y, *, own):
    """Return the parameters after four steps on a batch; ``own``: in a loop of one's own."""
    optimizer = MLHF(model)
    for _ in range(4):
        if own:
            optimizer.loss(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        else:
            optimizer.step(x, y)
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_activations_may_be_computed_again(cell):
    class Checkpointed(nn.Module):
        def __init__(self, again):
            super().__init__()
            torch.manual_seed(0)
            self.cell, self.out, self.again = cell(5, 4, batch_first=True), nn.Linear(4, 3), again

        def forward(self, x):
            if self.again:
                run = lambda x: self.cell(x)[0]  # noqa: E731
                hidden = torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False)
            else:
                hidden = self.cell(x)[0]
            return self.out(hidden[:, -1])

    x, y = torch.randn(6, 7, 5).double(), torch.randint(3, (6,))
    steps = []
    for again, own in ((False, False), (True, False), (True, True)):
        model = Checkpointed(again).double()
        steps.append(trained(model, x, y, own=own))
    for each in zip(*steps, strict=True):
        for other in each[1:]:
            torch.testing.assert_close(each[0], other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_training_goes_on_bit_for_bit(cell):
    def made():
        torch.manual_seed(0)
        model = WithFunction(Doubled, cell)
        return model, MLHF(model)

    def steps(optimizer, numbers):
        for number in numbers:
            generator = torch.Generator().manual_seed(number)
            x = torch.randn(6, 7, 5, generator=generator)
            optimizer.step(x, torch.randint(3, (42,), generator=generator))

    whole, optimizer = made()
    steps(optimizer, range(8))
    first, optimizer = made()
    steps(optimizer, range(5))
    saved = copy.deepcopy((first.state_dict(), optimizer.state_dict()))
    second, optimizer = made()
    second.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    steps(optimizer, range(5, 8))
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_loop_of_ones_own_takes_the_same_steps(cell):
    x, y = torch.randn(6, 7, 5), torch.randint(3, (42,))
    found = []
    for own in (False, True):
        torch.manual_seed(0)
        model = WithFunction(Doubled, cell)
        found.append(trained(model, x, y, own=own))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
