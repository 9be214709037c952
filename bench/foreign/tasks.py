"""What the networks learn: digits, or sequences drawn from random Markov chains.

Everything is drawn from fixed seeds, and each batch is new: nothing can be learned by heart.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mlhf.data.digits import read
from mlhf.data.params import DigitsParams

STEPS = 40
CLASSES = 10  # of images
KINDS = 4  # of sequences, each drawn from a chain of its own
VOCABULARY, TOKENS = 48, 24
SAMPLES = 1600  # of a sound
FRAMES, BANDS = 48, 16  # of a spectrogram
BATCH = 32
PADDING, MASK, START = 0, 1, 2  # tokens
FIRST_WORD = 3  # tokens of words follow those
IGNORED = -100

Batch = tuple[Any, Any]


def images(size: int = 32, channels: int = 3) -> list[Batch]:
    """Return batches of digits (B, channels, size, size), values about 0, and their classes."""
    found = read(DigitsParams(), None).train
    order = torch.randperm(len(found.targets), generator=_generator())[: STEPS * BATCH]
    pixels = torch.from_numpy(np.asarray(found.inputs))[order].float() / 8 - 1
    wide = F.interpolate(pixels, size=(size, size), mode="bilinear").expand(-1, channels, -1, -1)
    classes = torch.from_numpy(found.targets)[order]
    return list(zip(_batches(wide.contiguous()), _batches(classes), strict=True))


def masks(size: int = 32) -> list[Batch]:
    """Return digits, and for each pixel the class: the digit's, or 0 on the ground."""
    return [(x, torch.where(x[:, 0] > 0, y[:, None, None], 0)) for x, y in images(size)]


def continued_text() -> list[Batch]:
    """Return tokens (B, T), and the token that follows each."""
    return [(tokens[:, :-1], tokens[:, 1:]) for tokens in _text()]


def masked_text() -> list[Batch]:
    """Return tokens of which a fifth is masked, and those tokens; others are to be ignored."""
    found: list[Batch] = []
    for tokens in _text():
        hidden = torch.rand(tokens.shape, generator=_generator(len(found))) < 0.2
        found.append((tokens.masked_fill(hidden, MASK), tokens.masked_fill(~hidden, IGNORED)))
    return [(x[:, :-1], y[:, :-1]) for x, y in found]


def kinds_of_text() -> list[Batch]:
    """Return tokens of unequal length, padded, and the chain that each row comes from."""
    found: list[Batch] = []
    generator = _generator(1)
    for _ in range(STEPS):
        kinds = torch.randint(KINDS, (BATCH,), generator=generator)
        tokens = _walk(torch.stack([_chain(int(kind)) for kind in kinds]), TOKENS, generator)
        lengths = torch.randint(TOKENS // 2, TOKENS + 1, (BATCH, 1), generator=generator)
        found.append((tokens.masked_fill(torch.arange(TOKENS) >= lengths, PADDING), kinds))
    return found


def translations() -> list[Batch]:
    """Return tokens (B, T), and their translation word by word into words of another order."""
    words = torch.randperm(VOCABULARY - FIRST_WORD, generator=_generator(2)) + FIRST_WORD
    dictionary = torch.cat([torch.arange(FIRST_WORD), words])
    return [(tokens[:, :-1], dictionary[tokens[:, :-1]]) for tokens in _text()]


def sounds() -> list[Batch]:
    """Return tones (B, SAMPLES) in noise, and which of four pitches each is."""
    generator = _generator(3)
    time = torch.arange(SAMPLES) / SAMPLES
    found = []
    for _ in range(STEPS):
        kinds = torch.randint(KINDS, (BATCH,), generator=generator)
        phase = torch.rand(BATCH, 1, generator=generator)
        pitch = 40.0 * 2 ** kinds[:, None]
        tone = torch.sin(2 * torch.pi * (pitch * time + phase))
        found.append((tone + 0.3 * torch.randn(BATCH, SAMPLES, generator=generator), kinds))
    return found


def spectrograms() -> list[Batch]:
    """Return spectrograms (B, BANDS, FRAMES) of random words, and these words in order."""
    generator = _generator(4)
    spectra = torch.randn(VOCABULARY, BANDS, generator=generator)
    found = []
    for tokens in _text():
        words = tokens[:, : FRAMES // 4]
        bands = spectra[words].repeat_interleave(4, 1).transpose(1, 2)
        noise = torch.randn(bands.shape, generator=generator)
        found.append((bands + 0.3 * noise, words))
    return found


def captions() -> list[Batch]:
    """Return digits (B, 3, 32, 32), and a text of each digit's own words (B, 8)."""
    generator = _generator(5)
    return [
        (x, torch.randint(4, (len(y), 8), generator=generator) + 4 * y[:, None] + FIRST_WORD)
        for x, y in images()
    ]


def series() -> list[Batch]:
    """Return waves (B, 32, 2) in noise, and the 8 values (B, 8, 2) that follow."""
    generator = _generator(6)
    found = []
    for _ in range(STEPS):
        pitch = 0.2 + 0.6 * torch.rand(BATCH, 1, 2, generator=generator)
        phase = 6.3 * torch.rand(BATCH, 1, 2, generator=generator)
        waves = torch.sin(pitch * torch.arange(40)[None, :, None] + phase)
        waves += 0.1 * torch.randn(waves.shape, generator=generator)
        found.append((waves[:, :32], waves[:, 32:]))
    return found


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits (B, T, C) over targets (B, T) not ignored."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def _batches(rows: Tensor) -> tuple[Tensor, ...]:
    return torch.split(rows, BATCH)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _text() -> list[Tensor]:
    generator = _generator()
    chain = _chain(0).expand(BATCH, -1, -1)
    return [_walk(chain, TOKENS + 1, generator) for _ in range(STEPS)]


@cache
def _chain(seed: int) -> Tensor:
    """Return the transition probabilities of a chain over words, a few likely ones from each."""
    words = VOCABULARY - FIRST_WORD
    generator = _generator(100 + seed)
    common = torch.randn(words, generator=generator)
    return (2 * torch.randn(words, words, generator=generator) + 1.5 * common).softmax(1)


def _walk(chains: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Return one walk (length) along each chain (words, words), as tokens."""
    rows = torch.arange(len(chains))
    at = [torch.randint(chains.shape[1], (len(chains),), generator=generator)]
    for _ in range(length - 1):
        at.append(torch.multinomial(chains[rows, at[-1]], 1, generator=generator)[:, 0])
    return torch.stack(at, 1) + FIRST_WORD
