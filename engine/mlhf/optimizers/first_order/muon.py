"""Muon (Jordan et al. 2024) for matrices, AdamW for the rest.

Muon's step is the momentum, orthogonalised by Newton-Schulz iterations. Torch's class does
that; this module chooses which parameters it gets.
"""

from typing import Any

import torch
from torch import nn

from mlhf.curvature.protocol import Loss
from mlhf.optimizers.first_order.first_order import FirstOrder, adam_options, trained
from mlhf.optimizers.params import MuonParams


def build(model: nn.Module, loss: Loss, params: MuonParams, seed: int) -> FirstOrder:
    """Return an optimizer with hidden matrices and kernels under Muon, the rest under AdamW.

    As its authors advise, AdamW gets the embeddings, the output layer (the model's last
    matrix), biases and normalisation. A convolution kernel (out, in, …) is the matrix
    (out, in·…). The learning rate is on AdamW's scale for both (``match_rms_adamw``:
    Moonshot's 0.2·√max(m, n)).
    """
    matrices = hidden_matrices(model)
    in_muon = {id(p) for p in matrices}
    rest = [p for p in trained(model) if id(p) not in in_muon]
    inner: list[torch.optim.Optimizer] = []
    if matrices:
        inner.append(
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
        inner.append(torch.optim.AdamW(rest, **adam_options(params, rest)))
    return FirstOrder(model, loss, inner, max_skipped_steps=params.max_skipped_steps)


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices = [p for p in trained(model) if p.ndim >= 2 and id(p) not in embedded]
    return [p for p in matrices[:-1] if p.is_contiguous()]


class _MatrixMuon(torch.optim.Muon):
    """Torch's Muon, which takes matrices only, on views of parameters of any shape."""

    def __init__(self, parameters: list[nn.Parameter], **options: Any) -> None:
        self._parameters = parameters
        self._views = [nn.Parameter(_matrix(p)) for p in parameters]
        super().__init__(self._views, **options)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter, view in zip(self._parameters, self._views, strict=True):
            view.data = _matrix(parameter)  # again: the parameter's memory may have been replaced
            view.grad = None if parameter.grad is None else parameter.grad.reshape(view.shape)
        super().step(closure)  # type: ignore[no-untyped-call]


def _matrix(parameter: nn.Parameter) -> torch.Tensor:
    return parameter.detach().view(parameter.shape[0], -1)
