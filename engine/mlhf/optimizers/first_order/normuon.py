"""NorMuon (Li et al. 2025), by the library ``pytorch-optimizer``.

Muon whose orthogonalised step is scaled row by row to an even mean square.
"""

from typing import Any

from torch import nn

from mlhf.core.optional import from_extra
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.first_order.first_order import FirstOrder, trained
from mlhf.optimizers.first_order.muon import hidden_matrices
from mlhf.optimizers.params import NorMuonParams

_GROUP_STATE = ("step",)


def build(model: nn.Module, loss: Loss, params: NorMuonParams, seed: int) -> FirstOrder:
    """Return an optimizer with hidden matrices and kernels under NorMuon, the rest under AdamW.

    Which are which, and that both rates are on AdamW's scale, is as for Muon.
    """
    with from_extra("peers"):
        from pytorch_optimizer import NorMuon  # here: importing it takes half a second

    matrices = hidden_matrices(model)
    in_muon = {id(p) for p in matrices}
    rest = [p for p in trained(model) if id(p) not in in_muon]
    groups: list[dict[str, Any]] = []
    if matrices:
        groups.append(
            {
                "params": matrices,
                "use_muon": True,
                "momentum": params.momentum,
                "beta2": params.row_beta2,
                "nesterov": params.nesterov,
                "ns_steps": params.iterations,
                "update_scale": "match_rms",
            }
        )
    if rest:
        betas = (params.beta1, params.beta2)
        groups.append({"params": rest, "use_muon": False, "betas": betas, "eps": params.eps})
    for group in groups:
        group |= {"lr": params.lr, "weight_decay": params.weight_decay}
    return FirstOrder(
        model, loss, [NorMuon(groups)], _GROUP_STATE, max_skipped_steps=params.max_skipped_steps
    )
