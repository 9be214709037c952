"""Blocks that several families share. All are traced to graphs, so torch.nn's layers are kept."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A pre-norm Transformer block: attention of several heads, and a dense part.

    Args:
        width: Of the tokens' vectors.
        heads: Divides it.
        causal: Whether no token sees a later one.
    """

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm, self.dense_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, width) to the same."""
        b, t, width = x.shape
        parts = self.qkv(self.norm(x)).view(b, t, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(seen.transpose(1, 2).reshape(b, t, width))
        found: Tensor = x + self.down(F.gelu(self.up(self.dense_norm(x))))
        return found


class Encoder(nn.Module):
    """Tokens with their places, blocks, and an output at each token or at the last.

    Args:
        vocabulary: How many tokens there are.
        length: Of a sample.
        outputs: At each place.
        last: Whether only the last place has an output.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        width: int,
        heads: int,
        blocks: int,
        outputs: int,
        last: bool = False,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, T) to (B, outputs), or (B, T, outputs)."""
        h = self.norm(self.blocks(self.tokens(x) + self.places))
        found: Tensor = self.head(h[:, -1] if self.last else h)
        return found
