"""Activation checkpointing runs parts of the forward pass again; buffers do not move again."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from mlhf.curvature.ggn import GGN


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(checkpoint(self.body, x, use_reentrant=False))


def test_statistics_move_once_however_often_the_graph_is_used():
    model = _Net()
    x, y = torch.randn(8, 3), torch.arange(8) % 2
    ggn = GGN(model, "cross_entropy", x, y)
    v = [torch.randn_like(p) for p in model.parameters()]
    for _ in range(2):
        ggn.product(v)
        ggn.quadratic(v)
        ggn.jvps([v, v])
        ggn.vjp([torch.ones(8, 2)])
    norm = model.body[1]
    assert int(norm.num_batches_tracked) == 1
    mean = model.body[0](x).detach().mean(0)
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)


def test_what_the_user_moves_between_products_stays_moved():
    for model in (_Net(), nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))):
        x, y = torch.randn(8, 3), torch.arange(8) % 2
        ggn = GGN(model, "cross_entropy", x, y)
        v = [torch.randn_like(p) for p in model.parameters()]
        ggn.product(v)
        with torch.no_grad():
            model(x)
        ggn.product(v)
        norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm1d))
        assert int(norm.num_batches_tracked) == 2


class _Attention(nn.Module):
    def __init__(self, checkpointed):
        super().__init__()
        torch.manual_seed(0)
        self.inputs, self.memory = nn.Linear(4, 12), nn.LSTM(4, 4, batch_first=True)
        self.head = nn.Linear(4, 3)
        self.checkpointed = checkpointed

    def body(self, x):
        query, key, value = self.inputs(self.memory(x)[0]).unsqueeze(1).chunk(3, -1)
        return F.scaled_dot_product_attention(query, key, value, is_causal=True).squeeze(1)

    def forward(self, x):
        h = checkpoint(self.body, x, use_reentrant=False) if self.checkpointed else self.body(x)
        return self.head(h)


def test_fused_layers_are_computed_again_by_the_kernels_of_the_forward_pass():
    found = []
    for checkpointed in (False, True):
        model = _Attention(checkpointed)
        x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
        ggn = GGN(model, "cross_entropy", x, torch.ones(2, 5, dtype=torch.long))
        product = ggn.product([torch.ones_like(p) for p in model.parameters()])
        assert ggn.uses().used(model.inputs.weight)
        found.append([*ggn.gradient, *product])
    for with_all, again in zip(*found, strict=True):
        assert torch.equal(with_all, again)
