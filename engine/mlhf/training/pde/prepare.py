"""Makes what trains a network on an equation, from a run's configuration."""

import torch
from torch import Tensor, nn

from mlhf.core.budget import total_steps
from mlhf.core.errors import SpecError, under
from mlhf.core.seeds import derive
from mlhf.curvature.derivatives import jet
from mlhf.curvature.residuals import Field, Residuals
from mlhf.data.specs import DATASETS
from mlhf.models import specs as models
from mlhf.models.build import build as build_model
from mlhf.models.pointwise import SMOOTH, check_pointwise
from mlhf.optimizers.registry import build as build_optimizer
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf.training.attempt import Attempt
from mlhf.training.config import TrainConfig, check_residuals
from mlhf.training.pde.data import PdeData
from mlhf.training.pde.equations import residuals
from mlhf.training.pde.points import Batch
from mlhf.training.pde.trainer import PdeTrainer
from mlhf.training.pde.unsuitable import check_optimizer

_FLOAT32 = 1e-5  # relative errors below are hardly reached
_TRIED = 4
_FITS = 1e-3  # of the equation's terms: what a solution may leave


def prepare(
    config: TrainConfig, device: torch.device, attempt: Attempt
) -> tuple[PdeTrainer, nn.Module, PdeData]:
    """Return the loop, the network that is to be saved in the end, and the equation.

    Raises:
        SpecError: where the parts do not fit.
    """
    with under("/dataset"):
        params = DATASETS.parse(config.dataset.name, config.dataset.params)
        data = PdeData(params, config.seed)
    check_residuals(config, data.info)
    with under("/model"):
        chosen = models.MODELS.parse(config.model.name, config.model.params)
        summary = models.MODELS[config.model.name].summarize(chosen, data.info)
        check_pointwise(chosen, summary, second=params.has_second)
        seed = derive(config.seed, "initialization")
        network = build_model(config.model.name, config.model.params, data.info, seed)
    network = network.to(device, getattr(torch, config.dtype))
    torch.manual_seed(derive(config.seed, "dropout"))
    model = residuals(network, params)
    with under("/model"):
        _try(model, data.held_out, network, second=params.has_second)
    with under("/optimizer"):
        check_optimizer(OPTIMIZERS.parse(config.optimizer.name, config.optimizer.params))
        optimizer = build_optimizer(
            config.optimizer.name,
            config.optimizer.params,
            model,
            model.loss,
            total_steps=total_steps(config.budget, data.size("train"), config.batch_size),
            seed=derive(config.seed, "optimizer"),
        )
    _warn(config, data, attempt)
    return PdeTrainer(config, model, data, optimizer, attempt), network, data


def _try(model: Residuals, points: Batch, network: nn.Module, *, second: bool) -> None:
    """Compute the residuals at a few points of each group: what a graph does is not known before.

    Raises:
        SpecError: where it has not the derivatives that are needed.
    """
    like = next(network.parameters())
    few = {
        name: tuple(t[:_TRIED].to(like.device, like.dtype) for t in batch)
        for name, batch in points.items()
    }
    try:
        z: Tensor = model(few)
        z.square().sum().backward()  # type: ignore[no-untyped-call]
        bend = _bend(model, few["interior"][0]) if second else z
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise SpecError("", f"the network cannot be differentiated point by point: {reason}") from (
            error
        )
    if not bool(bend.any()):
        raise SpecError(
            "",
            "the network has no second derivatives, which the equation needs: take smooth "
            f"activations ({SMOOTH})",
        )
    if all(p.grad is None or not bool(p.grad.any()) for p in network.parameters()):
        raise SpecError("", "no residual depends on any of the network's parameters")
    model.zero_grad()


def _bend(model: Residuals, points: Tensor) -> Tensor:
    """Return the second derivatives of the network at points, (n, d)."""
    u = Field(model.network)
    with torch.no_grad():
        found: Tensor = torch.func.vmap(lambda x: jet(u, x, range(len(x))).second)(points)
    return found


def _warn(config: TrainConfig, data: PdeData, attempt: Attempt) -> None:
    target = config.target
    if config.dtype == "float32" and target is not None and target.value < _FLOAT32:
        attempt.warn(
            f"float32 hardly reaches {target.metric} {target.value:g}: leave dtype out, or take "
            "float64."
        )
    left = data.draws.left_by_solution()
    if left is not None and not left < _FITS:
        attempt.warn(
            "The solution that was given does not solve the equation: it leaves a residual of "
            f"{left:.2g} of the size of the equation's other values."
        )
