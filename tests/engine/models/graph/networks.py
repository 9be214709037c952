"""Modules that do what other people's do: functional calls, tied weights, buffers, both modes."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Pre-norm self-attention with rotary positions by elementwise operations."""

    def __init__(self, width, heads, dropout=0.1, places=64):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.heads, self.dropout = heads, dropout
        angles = torch.outer(torch.arange(places).float(), 0.5 ** torch.arange(width // heads // 2))
        self.register_buffer("cos", angles.cos().repeat(1, 2), persistent=False)
        self.register_buffer("sin", angles.sin().repeat(1, 2), persistent=False)

    def rotated(self, x):
        half = x.shape[-1] // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * self.cos[: x.shape[-2]] + turned * self.sin[: x.shape[-2]]

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            self.rotated(q),
            self.rotated(k),
            v,
            is_causal=True,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return x + self.drop(self.out(mixed.transpose(1, 2).reshape(b, t, d)))


class LanguageModel(nn.Module):
    """Tokens to logits; the embedding is the head's weight too."""

    def __init__(self, vocabulary=40, width=16):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Attention(width, 2) for _ in range(2))
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids) * math.sqrt(self.embed.embedding_dim)
        for block in self.blocks:
            x = block(x)
        return {"logits": self.head(x), "hidden": x}


class ScaledConv(nn.Conv2d):
    """A convolution with a forward of its own, as weight standardisation has."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


class Vision(nn.Module):
    """An image classifier: grouped and standardised convolutions, batch norm, a class token."""

    def __init__(self, drop_path=0.0):
        super().__init__()
        self.stem = ScaledConv(1, 8, 3, 2, 1)
        self.bn = nn.BatchNorm2d(8)
        self.mix = nn.Conv2d(8, 8, 3, padding="same", groups=4)
        self.group = nn.GroupNorm(2, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.places = nn.Parameter(torch.randn(1, 17, 8))
        self.register_buffer("scale", torch.tensor([1.0, 2.0]))
        self.unused = nn.Linear(3, 3)
        self.rnn = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(16, 10)
        self.drop_path = drop_path

    def forward(self, image):
        x = F.relu(self.bn(self.stem(image)), inplace=True)
        y = self.group(self.mix(x))
        if self.training and self.drop_path:
            y = y * y.new_empty(len(y), 1, 1, 1).bernoulli_(1 - self.drop_path)
        x = x.add(y)
        x *= 2
        x = torch.cat([self.token.expand(len(x), -1, -1), x.flatten(2).mT], 1) + self.places
        x, (h, _) = self.rnn(x)
        return self.head(torch.cat([x.amax(1), h[-1] * self.scale.sum()], -1))


class UNet(nn.Module):
    """Images to images, with transposed convolutions, interpolation and padding."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), nn.InstanceNorm2d(4), nn.SiLU())
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        kept = self.down(x)
        x = F.max_pool2d(kept, 2)
        x = F.pad(self.up(x), (0, kept.shape[-1] % 2, 0, 0))
        x = F.interpolate(x, size=kept.shape[-2:], mode="bilinear", align_corners=False)
        return self.out(torch.cat((kept, x), dim=1))


class Towers(nn.Module):
    """Two inputs, two outputs, einsum, gather and a mask."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(5, 4), nn.GRU(3, 4, batch_first=True)

    def forward(self, a, b, mask=None):
        u = F.normalize(self.left(a), dim=-1)
        v = self.right(b)[0]
        scores = torch.einsum("bd,btd->bt", u, v).masked_fill(b.sum(-1) < -9, -math.inf)
        best = scores.argmax(-1, keepdim=True)
        return scores.softmax(-1), v.gather(1, best[..., None].expand(-1, -1, 4)).squeeze(1)


CASES = {
    "language": (LanguageModel, lambda: torch.randint(40, (2, 9))),
    "vision": (Vision, lambda: torch.randn(2, 1, 8, 8)),
    "drop_path": (lambda: Vision(0.3), lambda: torch.randn(2, 1, 8, 8)),
    "unet": (UNet, lambda: torch.randn(2, 1, 9, 9)),
    "towers": (Towers, lambda: (torch.randn(2, 5), torch.randn(2, 6, 3))),
}
