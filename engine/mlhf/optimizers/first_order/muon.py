"""Muon (Jordan et al. 2024) for what is a matrix, AdamW for the rest.

Muon's step is the momentum made orthogonal by Newton-Schulz iterations. Torch's own class
does that; here is which parameters it gets.
"""

from typing import Any

import torch
from torch import nn

from mlhf.optimizers.first_order.first_order import Build, fused, trained


def muon(params: Any) -> Build:
    """Split a model's parameters: hidden matrices and kernels to Muon, the rest to AdamW.

    As its authors advise, embeddings, the output layer (the last matrix of the model), biases
    and normalisation go to AdamW. A convolution kernel (out, in, …) is the matrix (out, in·…).
    The rate is on AdamW's scale for both (``match_rms_adamw``: Moonshot's 0.2·√max(m, n)).
    """

    def build(model: nn.Module) -> list[torch.optim.Optimizer]:
        matrices = _hidden_matrices(model)
        chosen = {id(p) for p in matrices}
        rest = [p for p in trained(model) if id(p) not in chosen]
        inners: list[torch.optim.Optimizer] = []
        if matrices:
            inners.append(
                _MatrixMuon(
                    matrices,
                    lr=params.lr,
                    weight_decay=params.weight_decay,
                    momentum=params.momentum,
                    nesterov=params.nesterov,
                    ns_steps=params.iterations,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if rest:
            inners.append(
                torch.optim.AdamW(
                    rest,
                    lr=params.lr,
                    betas=(params.beta1, params.beta2),
                    eps=params.eps,
                    weight_decay=params.weight_decay,
                    fused=fused(rest),
                )
            )
        return inners

    return build


def _hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices = [p for p in trained(model) if p.ndim >= 2 and id(p) not in embedded]
    return [p for p in matrices[:-1] if p.is_contiguous()]


class _MatrixMuon(torch.optim.Muon):
    """Torch's Muon, which takes matrices only, on views of parameters of any shape."""

    def __init__(self, parameters: list[nn.Parameter], **options: Any) -> None:
        self._whole = parameters
        self._views = [nn.Parameter(_matrix(p)) for p in parameters]
        super().__init__(self._views, **options)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for whole, view in zip(self._whole, self._views, strict=True):
            view.data = _matrix(whole)  # anew: the parameter's memory may have been replaced
            view.grad = None if whole.grad is None else whole.grad.reshape(view.shape)
        super().step(closure)  # type: ignore[no-untyped-call]


def _matrix(parameter: nn.Parameter) -> torch.Tensor:
    return parameter.detach().view(parameter.shape[0], -1)
