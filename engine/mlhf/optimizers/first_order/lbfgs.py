"""L-BFGS with a strong Wolfe line search (Liu & Nocedal 1989), torch's own."""

import copy
import math

import torch
from torch import Tensor, nn

from mlhf.curvature.forward_replay import ForwardReplay
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.first_order.first_order import FirstOrder, trained
from mlhf.optimizers.params import LbfgsParams
from mlhf.optimizers.protocol import StepResult
from mlhf.optimizers.step_guard import NotFinite, all_finite, check


class Lbfgs(FirstOrder):
    """Steps of several iterations, each a few evaluations of the same batch.

    All evaluations of a step have the same random draws, and move batch norm's statistics once.
    A matrix made of other batches may give a bad direction: it is forgotten where a step does
    not lower its own loss.

    Args:
        model: The model that is trained.
        loss: A loss's name, or a function (z, y) ↦ scalar.
        params: The optimizer's parameters.
    """

    def __init__(self, model: nn.Module, loss: Loss, params: LbfgsParams) -> None:
        inner = torch.optim.LBFGS(
            trained(model),
            lr=params.lr,
            max_iter=params.iterations,
            history_size=params.history,
            # Absolute bounds would end a fit to many digits.
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )
        super().__init__(model, loss, [inner], max_skipped_steps=params.max_skipped_steps)
        self._decay = params.weight_decay

    def _step(self, x: Tensor, y: Tensor) -> StepResult:
        (inner,) = self._inner
        replay = ForwardReplay(self.model, self._parameters[0].device)
        before = [p.detach().clone() for p in self._parameters]
        saved = copy.deepcopy(inner.state_dict())  # it changes tensors in place
        first: list[Tensor] = []

        def closure() -> Tensor:
            inner.zero_grad()
            if first:
                with replay.restored_state():
                    loss = self._loss(self.model(x), y)
            else:
                loss = self._loss(self.model(x), y)
                first.append(loss.detach())
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                total = loss.detach().clone()
                for p in self._parameters:
                    if p.grad is None:
                        p.grad = torch.zeros_like(p)
                    if self._decay:
                        total += 0.5 * self._decay * p.square().sum()
                        p.grad.add_(p, alpha=self._decay)
            if len(first) == 1:
                first.append(total)
                check(total, {"gradient": [p.grad for p in self._parameters if p.grad is not None]})
            return total

        inner.step(closure)  # type: ignore[arg-type]
        after = float(closure())
        with torch.no_grad():
            if not (math.isfinite(after) and all_finite(list(self._parameters))):
                torch._foreach_copy_(tuple(self._parameters), before)
                inner.load_state_dict(saved)
                raise NotFinite("updated parameters", first[0])
            if after > float(first[1]):
                torch._foreach_copy_(tuple(self._parameters), before)
                inner.state.clear()
        return StepResult(first[0])


def build(model: nn.Module, loss: Loss, params: LbfgsParams, seed: int) -> Lbfgs:
    """Return ``lbfgs`` of the registry."""
    return Lbfgs(model, loss, params)
