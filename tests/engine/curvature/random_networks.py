"""Random small networks and losses: any layer of torch.nn that is differentiable twice."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

D = torch.float64


@dataclass(frozen=True)
class RandomCase:
    """A network with a batch and a loss; ``text`` says what it is made of."""

    model: nn.Module
    loss: Any
    x: Any
    y: Any
    text: str


class _Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


class _First(nn.Module):
    """The first output of a module of several, such as a recurrent layer."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)[0]


class _Attention(nn.Module):
    def __init__(self, need_weights, **settings):
        super().__init__()
        self.attention, self.need_weights = nn.MultiheadAttention(**settings), need_weights

    def forward(self, x):
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


class _Twice(nn.Module):
    """A bilinear layer of its input with itself."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x, x)


class _Network(nn.Module):
    """A body and one or several heads."""

    def __init__(self, body, heads, form):
        super().__init__()
        self.body, self.heads, self.form = body, nn.ModuleList(heads), form

    def forward(self, x):
        h = self.body(x)
        out = [head(h) for head in self.heads]
        if self.form == "tensor":
            return out[0]
        return tuple(out) if self.form == "tuple" else dict(enumerate(out))


def _activation(r: random.Random, channels: int) -> nn.Module:
    return r.choice(
        [
            *(nn.ReLU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.SELU, nn.SiLU, nn.Mish, nn.Softsign),
            *(nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Tanhshrink, nn.RReLU),
            lambda: nn.GELU(approximate=r.choice(["none", "tanh"])),
            lambda: nn.ELU(r.choice([0.5, 1.0, 2.0])),
            lambda: nn.CELU(r.choice([0.5, 1.0, 2.0])),
            lambda: nn.LeakyReLU(r.choice([0.01, 0.3])),
            lambda: nn.Softplus(r.choice([0.5, 1.0, 3.0]), threshold=r.choice([1, 20])),
            lambda: nn.Hardtanh(-0.7, 1.3),
            lambda: nn.Threshold(0.1, -0.2),
            lambda: nn.Softshrink(0.2),
            lambda: nn.Hardshrink(0.2),
            lambda: nn.PReLU(r.choice([1, channels])),
            lambda: nn.Softmax(1),
            lambda: nn.Softmin(1),
            lambda: nn.LogSoftmax(-1),
            lambda: nn.ReLU(inplace=True),
            lambda: nn.SiLU(inplace=True),
        ]
    )()


def _dense(r: random.Random, shape: tuple[int, ...]) -> nn.Module:
    n = shape[-1]
    m = r.randint(2, 6)
    norm = r.choice(
        [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
    )
    return r.choice(
        [
            lambda: nn.Linear(n, m, bias=r.random() < 0.7),
            lambda: nn.Linear(n, m),
            lambda: _activation(r, shape[1]),
            lambda: nn.LayerNorm(n, eps=r.choice([1e-5, 1e-2]), bias=r.random() < 0.5),
            lambda: nn.LayerNorm(n, elementwise_affine=False),
            lambda: nn.RMSNorm(n, eps=r.choice([None, 1e-2])),
            lambda: nn.Dropout(r.choice([0.2, 0.5])),
            lambda: nn.AlphaDropout(0.3),
            lambda: nn.FeatureAlphaDropout(0.3),
            lambda: _Residual(nn.Sequential(nn.Linear(n, n), _activation(r, shape[1]))),
            lambda: _Twice(nn.Bilinear(n, n, m, bias=r.random() < 0.5)),
            lambda: norm(nn.Linear(n, m)),
            lambda: nn.GLU(-1),
            lambda: nn.BatchNorm1d(
                shape[1],
                eps=r.choice([1e-5, 1e-2]),
                affine=r.random() < 0.7,
                track_running_stats=r.random() < 0.7,
                momentum=r.choice([0.1, None]),
            ),
        ]
    )()


def _spatial(r: random.Random, shape: tuple[int, ...], dims: int) -> nn.Module:
    c = shape[1]
    of: Callable[[str], Any] = lambda name: getattr(nn, f"{name}{dims}d")  # noqa: E731
    divisors = [d for d in range(1, c + 1) if c % d == 0]
    g = r.choice(divisors)
    out = g * r.randint(1, 3)
    size, stride, dilation = r.randint(1, 3), r.randint(1, 2), r.randint(1, 2)
    padding = r.randint(0, 1)
    flag = r.random() < 0.5
    choices: list[Callable[[], nn.Module]] = [
        lambda: of("Conv")(
            c, out, size, stride=stride, padding=padding, dilation=dilation, groups=g, bias=flag,
            padding_mode=r.choice(["zeros", "zeros", "reflect", "replicate", "circular"]),
        ),
        lambda: of("Conv")(c, out, 3, padding="same", groups=g),
        lambda: of("ConvTranspose")(
            c, out, size, stride=stride, padding=min(padding, size - 1), groups=g, bias=flag,
            output_padding=r.randint(0, stride - 1), dilation=dilation,
        ),
        lambda: of("MaxPool")(2, stride=stride, dilation=dilation, ceil_mode=flag),
        lambda: of("MaxPool")(3, stride=2, padding=1, ceil_mode=flag),
        lambda: of("AvgPool")(2, stride=stride, padding=padding, ceil_mode=flag,
                              count_include_pad=r.random() < 0.5),
        lambda: of("AdaptiveAvgPool")(r.randint(1, 3)),
        lambda: of("AdaptiveMaxPool")(r.randint(1, 3)),
        lambda: nn.Sequential(nn.Softplus(), of("LPPool")(r.choice([2, 3]), 2, ceil_mode=flag)),
        lambda: of("BatchNorm")(c, eps=r.choice([1e-5, 1e-2]), affine=flag,
                                track_running_stats=r.random() < 0.7),
        lambda: of("InstanceNorm")(c, affine=flag, track_running_stats=r.random() < 0.3,
                                   eps=1e-2),
        lambda: nn.GroupNorm(g, c, affine=flag, eps=1e-3),
        lambda: nn.LayerNorm(shape[2:], eps=1e-2),
        lambda: nn.LocalResponseNorm(r.randint(1, 3), alpha=0.5),
        lambda: of("Dropout")(0.3),
        lambda: of("ZeroPad")(1),
        lambda: of("ReflectionPad")(1),
        lambda: of("ReplicationPad")(1),
        lambda: of("CircularPad")(1),
        lambda: of("ConstantPad")(1, 0.3),
        lambda: nn.Upsample(scale_factor=2),
        lambda: nn.Upsample(scale_factor=1.5, align_corners=flag,
                            mode=("linear", "bilinear", "trilinear")[dims - 1]),
        lambda: _activation(r, c),
        lambda: _activation(r, c),
        lambda: _Residual(nn.Sequential(of("Conv")(c, c, 3, padding=1), _activation(r, c))),
    ]  # fmt: skip
    if dims == 2:
        choices += [
            lambda: nn.AvgPool2d(2, divisor_override=3, padding=padding),
            lambda: nn.FractionalMaxPool2d(2, output_ratio=0.7),
            lambda: nn.PixelShuffle(2),
            lambda: nn.PixelUnshuffle(2),
            lambda: nn.ChannelShuffle(g),
            lambda: nn.Softmax2d(),
            lambda: nn.Upsample(scale_factor=2, mode="bicubic", align_corners=flag),
            lambda: nn.Sequential(nn.Unfold(2, stride=stride), nn.Flatten()),
        ]
    return r.choice(choices)()


def _sequence(r: random.Random, shape: tuple[int, ...]) -> nn.Module:
    """Of (B, T, E)."""
    n, hidden = shape[-1], r.randint(2, 4)
    common = {"batch_first": True, "num_layers": r.randint(1, 2), "bidirectional": r.random() < 0.4,
              "bias": r.random() < 0.8, "dropout": r.choice([0.0, 0.2])}  # fmt: skip
    heads = r.choice([h for h in (1, 2) if n % h == 0])
    return r.choice(
        [
            lambda: _First(nn.LSTM(n, hidden, **common)),
            lambda: _First(nn.LSTM(n, 4, proj_size=2, **common)),
            lambda: _First(nn.GRU(n, hidden, **common)),
            lambda: _First(nn.RNN(n, hidden, nonlinearity=r.choice(["tanh", "relu"]), **common)),
            lambda: _Attention(
                r.random() < 0.5, embed_dim=n, num_heads=heads, batch_first=True,
                dropout=r.choice([0.0, 0.2]), bias=r.random() < 0.7,
                add_bias_kv=r.random() < 0.3, add_zero_attn=r.random() < 0.3,
            ),
            lambda: nn.TransformerEncoderLayer(
                n, heads, 6, dropout=r.choice([0.0, 0.2]), batch_first=True,
                activation=r.choice(["relu", "gelu"]), norm_first=r.random() < 0.5,
            ),
            lambda: _dense(r, shape),
            lambda: _dense(r, shape),
        ]
    )()  # fmt: skip


def _bag(r: random.Random) -> nn.Module:
    mode = r.choice(["sum", "mean", "max"])
    return nn.EmbeddingBag(7, 4, mode=mode, padding_idx=r.choice([None, 2, -1]))


def _start(r: random.Random) -> tuple[Tensor, nn.Module, Callable[[tuple[int, ...]], nn.Module]]:
    """Return an input, a first layer, and what makes more of them."""
    kind = r.choice(["dense", "dense", "series", "image", "image", "volume", "tokens", "tokens"])
    if kind == "dense":
        return torch.randn(3, 5, dtype=D), nn.Linear(5, 5), lambda shape: _dense(r, shape)
    if kind == "tokens":
        x = torch.randint(0, 7, (2, 4))
        if r.random() < 0.25:
            x[0, 1] = 2
            return x, _bag(r), lambda shape: _dense(r, shape)
        padding = r.choice([None, 0, 3, -2])
        if padding is not None:
            x[0, -1] = x[1, 0] = padding % 7
        first = nn.Embedding(7, 4, padding_idx=padding, sparse=r.random() < 0.2)
        return x, first, lambda shape: _sequence(r, shape)
    dims = {"series": 1, "image": 2, "volume": 3}[kind]
    side = {1: 8, 2: 6, 3: 4}[dims]
    x = torch.randn(3, 2, *[side] * dims, dtype=D)
    first = getattr(nn, f"Conv{dims}d")(2, r.choice([2, 4]), 3, padding=1)

    def more(shape: tuple[int, ...]) -> nn.Module:
        return _spatial(r, shape, dims) if len(shape) == dims + 2 else _dense(r, shape)

    return x, first, more


def _mixture(z: Tensor, y: Tensor) -> Tensor:
    """A density of two Gaussians, which is not convex in z."""
    weights, mean, scale = z.split([2, 2, 2], -1)
    terms = weights.log_softmax(-1) - 0.5 * ((y - mean) * scale.exp()) ** 2 + scale
    return -torch.logsumexp(terms, -1).mean()


def _losses(r: random.Random) -> tuple[int, Any, Callable[[Tensor], Any], str]:
    """Return (outputs, loss, target for an output, name)."""
    k = r.randint(2, 4)
    classes = lambda z: torch.randint(0, z.shape[-1], z.shape[:-1])  # noqa: E731
    weights = torch.rand(k, dtype=D) + 0.1
    flat = lambda z, y: (z.reshape(-1, z.shape[-1]), y.reshape(-1))  # noqa: E731
    return r.choice(
        [
            (k, "cross_entropy", classes, "cross_entropy"),
            (k, "mse", torch.randn_like, "mse"),
            (k, "binary_cross_entropy", torch.rand_like, "logistic"),
            (
                k,
                lambda z, y: F.cross_entropy(*flat(z, y), weight=weights, ignore_index=0),
                classes,
                "weighted",
            ),
            (
                k,
                lambda z, y: F.cross_entropy(*flat(z, y), label_smoothing=0.2, reduction="sum"),
                classes,
                "smoothed",
            ),
            (k, F.smooth_l1_loss, torch.randn_like, "smooth_l1"),
            (k, lambda z, y: F.huber_loss(z, y, delta=0.5), torch.randn_like, "huber"),
            (k, F.poisson_nll_loss, torch.rand_like, "poisson"),
            (
                2,
                lambda z, y: F.gaussian_nll_loss(z[..., 0], y[..., 0], z[..., 1].exp()),
                torch.randn_like,
                "gaussian",
            ),
            (6, _mixture, lambda z: torch.randn(*z.shape[:-1], 1, dtype=D), "mixture"),
            (
                3,
                lambda z, y: 1 - F.cosine_similarity(z, y, dim=-1).mean(),
                torch.randn_like,
                "cosine",
            ),
            (3, lambda z, y: F.pairwise_distance(z, y).mean(), torch.randn_like, "distance"),
            (3, lambda z, y: (z * y).tanh().mean(), torch.randn_like, "tanh"),
        ]
    )


def random_case(seed: int) -> RandomCase:
    """Return the case of a seed: all draws are its own."""
    torch.manual_seed(seed)
    r = random.Random(seed)
    x, first, more = _start(r)
    layers = [first.to(D)]
    h = layers[0](x)
    for _ in range(r.randint(1, 4)):
        for _ in range(20):  # until one fits
            try:
                layer = more(tuple(h.shape)).to(D)
                if r.random() < 0.15:  # the same layer again, if that is possible
                    layer = nn.Sequential(layer, layer)
                found = layer(h.clone())
            except (RuntimeError, ValueError, AssertionError, IndexError):
                continue
            if found.numel() > 800 or not found.numel() or not bool(torch.isfinite(found).all()):
                continue
            layers.append(layer)
            h = found
            break
    if h.dim() > 3 or (h.dim() == 3 and x.is_floating_point()):
        layers.append(nn.Flatten())
        h = h.flatten(1)
    outputs, loss, target, text = _losses(r)
    forms = ["tensor"] * 4 + ["tuple", "dict"]
    form = r.choice(forms)
    model = _Network(nn.Sequential(*layers), [nn.Linear(h.shape[-1], outputs).to(D)], form)
    y: Any = target(model.heads[0](h))
    if form != "tensor":
        model.heads.append(nn.Linear(h.shape[-1], 2).to(D))
        one = loss if not isinstance(loss, str) else _by_name(loss)
        loss = lambda z, y: one(z[0], y) + 0.3 * (z[1].sum() * z[0].mean()).sin()  # noqa: E731
    if h.shape[-1] == outputs and form == "tensor" and r.random() < 0.5:
        linear = [
            m for m in layers if isinstance(m, nn.Linear) and not hasattr(m, "parametrizations")
        ]
        for m in linear:  # tied weights
            if m.weight.shape == model.heads[0].weight.shape:
                m.weight = model.heads[0].weight
    if r.random() < 0.3:
        model.eval()
    if r.random() < 0.3:
        for p in model.parameters():
            p.requires_grad_(r.random() < 0.5)
        model.heads[0].bias.requires_grad_(True)
    with torch.no_grad():
        for p in model.parameters():  # norms start with 1 and 0, which would hide mistakes
            p.add_(0.1 * torch.randn_like(p))
    frozen = sum(not p.requires_grad for p in model.parameters())
    text = f"{text} of {form}, {frozen} frozen, training {model.training}: {model}"
    return RandomCase(model, loss, x, y, text)


def _by_name(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return {
        "cross_entropy": lambda z, y: F.cross_entropy(z.reshape(-1, z.shape[-1]), y.reshape(-1)),
        "mse": F.mse_loss,
        "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    }[name]


def as_function(loss: Any) -> Callable[[Any, Any], Tensor]:
    """Return a loss as a function (z, y) ↦ scalar, independently of the code under test."""
    return _by_name(loss) if isinstance(loss, str) else loss
