"""One network trained by each optimizer, from the same weights on the same batches."""

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bench.foreign.networks.network import Network
from mlhf import MLHF
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.pytree_loss import loss_of

RATES = (1e-3, 3e-3, 1e-2)  # of AdamW
_LAST = 5  # steps whose mean loss is the loss at the end

Step = Callable[[Any, Any], float]  # (x, y) ↦ loss before the step


def trial(network: Network) -> dict[str, Any]:
    """Train a network by MLHF, and by AdamW at each rate.

    Returns:
        ``parameters``: how many; ``mlhf`` and ``adamw`` (by rate): the ``losses`` of all steps
        and the loss at the ``end``, None where not finite, and CPU ``seconds`` of a step, those
        of the first one apart. Of MLHF instead ``refused`` (what the CurvatureError says) or
        ``failed`` (any other error).
    """
    torch.manual_seed(0)
    model = network.make()
    batches = network.batches()
    return {
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "mlhf": _mlhf(copy.deepcopy(model), network, batches),
        "adamw": {
            str(rate): _adamw(copy.deepcopy(model), network, batches, rate) for rate in RATES
        },
    }


def _mlhf(model: nn.Module, network: Network, batches: list[Any]) -> dict[str, Any]:
    try:
        optimizer = MLHF(model, network.loss)
        return _trained(lambda x, y: float(optimizer.step(x, y).loss), batches)
    except CurvatureError as error:
        return {"refused": str(error)}
    except Exception as error:  # a network that ends the run would hide all after it
        return {"failed": f"{type(error).__name__}: {error}"}


def _adamw(model: nn.Module, network: Network, batches: list[Any], rate: float) -> dict[str, Any]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)

    def step(x: Any, y: Any) -> float:
        optimizer.zero_grad()
        loss = loss_of(network.loss, model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    return _trained(step, batches)


def _trained(step: Step, batches: list[Any]) -> dict[str, Any]:
    torch.manual_seed(1)  # of dropout's masks
    began = time.process_time()
    losses = [step(*batches[0])]
    first = time.process_time() - began
    losses += [step(x, y) for x, y in batches[1:]]
    rest = time.process_time() - began - first
    end = sum(losses[-_LAST:]) / _LAST
    return {
        "losses": [round(loss, 4) if math.isfinite(loss) else None for loss in losses],
        "end": end if math.isfinite(end) else None,
        "seconds": rest / (len(losses) - 1),
        "first_seconds": first,
    }
