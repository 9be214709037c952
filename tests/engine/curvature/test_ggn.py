"""Gauss-Newton products of every kind of layer against the dense matrix."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.curvature.errors import CurvatureError
from engine.curvature.ggn import GGN, trainable

S = nn.Sequential
D = torch.float64


class Tokens(nn.Module):
    """Embedding, a recurrent layer, logits for each token."""

    def __init__(self, cell, **settings):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.cell = cell(4, 5, batch_first=True, **settings)
        self.out = nn.Linear(10 if settings.get("bidirectional") else 5, 7)

    def forward(self, x):
        return self.out(self.cell(self.embedding(x))[0])


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


class Shared(nn.Module):
    """One layer used twice, and one that is never used."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(6, 6)
        self.unused = nn.Linear(3, 3)
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.twice(torch.relu(self.twice(x)))))


class Tied(nn.Module):
    """Input and output embedding are one matrix."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.hidden = nn.Linear(4, 4)

    def forward(self, x):
        return torch.tanh(self.hidden(self.embedding(x))) @ self.embedding.weight.T


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.layer(x).mean(1))


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.first(x)
        h[:, :2] *= 2
        h = h.clone()
        h[0] = h[1].exp()
        return self.out(h.relu_())


class Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].cos()


class SineOnce(Sine):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].cos()


class SineCut(Sine):
    """Its backward leaves autograd without saying so."""

    @staticmethod
    def backward(ctx, gradient):
        return gradient.detach() * ctx.saved_tensors[0].cos()


class Custom(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.first, self.out, self.function = nn.Linear(6, 4), nn.Linear(4, 3), function

    def forward(self, x):
        return self.out(self.function.apply(self.first(x)))


def dense_net(*middle, width=5):
    return S(nn.Linear(6, width), *middle, nn.LazyLinear(3))


def conv_net(*middle):
    return S(nn.Conv2d(2, 3, 3, padding=1), *middle, nn.Flatten(), nn.LazyLinear(3))


DENSE = {
    "linear": lambda: S(nn.Linear(6, 3)),
    "mlp": lambda: dense_net(nn.ReLU(), nn.Linear(5, 4), nn.Tanh()),
    "no_bias": lambda: S(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)),
    **{
        activation.__name__: lambda activation=activation: dense_net(activation())
        for activation in (
            *(nn.ELU, nn.GELU, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid, nn.Mish),
            *(nn.PReLU, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh),
            *(nn.Softsign, nn.Hardsigmoid),
        )
    },
    "softmax": lambda: dense_net(nn.Softmax(-1)),
    "batch_norm": lambda: dense_net(nn.BatchNorm1d(5), nn.ReLU()),
    "layer_norm": lambda: dense_net(nn.LayerNorm(5), nn.ReLU()),
    "layer_norm_input": lambda: S(nn.LayerNorm(6), nn.Linear(6, 3)),
    "layer_norm_plain": lambda: dense_net(nn.LayerNorm(5, elementwise_affine=False)),
    "dropout": lambda: dense_net(nn.Dropout(0.5), nn.ReLU()),
    "residual": lambda: dense_net(Residual(S(nn.ReLU(), nn.Linear(5, 5)))),
    "shared": Shared,
    "in_place": InPlace,
    "custom_function": lambda: Custom(Sine),
    "weight_norm": lambda: S(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)), nn.Tanh()),
}
IMAGES = {
    "conv": lambda: conv_net(nn.ReLU(), nn.Conv2d(3, 4, 3, stride=2, bias=False)),
    "groups": lambda: conv_net(nn.ReLU(), nn.Conv2d(3, 6, 3, groups=3, dilation=2)),
    "transposed": lambda: conv_net(nn.ConvTranspose2d(3, 2, 3, stride=2, output_padding=1)),
    "max_pool": lambda: conv_net(nn.MaxPool2d(3, 2, padding=1), nn.ReLU()),
    "avg_pool": lambda: conv_net(nn.AvgPool2d(2)),
    "adaptive_avg": lambda: conv_net(nn.AdaptiveAvgPool2d(1)),
    "adaptive_avg3": lambda: conv_net(nn.AdaptiveAvgPool2d(3)),
    "adaptive_max": lambda: conv_net(nn.AdaptiveMaxPool2d(3)),
    "batch_norm2d": lambda: conv_net(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3)),
    "batch_norm_plain": lambda: conv_net(nn.BatchNorm2d(3, affine=False), nn.ReLU()),
    "batch_norm_input": lambda: S(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(128, 3)),
    "batch_norm_untracked": lambda: conv_net(nn.BatchNorm2d(3, track_running_stats=False)),
    "batch_norm_eval": lambda: conv_net(nn.BatchNorm2d(3), nn.ReLU()).eval(),
    "group_norm": lambda: conv_net(nn.GroupNorm(3, 3), nn.ReLU()),
    "instance_norm": lambda: conv_net(nn.InstanceNorm2d(3, affine=True), nn.ReLU()),
    "layer_norm_image": lambda: conv_net(nn.LayerNorm([3, 8, 8])),
    "dropout2d": lambda: conv_net(nn.Dropout2d(0.3), nn.ReLU()),
    "upsample": lambda: conv_net(nn.Upsample(scale_factor=2)),
}
SERIES = {
    "conv1d": lambda: S(
        nn.Conv1d(2, 3, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(9, 3)
    ),
    "avg_pool1d": lambda: S(nn.Conv1d(2, 3, 3), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(9, 3)),
}
TOKENS = {
    "lstm": lambda: Tokens(nn.LSTM),
    "lstm_deep": lambda: Tokens(nn.LSTM, bidirectional=True, num_layers=2, dropout=0.2),
    "gru": lambda: Tokens(nn.GRU),
    "rnn": lambda: Tokens(nn.RNN),
    "tied": Tied,
}


def _case(name):
    torch.manual_seed(1)
    if name in DENSE:
        model, x, y = DENSE[name](), torch.randn(5, 6, dtype=D), torch.randint(0, 3, (5,))
    elif name in IMAGES:
        model, x = IMAGES[name](), torch.randn(3, 2, 8, 8, dtype=D)
        y = torch.randint(0, 3, (3,))
    elif name in SERIES:
        model, x = SERIES[name](), torch.randn(3, 2, 8, dtype=D)
        y = torch.randint(0, 3, (3,))
    elif name in TOKENS:
        model, x, y = TOKENS[name](), torch.randint(0, 7, (2, 4)), torch.randint(0, 7, (2, 4))
    else:
        model, x, y = Attention(), torch.randn(2, 4, 8, dtype=D), torch.randint(0, 3, (2,))
    model = model.to(D)
    if any(isinstance(p, nn.UninitializedParameter) for p in model.parameters()):
        with torch.no_grad():
            model(x)
    with torch.no_grad():  # norms start with gamma 1 and beta 0, which would hide mistakes
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model, x, y


def _split(v, model):
    parts = v.split([p.numel() for p in trainable(model)])
    return [part.view(p.shape) for part, p in zip(parts, trainable(model), strict=True)]


def _flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def _close(actual, expected):
    scale = expected.abs().max().clamp_min(1e-30)
    assert ((actual - expected).abs().max() / scale).item() < 1e-10


@pytest.mark.parametrize("name", [*DENSE, *IMAGES, *SERIES, *TOKENS, "attention"])
def test_products_equal_those_of_the_dense_matrix(name, dense):
    model, x, y = _case(name)
    expected = dense(model, "cross_entropy", x, y)
    ggn = GGN(model, "cross_entropy", x, y)
    _close(ggn.loss, expected.loss)
    _close(_flat(ggn.gradient), expected.gradient)
    n = len(expected.gradient)
    u, v = torch.randn(n, dtype=D), torch.randn(n, dtype=D)
    gu, gv = (_flat(ggn.product(_split(w, model))) for w in (u, v))
    _close(gv, expected.matrix @ v)
    _close(gu, expected.matrix @ u)
    _close(u @ gv, v @ gu)
    assert v @ gv >= 0
    _close(ggn.quadratic(_split(v, model)), v @ expected.matrix @ v)


def test_mse_products_equal_those_of_the_dense_matrix(dense):
    model, x, _ = _case("mlp")
    y = torch.randn(5, 3, dtype=D)
    expected = dense(model, "mse", x, y)
    ggn = GGN(model, "mse", x, y)
    v = torch.randn(len(expected.gradient), dtype=D)
    _close(ggn.loss, expected.loss)
    _close(_flat(ggn.gradient), expected.gradient)
    _close(_flat(ggn.product(_split(v, model))), expected.matrix @ v)


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (F.cross_entropy, "cross_entropy"),
        (lambda z, y: F.mse_loss(z, F.one_hot(y, 3).to(D)), None),
        (lambda z, y: z.sum(), None),
    ],
)
def test_a_loss_given_as_a_function(loss, named):
    model, x, y = _case("mlp")
    ggn = GGN(model, loss, x, y)
    v = [torch.randn_like(p) for p in trainable(model)]
    product = _flat(ggn.product(v))
    if named is None:  # the same product by the definition, from autograd's own pieces
        z, u = torch.autograd.functional.jvp(
            lambda *p: torch.func.functional_call(
                model, dict(zip(dict(model.named_parameters()), p, strict=True)), x
            ),
            tuple(model.parameters()),
            tuple(v),
        )
        w = torch.autograd.functional.hvp(lambda z: loss(z, y), z.detach(), u.detach())[1]
        expected = _flat(torch.autograd.grad(model(x), trainable(model), w))
        assert (product - expected).abs().max() < 1e-12
    else:
        other = GGN(model, named, x, y)
        _close(_flat(ggn.gradient), _flat(other.gradient))
        _close(product, _flat(other.product(v)))


def test_relu_networks_have_the_hessians_diagonal_blocks(dense):
    model, x, y = _case("ReLU")
    ggn = GGN(model, "cross_entropy", x, y)
    parameters = trainable(model)
    loss = F.cross_entropy(model(x), y)
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    for i, p in enumerate(parameters):
        v = [torch.zeros_like(q) for q in parameters]
        v[i] = torch.randn_like(p)
        (hessian,) = torch.autograd.grad(gradient[i], p, v[i], retain_graph=True)
        _close(ggn.product(v)[i], hessian)


@pytest.mark.parametrize("function", [SineOnce, SineCut])
def test_a_backward_that_cannot_be_differentiated_is_refused(function):
    torch.manual_seed(0)
    model = Custom(function)
    ggn = GGN(model, "cross_entropy", torch.randn(5, 6), torch.randint(0, 3, (5,)))
    with pytest.raises(CurvatureError, match="would be wrong"):
        ggn.product(ggn.gradient)


@pytest.mark.parametrize("name", ["batch_norm", "batch_norm2d"])
def test_running_statistics_move_once_as_in_a_plain_step(name):
    model, x, y = _case(name)
    plain = copy.deepcopy(model)
    plain(x)
    ggn = GGN(model, "cross_entropy", x, y)
    for _ in range(3):
        ggn.product(ggn.gradient)
    for mine, theirs in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", ["dropout", "dropout2d", "lstm_deep"])
def test_one_mask_is_drawn_and_products_draw_none(name):
    model, x, y = _case(name)
    torch.manual_seed(3)
    model(x)
    after_plain = torch.get_rng_state()
    torch.manual_seed(3)
    ggn = GGN(model, "cross_entropy", x, y)
    ggn.product(ggn.gradient)
    assert torch.equal(torch.get_rng_state(), after_plain)


def test_parameters_changed_under_a_product_are_noticed():
    model, x, y = _case("mlp")
    ggn = GGN(model, "cross_entropy", x, y)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ggn.product(ggn.gradient)


def test_switches_are_as_before_afterwards():
    read = torch._C
    before = read._get_mkldnn_enabled(), read._get_flash_sdp_enabled()
    model, x, y = _case("lstm")
    GGN(model, "cross_entropy", x, y)
    assert (read._get_mkldnn_enabled(), read._get_flash_sdp_enabled()) == before


def test_frozen_parameters_are_left_out():
    model, x, y = _case("mlp")
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
