"""Language models whose output layer is their embedding."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.wide.families.networks import Block
from bench.wide.task import Array, Size, Version, WideTask, arrays, npz, traced

_LETTERS = 65  # in tinyshakespeare
_WORDS = 400


def task(version: Version, size: Size) -> WideTask:
    """Return letters by one block; judged: the 400 commonest words of another part by two."""
    tiny = size == "tiny"
    if version == "development":
        words, length, width, heads, blocks = _LETTERS, 32, 64, 4, 1
    else:
        words, length, width, heads, blocks = _WORDS, 24, 48, 3, 2
    samples = 100 if tiny else 2500
    width = 12 if tiny else width
    return WideTask(
        "tied-language",
        version,
        lambda: traced(
            _Tied(words, length, width, heads, blocks), torch.zeros(2, length, dtype=torch.int64)
        ),
        npz(inputs="tokens", task="classification"),
        steps=10 if tiny else 600,
        batch_size=16 if version == "development" else 20,
        train_samples=samples,
        write=arrays(
            lambda data: (_letters if version == "development" else _common)(data, length, samples)
        ),
        needs=("tinyshakespeare",),
    )


class _Tied(nn.Module):
    """A causal Transformer; the output at each place is the similarity to each embedding."""

    def __init__(self, words: int, length: int, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(words, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, T) to (B, T, words)."""
        # Embeddings start at a deviation of 1: their products are scaled down to that.
        h = self.norm(self.blocks(self.tokens(x) + self.places))
        found: Tensor = h @ self.tokens.weight.T / h.shape[-1] ** 0.5
        return found


def _text(data: Path) -> str:
    return (data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")


def _letters(data: Path, length: int, samples: int) -> dict[str, Array]:
    text = _text(data)
    known = {letter: at for at, letter in enumerate(sorted(set(text)))}
    return _samples(np.array([known[c] for c in text]), length, samples, 701, 0.0, 0.6)


def _common(data: Path, length: int, samples: int) -> dict[str, Array]:
    """Words and marks; a word that is not among the commonest is the last token."""
    found = re.findall(r"[a-z']+|[^\sa-z']", _text(data).lower())
    known = {word: at for at, (word, _) in enumerate(Counter(found).most_common(_WORDS - 1))}
    tokens = np.array([known.get(word, _WORDS - 1) for word in found])
    return _samples(tokens, length, samples, 9701, 0.4, 1.0)


def _samples(
    tokens: Array, length: int, samples: int, seed: int, start: float, end: float
) -> dict[str, Array]:
    """Return windows that do not overlap, of a part of the text; one holds all tokens' range."""
    part = tokens[int(start * len(tokens)) : int(end * len(tokens))]
    count = (len(part) - 1) // length
    x = part[: count * length].reshape(count, length)
    y = part[1 : count * length + 1].reshape(count, length)
    order = np.random.RandomState(seed).permutation(count)[: samples + 200]
    x, y = x[order], y[order].copy()
    x = x.copy()
    x[-1, 0], y[-1, 0] = tokens.max(), tokens.max()
    y[0, 0], y[0, 1] = 0, tokens.max()
    return {
        "x_train": x[:samples],
        "y_train": y[:samples],
        "x_test": x[samples:],
        "y_test": y[samples:],
    }
