"""A tied GPT-2 on text where position says nothing: its vectors' damping holds nothing back."""

import math
from statistics import mean

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf import MLHF

_TOKENS, _LENGTH, _WIDTH = 64, 32, 32


class _GPT2(nn.Module):
    """One block, with GPT-2's initialization, its head tied to the token embedding."""

    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(_TOKENS, _WIDTH), nn.Embedding(_LENGTH, _WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(_WIDTH) for _ in range(3))
        self.inputs, self.mix = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.up, self.down = nn.Linear(_WIDTH, 4 * _WIDTH), nn.Linear(4 * _WIDTH, _WIDTH)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                inner = module in (self.mix, self.down)
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(2) if inner else 0.02)

    def forward(self, x):
        h = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
        query, key, value = (
            t.unflatten(2, (2, -1)).transpose(1, 2)
            for t in self.inputs(self.norms[0](h)).chunk(3, 2)
        )
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        h = h + self.mix(seen.transpose(1, 2).flatten(2))
        h = h + self.down(F.gelu(self.up(self.norms[1](h))))
        return self.norms[2](h) @ self.wte.weight.T


def _batches(count):
    generator = torch.Generator().manual_seed(0)
    next_token = torch.softmax(1.8 * torch.randn(_TOKENS, _TOKENS, generator=generator), 1)
    for _ in range(count):
        x = [torch.randint(_TOKENS, (16,), generator=generator)]
        for _ in range(_LENGTH):
            x.append(torch.multinomial(next_token[x[-1]], 1, generator=generator)[:, 0])
        yield torch.stack(x[:-1], 1), torch.stack(x[1:], 1)


def _last_losses(step, count=60):
    return mean([step(x, y) for x, y in _batches(count)][-5:])


@pytest.mark.parametrize("meta_checkpoint", ["default", None])
def test_a_tied_gpt2_goes_at_least_as_far_as_with_adamw(meta_checkpoint):
    torch.manual_seed(0)
    model = _GPT2()
    adamw = torch.optim.AdamW(model.parameters(), 1e-2)

    def adamw_step(x, y):
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        return loss.item()

    reached = _last_losses(adamw_step)
    torch.manual_seed(0)
    optimizer = MLHF(_GPT2(), meta_checkpoint=meta_checkpoint)
    assert _last_losses(lambda x, y: float(optimizer.step(x, y).loss)) < reached
    assert any(segment.damping_factor < 1 for segment in optimizer._basis.segments)
