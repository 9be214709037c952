"""Models as data: one small network for each kind of layer, with a batch."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

S = nn.Sequential
D = torch.float64


class Tokens(nn.Module):
    """Embedding, a recurrent layer, logits for each token."""

    def __init__(self, cell, width=5, **settings):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.cell = cell(4, width, batch_first=True, **settings)
        self.out = nn.Linear(10 if settings.get("bidirectional") else 5, 7)

    def forward(self, x):
        return self.out(self.cell(self.embedding(x))[0])


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


class Checkpointed(Residual):
    def forward(self, x):
        return checkpoint(self.body, x, use_reentrant=False)


class Unpool(nn.Module):
    def forward(self, x):
        return nn.functional.max_unpool2d(*nn.functional.max_pool2d(x, 2, return_indices=True), 2)


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


class Encoder(nn.Module):
    def __init__(self, dropout=0.1, **settings):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            8, 2, 16, dropout=dropout, batch_first=True, **settings
        )
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.layer(x).mean(1))


class Attention(nn.Module):
    def __init__(self, need_weights, dropout=0.0, **settings):
        super().__init__()
        self.need_weights = need_weights
        self.attention = nn.MultiheadAttention(8, 2, dropout, batch_first=True, **settings)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        found, weights = self.attention(x, x, x, need_weights=self.need_weights)
        if weights is not None:
            found = found + weights @ x
        return self.out(found.mean(1))


class Bag(nn.Module):
    def __init__(self, mode, **settings):
        super().__init__()
        self.bag, self.out = nn.EmbeddingBag(7, 4, mode=mode, **settings), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.bag(x))


class WeightedBag(nn.Module):
    """Per-sample weights that are learned."""

    def __init__(self, **settings):
        super().__init__()
        self.bag, self.out = nn.EmbeddingBag(7, 4, mode="sum", **settings), nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.randn(7))

    def forward(self, x):
        return self.out(self.bag(x, per_sample_weights=self.scale[x]))


class Heads(nn.Module):
    """Returns a tuple, a dict or both, some of it not dependent on any parameter."""

    def __init__(self, form):
        super().__init__()
        self.form = form
        self.body, self.first, self.second = nn.Linear(6, 4), nn.Linear(4, 3), nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x):
        h = torch.tanh(self.body(x))
        a, b = self.first(h), self.second(h) * self.scale
        if self.form == "tuple":
            return a, b
        if self.form == "dict":
            return {"classes": a, "values": b, "count": torch.tensor(len(x)), "none": None}
        return a, [h, {"values": b, "scale": self.scale}], x


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


FIRST = {  # vectors a check must not be satisfied with
    "ones": lambda model: [torch.ones_like(p) for p in model.parameters()],
    "zeros": lambda model: [torch.zeros_like(p) for p in model.parameters()],
    "last layer": lambda model: [
        torch.ones_like(p) if name.startswith("out") else torch.zeros_like(p)
        for name, p in model.named_parameters()
    ],
}


class Spectrum(nn.Module):
    """Complex numbers in between."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(6, 6), nn.Linear(12, 3)

    def forward(self, x):
        z = torch.fft.rfft(self.first(x))
        return self.out(torch.cat([z.abs(), torch.view_as_real((0.1j * z).exp()).flatten(1)], 1))


def dense_net(*middle, width=5):
    return S(nn.Linear(6, width), *middle, nn.LazyLinear(3))


def conv_net(*middle):
    return S(nn.Conv2d(2, 3, 3, padding=1), *middle, nn.Flatten(), nn.LazyLinear(3))


def series_net(*middle):
    return S(nn.Conv1d(2, 3, 3), *middle, nn.Flatten(), nn.LazyLinear(3))


def volume_net(*middle):
    return S(nn.Conv3d(1, 2, 2), *middle, nn.Flatten(), nn.LazyLinear(3))


def frozen(model, part):
    getattr(model, part).requires_grad_(False)
    return model


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
    "complex": Spectrum,
    "rms_norm": lambda: dense_net(nn.RMSNorm(5), nn.ReLU()),
    "spectral_norm": lambda: S(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3)), nn.Tanh()),
    "alpha_dropout": lambda: dense_net(nn.AlphaDropout(0.3)),
    "random_relu": lambda: dense_net(nn.RReLU()),
    "checkpointed": lambda: dense_net(Checkpointed(S(nn.Linear(5, 5), nn.Tanh(), nn.Dropout(0.5)))),
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
    "lp_pool": lambda: conv_net(nn.LPPool2d(2, 2)),
    "lp_pool3": lambda: conv_net(nn.Softplus(), nn.LPPool2d(3, 2)),
    "max_pool_dilated": lambda: conv_net(nn.MaxPool2d(2, 1, dilation=2, ceil_mode=True)),
    "max_unpool": lambda: conv_net(Unpool()),
    "fractional_max": lambda: conv_net(nn.FractionalMaxPool2d(2, output_size=4)),
    "avg_pool_padded": lambda: conv_net(nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)),
    "adaptive_max1": lambda: conv_net(nn.AdaptiveMaxPool2d(1)),
    "batch_norm_cumulative": lambda: conv_net(nn.BatchNorm2d(3, momentum=None), nn.ReLU()),
    "local_norm": lambda: conv_net(nn.LocalResponseNorm(2)),
    "group_norm_plain": lambda: conv_net(nn.GroupNorm(1, 3, affine=False)),
    "pixel_shuffle": lambda: S(
        nn.Conv2d(2, 4, 3), nn.PixelShuffle(2), nn.Flatten(), nn.LazyLinear(3)
    ),
    "padded": lambda: S(
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(3),
    ),
    "residual_conv": lambda: conv_net(
        Residual(S(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1))), nn.ReLU()
    ),
    "transposed_groups": lambda: conv_net(
        nn.ReLU(), nn.ConvTranspose2d(3, 6, 3, groups=3, dilation=2, padding=1, bias=False)
    ),
    "upsample_linear": lambda: conv_net(nn.Upsample(scale_factor=2, mode="bilinear")),
    "upsample": lambda: conv_net(nn.Upsample(scale_factor=2)),
}
VOLUMES = {
    "conv3d": lambda: volume_net(nn.ReLU()),
    "max_pool3d": lambda: volume_net(nn.MaxPool3d(2)),
    "avg_pool3d": lambda: volume_net(nn.AvgPool3d(2)),
    "adaptive_max3d": lambda: volume_net(nn.AdaptiveMaxPool3d(2)),
    "adaptive_avg3d": lambda: volume_net(nn.AdaptiveAvgPool3d(2)),
    "transposed3d": lambda: volume_net(nn.ConvTranspose3d(2, 2, 2)),
    "batch_norm3d": lambda: volume_net(nn.BatchNorm3d(2), nn.Tanh()),
}
SERIES = {
    "conv1d": lambda: S(
        nn.Conv1d(2, 3, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(9, 3)
    ),
    "transposed1d": lambda: series_net(nn.ConvTranspose1d(3, 3, 3, stride=2)),
    "conv1d_strided": lambda: series_net(nn.Conv1d(3, 3, 3, stride=2, groups=3), nn.ReLU()),
    "adaptive_avg1d": lambda: series_net(nn.AdaptiveAvgPool1d(2)),
    "adaptive_max1d": lambda: series_net(nn.AdaptiveMaxPool1d(2)),
    "lp_pool1d": lambda: series_net(nn.LPPool1d(2, 2)),
    "batch_norm1d": lambda: series_net(nn.BatchNorm1d(3), nn.ReLU()),
    "instance_norm1d": lambda: series_net(nn.InstanceNorm1d(3, affine=True)),
    "avg_pool1d": lambda: S(nn.Conv1d(2, 3, 3), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(9, 3)),
}
TOKENS = {
    "lstm": lambda: Tokens(nn.LSTM),
    "lstm_deep": lambda: Tokens(nn.LSTM, bidirectional=True, num_layers=2, dropout=0.2),
    "gru": lambda: Tokens(nn.GRU),
    "rnn": lambda: Tokens(nn.RNN),
    "lstm_projected": lambda: Tokens(nn.LSTM, proj_size=5, width=6),
    "lstm_eval": lambda: Tokens(nn.LSTM, num_layers=2, dropout=0.2).eval(),
    "gru_deep": lambda: Tokens(nn.GRU, bidirectional=True, num_layers=2, dropout=0.2),
    "rnn_relu": lambda: Tokens(nn.RNN, nonlinearity="relu", num_layers=2),
    "padding": lambda: S(nn.Embedding(7, 4, padding_idx=1), nn.Linear(4, 7)),
    "padding_negative": lambda: S(nn.Embedding(7, 4, padding_idx=-1), nn.Linear(4, 7)),
    "sparse": lambda: S(nn.Embedding(7, 4, sparse=True), nn.Linear(4, 7)),
    "tied": Tied,
}
BAGS = {f"bag_{mode}": lambda mode=mode: Bag(mode) for mode in ("sum", "mean", "max")}
BAGS |= {
    f"bag_padded_{mode}": lambda mode=mode: Bag(mode, padding_idx=3) for mode in ("sum", "max")
}
BAGS["bag_padded"] = lambda: Bag("mean", padding_idx=3)
BAGS["bag_spectral_norm"] = lambda: S(
    nn.EmbeddingBag(7, 4, mode="max"), nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
)
BAGS["bag_weighted"] = WeightedBag
BAGS["bag_weighted_padded"] = lambda: WeightedBag(padding_idx=3)
VECTORS = {  # (2, 4, 8) in, (2, 3) out
    "attention": lambda: Attention(need_weights=False),
    "attention_weights": lambda: Attention(need_weights=True),
    "attention_dropout": lambda: Attention(need_weights=False, dropout=0.1),
    "attention_dropout_weights": lambda: Attention(need_weights=True, dropout=0.1),
    "attention_bias_kv": lambda: Attention(need_weights=False, add_bias_kv=True),
    "attention_eval": lambda: Attention(need_weights=False, dropout=0.1).eval(),
    "encoder": Encoder,
    "encoder_no_dropout": lambda: Encoder(0.0),
    "encoder_gelu_first": lambda: Encoder(0.0, activation="gelu", norm_first=True),
    "encoder_eval": lambda: Encoder().eval(),
    "encoder_eval_frozen_body": lambda: frozen(Encoder().eval(), "layer"),
}
ALL = [*DENSE, *IMAGES, *SERIES, *VOLUMES, *TOKENS, *BAGS, *VECTORS]


def case(name):
    """Return a model of float64, in train mode unless it says otherwise, with a batch."""
    torch.manual_seed(1)
    x: Tensor
    if name in DENSE:
        model, x, y = DENSE[name](), torch.randn(5, 6), torch.randint(0, 3, (5,))
    elif name in IMAGES:
        model, x, y = IMAGES[name](), torch.randn(3, 2, 8, 8), torch.randint(0, 3, (3,))
    elif name in SERIES:
        model, x, y = SERIES[name](), torch.randn(3, 2, 8), torch.randint(0, 3, (3,))
    elif name in VOLUMES:
        model, x, y = VOLUMES[name](), torch.randn(3, 1, 5, 5, 5), torch.randint(0, 3, (3,))
    elif name in TOKENS:
        model, x, y = TOKENS[name](), torch.randint(0, 7, (2, 4)), torch.randint(0, 7, (2, 4))
    elif name in BAGS:
        model, x, y = BAGS[name](), torch.randint(0, 7, (4, 3)), torch.randint(0, 3, (4,))
        x[0, 1] = 3  # the index that some leave out
    else:
        model, x, y = VECTORS[name](), torch.randn(2, 4, 8), torch.randint(0, 3, (2,))
    model = model.to(D)
    x = x.to(D) if x.is_floating_point() else x
    if any(isinstance(p, nn.UninitializedParameter) for p in model.parameters()):
        with torch.no_grad():
            model(x)
    shake(model)
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            x[0, 1] = module.padding_idx  # a case of padding has some
    return model, x, y


def shake(model):
    """Move parameters: norms start with gamma 1 and beta 0, which would hide mistakes."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def split(v, model):
    parameters = [p for p in model.parameters() if p.requires_grad]
    parts = v.split([p.numel() for p in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def assert_close(actual, expected):
    """To 1e-10 of the largest element."""
    scale = expected.abs().max().clamp_min(1e-30)
    assert ((actual - expected).abs().max() / scale).item() < 1e-10
