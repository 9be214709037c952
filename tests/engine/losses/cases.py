"""Losses with options as data: each with torch's own, outputs and targets in float64."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlhf.losses.cross_entropy import CrossEntropy
from mlhf.losses.elementwise import (
    BinaryCrossEntropy,
    Huber,
    Poisson,
    Quantile,
    SquaredError,
)
from mlhf.losses.heads import Head, Heads

D = torch.float64


@dataclass(frozen=True)
class Case:
    """A loss, a function of torch that says what it is, outputs, and targets of as many samples."""

    loss: Any
    reference: Any
    z: Tensor
    y: Any
    parts: Any = None  # of each position in the mean, where they are not all the same


def _pinball(z, y, levels, smoothing):
    q = torch.tensor(levels, dtype=D).repeat(y.shape[-1])
    u = y.repeat_interleave(len(levels), -1) - z
    return (q * u + smoothing * torch.logaddexp(-u / smoothing, torch.zeros_like(u))).mean()


def _weighted(function):
    """The mean over samples, each with its weight, of a function of one sample."""

    def of(z, y):
        targets, weights = y
        each = [function(z[i : i + 1], targets[i : i + 1]) for i in range(len(z))]
        return (torch.stack(each) * weights).mean()

    return of


def _positions(function, parts=None):
    """Of the losses of positions, with the weights of their samples, over the positions' parts."""

    def of(z, y):
        targets, weights = y
        each = function(z, targets)
        spread = weights.view(-1, *[1] * (each.ndim - 1))
        return (each * spread).sum() / (each.numel() if parts is None else parts.sum())

    return of


def _weighted_cases(z, maps, tokens, token_y, real, counts, yes) -> dict[str, Case]:
    """Each loss whose samples have weights, 0 among them."""
    weights = torch.tensor([0.0, 2.0, 0.3, 1.0, 1.5, 0.2], dtype=D)
    few = weights[1:4]
    classes, w = torch.tensor([0, 3, 2, 2, -100, 1]), torch.tensor([0.5, 2, 0, 1.5], dtype=D)
    map_y, ce = torch.randint(4, (3, 2, 3)), F.cross_entropy
    parts = torch.where(classes < 0, 0.0, w[classes.clamp_min(0)])
    options = {"weight": w, "label_smoothing": 0.1, "reduction": "none"}
    pairs = {
        "huber": (Huber(0.7), lambda z, y: F.huber_loss(z, y, delta=0.7, reduction="none"), real),
        "poisson": (Poisson(), lambda z, y: F.poisson_nll_loss(z, y, reduction="none"), counts),
        "several labels": (
            BinaryCrossEntropy([0.5, 1, 2, 3]),
            lambda z, y: F.binary_cross_entropy_with_logits(
                z, y, reduction="none", pos_weight=torch.tensor([0.5, 1, 2, 3], dtype=D)
            ),
            yes,
        ),
    }
    found = {}
    for name, (loss, function, y) in pairs.items():
        loss.sample_weights = True
        found[f"weighted {name}"] = Case(
            loss, _positions(lambda z, y, f=function: f(z, y).mean(-1)), z, (y, weights)
        )
    rows = lambda z, y: torch.stack(  # noqa: E731
        [_pinball(a, b, [0.1, 0.9], 0.3) for a, b in zip(z, y, strict=True)]
    )
    return found | {
        "weighted quantile": Case(
            Quantile([0.1, 0.9], 0.3, sample_weights=True),
            _positions(rows),
            *(z, (real[:, :2], weights)),
        ),
        "weighted two classes": Case(
            BinaryCrossEntropy(two_classes=True, sample_weights=True),
            _positions(
                lambda z, y: F.binary_cross_entropy_with_logits(z[:, 0], y.to(D), reduction="none")
            ),
            *(z[:, :1], (torch.tensor([0, 1, 1, 0, 1, 0]), weights)),
        ),
        "weights of both kinds": Case(
            CrossEntropy(0.1, [0.5, 2, 0, 1.5], sample_weights=True),
            _positions(lambda z, y: ce(z, y, **options), parts),
            *(z, (classes, weights), parts),
        ),
        "weighted tokens": Case(
            CrossEntropy(0.1, sample_weights=True),
            _positions(
                lambda z, y: ce(z.movedim(-1, 1), y, label_smoothing=0.1, reduction="none"),
                token_y >= 0,
            ),
            *(tokens, (token_y, few), (token_y >= 0).to(D)),
        ),
        "weighted maps": Case(
            CrossEntropy(ignore_index=2, channel_axis=1, sample_weights=True),
            _positions(lambda z, y: ce(z, y, ignore_index=2, reduction="none"), (map_y != 2).to(D)),
            *(maps, (map_y, few), (map_y != 2).to(D)),
        ),
        "weighted numbers of steps": Case(
            Huber(0.7, sample_weights=True),
            _positions(lambda z, y: F.huber_loss(z, y, delta=0.7, reduction="none").mean(-1)),
            *(tokens, (torch.randn_like(tokens), few)),
        ),
    }


def cases() -> dict[str, Case]:
    torch.manual_seed(0)
    z = 2 * torch.randn(6, 4, dtype=D)
    y = torch.tensor([0, 3, 2, 2, -100, 1])
    maps, map_y = torch.randn(3, 4, 2, 3, dtype=D), torch.randint(4, (3, 2, 3))
    tokens, token_y = torch.randn(3, 5, 4, dtype=D), torch.randint(4, (3, 5))
    token_y[0, 3:] = -100
    token_y[2, 1:] = -100
    class_weights, weights = [0.5, 2.0, 0.0, 1.5], torch.rand(6, dtype=D) + 0.1
    yes = (torch.rand(6, 4) > 0.5).to(D)
    real, counts = torch.randn(6, 4, dtype=D), torch.poisson(torch.rand(6, 4, dtype=D) * 3)
    ce = F.cross_entropy
    w = torch.tensor(class_weights, dtype=D)
    heads = Heads(
        {
            "kind": Head(CrossEntropy(label_smoothing=0.1), (4,), 0.5),
            "map": Head(CrossEntropy(channel_axis=1), (4, 2, 1), 2.0),
            "size": Head(Huber(0.5), (2,), 1.0),
        }
    )
    side = torch.randn(6, 14, dtype=D)
    head_y = {"kind": y, "map": torch.randint(4, (6, 2, 1)), "size": torch.randn(6, 2, dtype=D)}

    def several(z, y):
        kind, map_, size = z.split([4, 8, 2], 1)
        return (
            0.5 * ce(kind, y["kind"], label_smoothing=0.1)
            + 2 * ce(map_.reshape(-1, 4, 2, 1), y["map"])
            + F.huber_loss(size, y["size"], delta=0.5)
        )

    return {
        "plain": Case(CrossEntropy(), ce, z, y),
        "label smoothing": Case(
            CrossEntropy(0.2), lambda z, y: ce(z, y, label_smoothing=0.2), z, y
        ),
        "class weights": Case(
            CrossEntropy(class_weights=class_weights), lambda z, y: ce(z, y, weight=w), z, y
        ),
        "all of them": Case(
            CrossEntropy(0.2, class_weights, ignore_index=3),
            lambda z, y: ce(z, torch.where(y == 3, -100, y), weight=w, label_smoothing=0.2),
            z,
            y,
        ),
        "maps": Case(
            CrossEntropy(0.1, class_weights, 2, channel_axis=1),
            lambda z, y: ce(z, y, weight=w, label_smoothing=0.1, ignore_index=2),
            maps,
            map_y,
        ),
        "tokens": Case(
            CrossEntropy(0.1),
            lambda z, y: ce(z.movedim(-1, 1), y, label_smoothing=0.1),
            tokens,
            token_y,
        ),
        "sample weights": Case(
            CrossEntropy(sample_weights=True),
            _weighted(ce),
            z,
            (y.clamp_min(0), weights),
        ),
        "mse": Case(SquaredError(), F.mse_loss, z, real),
        "mse of maps": Case(SquaredError(channel_axis=1), F.mse_loss, maps, torch.randn_like(maps)),
        "weighted mse": Case(
            SquaredError(sample_weights=True), _weighted(F.mse_loss), z, (real, weights)
        ),
        "several labels": Case(
            BinaryCrossEntropy([0.5, 1, 2, 3]),
            lambda z, y: F.binary_cross_entropy_with_logits(
                z, y, pos_weight=torch.tensor([0.5, 1, 2, 3], dtype=D)
            ),
            z,
            yes,
        ),
        "two classes": Case(
            BinaryCrossEntropy(two_classes=True),
            lambda z, y: F.binary_cross_entropy_with_logits(z, y.unsqueeze(1).to(D)),
            z[:, :1],
            torch.tensor([0, 1, 1, 0, 1, 0]),
        ),
        "huber": Case(Huber(0.7), lambda z, y: F.huber_loss(z, y, delta=0.7), z, real),
        "poisson": Case(Poisson(), F.poisson_nll_loss, z, counts),
        "quantile": Case(
            Quantile([0.1, 0.9], 0.3), lambda z, y: _pinball(z, y, [0.1, 0.9], 0.3), z, real[:, :2]
        ),
        "heads": Case(heads, several, side, head_y),
    } | _weighted_cases(z, maps, tokens, token_y, real, counts, yes)


CASES = cases()
