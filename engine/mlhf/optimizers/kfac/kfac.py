"""K-FAC (Martens & Grosse 2015): natural gradient with a factored Fisher matrix."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from mlhf.curvature.errors import CurvatureError, explained
from mlhf.curvature.forward_pass import forget_casts, full_precision, plain_forward_pass
from mlhf.curvature.linearize import refuse_reentrant
from mlhf.curvature.losses import autograd_loss
from mlhf.curvature.protocol import Loss
from mlhf.curvature.pytree_loss import graph_outputs, loss_of
from mlhf.curvature.vectors import upcast, vector_like
from mlhf.optimizers.kfac import fisher
from mlhf.optimizers.kfac.calls import LayerCalls, recording
from mlhf.optimizers.kfac.layers import Call, Layer, layers_of
from mlhf.optimizers.options import check_model, check_options
from mlhf.optimizers.params import KfacParams
from mlhf.optimizers.preconditions import TrainedModel
from mlhf.optimizers.protocol import State, StepResult
from mlhf.optimizers.running_mean import RunningMean
from mlhf.optimizers.state import check_state, copied, restored_list, shapes_of
from mlhf.optimizers.step_guard import StepGuard, add, check


class Kfac:
    """θ ← θ − lr·m, with m the momentum of ν(F̂ + λI)⁻¹∇ℓ.

    F̂ has a block for each linear layer, convolution and batch norm (``layers.py``), from
    running means. Of the other parameters (embedding, recurrent, inside attention, layer norm,
    grouped convolutions, weights that several modules share) it has the diagonal, estimated as
    N·ĝ², with ĝ the mean gradient over N rows for the same labels (Gauss-Newton-Bartlett: Liu
    et al. 2023).

    Args:
        model: Any module that returns one tensor.
        loss: A loss's name; or a function (z, y) ↦ scalar, for ``fisher="empirical"``.
        lr: Learning rate.
        momentum: Fraction of m that is kept.
        weight_decay: L2 penalty, part of the gradient and of λ.
        damping: λ, split between a layer's factors by their mean eigenvalues.
        decay: Of the running means; the first few values are averaged with equal weight.
        fisher: Which labels the Fisher matrix is for: ``"sampled"`` from the network,
            ``"empirical"`` (the data's, without a further backward pass), or ``"exact"``, the
            mean over all labels (a backward pass per output).
        factors_every: Steps between two updates of the factors.
        inverse_every: Steps between two inversions.
        kl_clip: ν is at most such that lr²·ν²·dᵀ∇ℓ ≤ this, for d the preconditioned gradient.
        norm_clip: ν is at most such that ν‖d‖ ≤ this.
        max_dimension: A larger factor keeps only its diagonal.
        seed: Of the sampled labels.
        max_skipped_steps: Steps that are not finite are skipped; after so many in a row the
            next is an error.

    Raises:
        CurvatureError: where no parameter requires a gradient.
        ValueError: for an unknown loss, or an option out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss = "cross_entropy",
        *,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        damping: float = 0.03,
        decay: float = 0.95,
        fisher: Literal["sampled", "empirical", "exact"] = "sampled",
        factors_every: int = 5,
        inverse_every: int = 10,
        kl_clip: float | None = 3e-4,
        norm_clip: float | None = None,
        max_dimension: int = 4608,
        seed: int = 0,
        max_skipped_steps: int = 10,
    ) -> None:
        check_model(model)
        check_options(
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            damping=damping,
            decay=decay,
            fisher=fisher,
            factors_every=factors_every,
            inverse_every=inverse_every,
            kl_clip=kl_clip,
            norm_clip=norm_clip,
            max_dimension=max_dimension,
            seed=seed,
        )
        if callable(loss) and fisher != "empirical":
            raise ValueError(
                f"fisher={fisher!r} is not allowed with a loss function: no labels can be drawn "
                "for it. Take fisher='empirical', or a loss by its name"
            )
        self.model = model
        self.lr = lr
        self.loss = loss
        autograd_loss(loss)  # a name has to be known
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._damping = damping
        self._fisher = fisher
        self._factors_every = factors_every
        self._inverse_every = inverse_every
        self._kl_clip = kl_clip
        self._norm_clip = norm_clip
        self._trained = TrainedModel(model)
        self._parameters = self._trained.parameters
        self._blocks = [
            _Block(module, layer, decay) for module, layer in layers_of(model, max_dimension)
        ]
        in_blocks = {id(p) for block in self._blocks for p in block.layer.parameters}
        self._others = [p for p in self._parameters if id(p) not in in_blocks]
        self._diagonal = RunningMean(decay)
        self._velocity: list[Tensor] | None = None
        self._generator = torch.Generator().manual_seed(seed)
        self._steps = 0
        blocks = [b for block in self._blocks for b in (block, block.factors)]
        state = (self, self._diagonal, self._generator, *blocks)
        self._guard = StepGuard(model, max_skipped_steps, state)

    @property
    def skipped_steps(self) -> int:
        """How many steps were skipped so far, because they were not finite."""
        return self._guard.skipped_steps

    def step(self, x: Tensor, y: Tensor) -> StepResult:
        """Take one step on the batch (x, y)."""
        self._trained.check(self)
        result = self._guard.run(self._step, x, y)
        forget_casts()
        return result

    def _step(self, x: Tensor, y: Tensor) -> StepResult:
        with recording([block.calls for block in self._blocks]):
            z = plain_forward_pass(self.model, x)
        if not isinstance(z, Tensor) or not z.ndim:
            what = "a single number" if isinstance(z, Tensor) else f"a {type(z).__name__}"
            raise CurvatureError(
                f"K-FAC needs a model that returns one tensor of outputs, not {what}"
            )
        graph_outputs(z)
        with full_precision(self._parameters[0].device):
            with torch.enable_grad():
                loss = loss_of(self.loss, z, y)
            due = self._steps % self._factors_every == 0
            gradient = [upcast(g) for g in self._differentiate(z, y, loss, due)]
            with torch.no_grad():
                scale = self._update_parameters(gradient, loss)
        self._steps += 1
        return StepResult(loss.detach(), {"step_scale": scale})

    def _update_parameters(self, gradient: list[Tensor], loss: Tensor) -> Tensor:
        """Take the step; return ν."""
        if self._weight_decay:
            theta = [upcast(p) for p in self._parameters]
            torch._foreach_add_(gradient, theta, alpha=self._weight_decay)
        direction = self._precondition(gradient)
        scale = self._scale(direction, gradient)
        torch._foreach_mul_(direction, scale)
        velocity = direction
        if self._velocity is not None:
            velocity = list(torch._foreach_mul(self._velocity, self._momentum))
            torch._foreach_add_(velocity, direction)
        self._velocity = velocity
        _, size = check(loss, {"gradient": gradient, "direction": velocity})
        step = [v.to(p.dtype) for v, p in zip(velocity, self._parameters, strict=True)]
        add(self._parameters, step, -self.lr, size, loss)
        return scale

    @copied
    def state_dict(self) -> State:
        return {
            "shapes": shapes_of(self._parameters),
            "guard": self._guard.state_dict(),
            "steps": self._steps,
            "generator": self._generator.get_state(),
            "velocity": self._velocity,
            "diagonal": self._diagonal.state_dict(),
            "blocks": [
                {"factors": block.factors.state_dict(), "inverses": block.inverses}
                for block in self._blocks
            ],
        }

    def load_state_dict(self, state: State) -> None:
        like = vector_like(self._parameters)
        needed = ("steps", "generator", "velocity", "diagonal", "blocks")
        check_state(self, state, needed, self._parameters, self.model)
        self._guard.load_state_dict(state.get("guard"))
        self._steps = int(state["steps"])
        self._generator.set_state(state["generator"].cpu())
        self._velocity = restored_list(state["velocity"], like)
        self._diagonal.load_state_dict(state["diagonal"], like)
        for block, saved in zip(self._blocks, state["blocks"], strict=True):
            block.factors.load_state_dict(saved["factors"], like)
            block.inverses = restored_list(saved["inverses"], like)

    def _differentiate(self, z: Tensor, y: Tensor, loss: Tensor, due: bool) -> list[Tensor]:
        """Return ∇ℓ; update the factors where due."""
        edges = [edge for block in self._blocks for edge in block.calls.edges]
        matrix = fisher.as_rows(self.loss, z)
        rows = fisher.rows(matrix)
        weights = fisher.row_weights(self.loss, matrix, y) if due else None
        at_edges: list[list[Tensor | None]] = []  # for each set of labels, by edge
        of_others: list[Tensor | None] = []  # the other parameters' gradients, summed over rows
        if due and self._fisher != "empirical":
            exact = self._fisher == "exact"
            if exact:
                labels = fisher.exact(self.loss, matrix.detach())
                at_edges = [_grad(matrix, edges, _weighted(g, weights)) for g in labels]
            if not exact or self._others:
                g = fisher.sampled(self.loss, matrix.detach(), self._generator)
                g = _weighted(g, weights)
                both = _grad(matrix, [*([] if exact else edges), *self._others], g)
                of_others = both[len(both) - len(self._others) :]
                if not exact:
                    at_edges = [both[: len(edges)]]
        parameters: list[Tensor | GradientEdge] = list(self._parameters)
        empirical = due and self._fisher == "empirical"
        gradients = _grad(loss, parameters + (edges if empirical else []), None)
        refuse_reentrant(gradients[: len(parameters)], [loss])
        gradient = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(self._parameters, gradients, strict=False)
        ]
        if empirical:
            # Only n of the N rows count; their gradients are N/n times as large as without a mask.
            scale = rows if weights is None else rows * weights.max().rsqrt()
            at_edges = [[None if g is None else g * scale for g in gradients[len(parameters) :]]]
            by_id = {id(p): g for p, g in zip(self._parameters, gradient, strict=True)}
            of_others = [by_id[id(p)] * scale for p in self._others]
        if due:
            self._update(at_edges, of_others, rows)
        for block in self._blocks:
            block.calls.clear()  # else the graph would live on
        return gradient

    @torch.no_grad()
    def _update(
        self, at_edges: list[list[Tensor | None]], of_others: list[Tensor | None], rows: int
    ) -> None:
        """Update the running means.

        Args:
            at_edges: Gradients at the layers' outputs, by edge, for each set of labels.
            of_others: Gradients of the parameters without a block, summed over rows.
            rows: How many.
        """
        at = 0
        for block in self._blocks:
            calls: list[Call] = []
            for x in block.calls.inputs:
                gradients = [g for labels in at_edges if (g := labels[at]) is not None]
                at += 1
                if gradients and x.numel():  # an expert may get no rows
                    calls.append((upcast(x), [upcast(g) for g in gradients]))
            if calls:
                block.factors.add(block.layer.factors(calls, rows))
        if of_others:
            squares = [
                torch.zeros_like(upcast(p)) if g is None else upcast(g).square() / rows
                for p, g in zip(self._others, of_others, strict=True)
            ]
            self._diagonal.add(squares)

    def _precondition(self, gradient: list[Tensor]) -> list[Tensor]:
        """Return (F̂ + λI)⁻¹ times the gradient; for a block not seen so far the gradient itself."""
        damping = self._damping + self._weight_decay
        due = self._steps % self._inverse_every == 0
        by_id = {id(p): g for p, g in zip(self._parameters, gradient, strict=True)}
        result = dict(by_id)
        for block in self._blocks:
            factors = block.factors.values
            if factors is None:
                continue
            if due or block.inverses is None:
                block.inverses = block.layer.invert(factors, damping)
            parameters = block.layer.parameters
            directions = block.layer.apply(block.inverses, [by_id[id(p)] for p in parameters])
            for p, direction in zip(parameters, directions, strict=True):
                result[id(p)] = direction
        for p, v in zip(self._others, self._diagonal.values or [], strict=False):
            result[id(p)] = by_id[id(p)] / (v + damping)
        return [result[id(p)].clone() for p in self._parameters]

    def _scale(self, direction: list[Tensor], gradient: list[Tensor]) -> Tensor:
        """Return ν."""
        tiny = torch.finfo(direction[0].dtype).tiny
        scale = torch.ones((), dtype=direction[0].dtype, device=direction[0].device)
        if self._kl_clip is not None:
            inner = sum((d * g).sum() for d, g in zip(direction, gradient, strict=True))
            length = torch.as_tensor(inner * self.lr**2).clamp_min(tiny)
            scale = torch.minimum(scale, (self._kl_clip / length).sqrt())
        if self._norm_clip is not None:
            norms = torch.stack(torch._foreach_norm(direction))
            norm = torch.linalg.vector_norm(norms).clamp_min(tiny)
            scale = torch.minimum(scale, self._norm_clip / norm)
        return scale


class _Block:
    """A layer of the model, its calls in this step, and its state."""

    def __init__(self, module: nn.Module, layer: Layer, decay: float) -> None:
        self.layer = layer
        self.calls = LayerCalls(module)
        self.factors = RunningMean(decay)
        self.inverses: list[Tensor] | None = None


def _weighted(g: Tensor, weights: Tensor | None) -> Tensor:
    """Return gradients whose outer products have these weights in the mean over rows."""
    return g if weights is None else g * weights.sqrt()


def _grad(output: Tensor, inputs: Any, weights: Tensor | None) -> list[Tensor | None]:
    if not inputs:
        return []
    with explained():
        found = torch.autograd.grad(output, inputs, weights, retain_graph=True, allow_unused=True)
    return [g if g is None or g.layout is torch.strided else g.to_dense() for g in found]


def build(model: nn.Module, loss: Loss, params: KfacParams, seed: int) -> Kfac:
    """Return ``kfac`` of the registry."""
    return Kfac(model, loss, seed=seed, **params.model_dump(exclude={"schedule"}))
