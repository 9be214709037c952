"""Products within a backward pass, where a node called by hand leaves gradients out."""

import torch
from torch import nn

from mlhf.curvature.ggn import GGN


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v, ggn):
        ctx.ggn, ctx.v = ggn, v.detach()
        return v.clone()

    @staticmethod
    def backward(ctx, g):
        parts = torch.split(ctx.v, [p.numel() for p in ctx.ggn.parameters])
        shaped = [a.view(p.shape) for a, p in zip(parts, ctx.ggn.parameters, strict=True)]
        return torch.cat([t.reshape(-1) for t in ctx.ggn.product(shaped)]), None


def test_a_product_within_a_backward_pass_is_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Softmax(-1), nn.GELU(), nn.Linear(5, 3)
    )
    ggn = GGN(model, "cross_entropy", torch.randn(6, 4), torch.randint(0, 3, (6,)))
    v = torch.randn(sum(p.numel() for p in ggn.parameters), requires_grad=True)
    (within,) = torch.autograd.grad(_Through.apply(v, ggn).sum(), v)  # also the first product
    parts = torch.split(v.detach(), [p.numel() for p in ggn.parameters])
    shaped = [a.view(p.shape) for a, p in zip(parts, ggn.parameters, strict=True)]
    expected = torch.cat([t.reshape(-1) for t in ggn.product(shaped)])
    assert torch.equal(within, expected)
