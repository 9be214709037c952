"""The meta-parameters: the weights of one coordinatewise network, for every kind."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Unpacked(NamedTuple):
    """The same weights as views of a packed tensor."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    w3: Tensor
    b3: Tensor


class NetworkWeights(nn.Module):
    """Two LSTM layers and a linear map to 1, once per kind.

    Attributes:
        w1, b1: (K, 4H, I + H) and (K, 4H): the first layer, gates i, f, g, o.
        w2, b2: (K, 4H, 2H) and (K, 4H): the second.
        w3, b3: (K, H) and (K,): the linear map.
    """

    def __init__(self, kinds: int = 6, inputs: int = 3, hidden: int = 4, seed: int = 0) -> None:
        super().__init__()
        self.kinds, self.inputs, self.hidden = kinds, inputs, hidden
        self.w1 = nn.Parameter(torch.empty(kinds, 4 * hidden, inputs + hidden))
        self.b1 = nn.Parameter(torch.empty(kinds, 4 * hidden))
        self.w2 = nn.Parameter(torch.empty(kinds, 4 * hidden, 2 * hidden))
        self.b2 = nn.Parameter(torch.empty(kinds, 4 * hidden))
        self.w3 = nn.Parameter(torch.empty(kinds, hidden))
        self.b3 = nn.Parameter(torch.empty(kinds))
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Draw fresh weights, LSTM layers as torch does, U(±1/√H).

        The linear map starts at a tenth of that and its bias at 0, so that an untrained
        network returns nearly the same for every coordinate.
        """
        generator = torch.Generator().manual_seed(seed)
        bound = 1 / math.sqrt(self.hidden)
        with torch.no_grad():
            for p in (self.w1, self.b1, self.w2, self.b2):
                p.copy_(torch.empty(p.shape).uniform_(-bound, bound, generator=generator))
            w3 = torch.empty(self.w3.shape).uniform_(-bound / 10, bound / 10, generator=generator)
            self.w3.copy_(w3)
            self.b3.zero_()

    def initial_state(self, like: Tensor) -> Tensor:
        """Return the zero state (4H, n) for a flat vector of parameters (n,)."""
        return like.new_zeros(4 * self.hidden, like.numel())

    def packed(self) -> Tensor:
        """Return all weights as (K, W), one row a kind, in the order of the attributes."""
        weights = (self.w1, self.b1, self.w2, self.b2, self.w3, self.b3)
        return torch.cat([p.reshape(self.kinds, -1) for p in weights], 1)

    def unpacked(self, packed: Tensor) -> Unpacked:
        """Return views of what ``packed`` returned, shaped like the attributes."""
        like = (self.w1, self.b1, self.w2, self.b2, self.w3, self.b3)
        columns = torch.split(packed, [p.numel() // self.kinds for p in like], 1)
        return Unpacked(*(c.reshape(p.shape) for c, p in zip(columns, like, strict=True)))
