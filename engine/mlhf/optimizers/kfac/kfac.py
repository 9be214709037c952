"""K-FAC (Martens & Grosse 2015): natural gradient with a factored Fisher matrix."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from mlhf.curvature.errors import CurvatureError, explained
from mlhf.curvature.forward_pass import full_precision, plain_forward_pass
from mlhf.curvature.linearize import refuse_reentrant
from mlhf.curvature.loss_object import TensorLoss
from mlhf.curvature.losses import autograd_loss
from mlhf.curvature.protocol import Loss
from mlhf.curvature.pytree_loss import graph_outputs, loss_of
from mlhf.curvature.vectors import upcast, vector_like
from mlhf.optimizers.kfac import fisher
from mlhf.optimizers.kfac.calls import LayerCalls, recording
from mlhf.optimizers.kfac.layers import Call, Layer, layers_of
from mlhf.optimizers.options import check_model, check_options
from mlhf.optimizers.params import KfacParams
from mlhf.optimizers.protocol import State, StepResult
from mlhf.optimizers.running_mean import RunningMean
from mlhf.optimizers.state import check_state, restored_list, shapes_of
from mlhf.optimizers.step_guard import StepGuard, add, check
from mlhf.optimizers.torch_api.base import TorchOptimizer, sum_of
from mlhf.optimizers.torch_api.gradients import Gradients
from mlhf.optimizers.torch_api.param_groups import Parameters
from mlhf.optimizers.torch_api.recorder import Pass


class Kfac(TorchOptimizer):
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
        parameters: As for ``HessianFree``.
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
        parameters: Parameters | None = None,
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
        if callable(loss) and not isinstance(loss, TensorLoss) and fisher != "empirical":
            raise ValueError(
                f"fisher={fisher!r} is not allowed with a loss function: no labels can be drawn "
                "for it. Take fisher='empirical', a loss by its name, or one of mlhf.losses"
            )
        autograd_loss(loss)  # a name has to be known
        self._momentum = momentum
        self._damping = damping
        self._fisher = fisher
        self._factors_every = factors_every
        self._inverse_every = inverse_every
        self._kl_clip = kl_clip
        self._norm_clip = norm_clip
        self._decay, self._max_dimension, self._seed = decay, max_dimension, seed
        self._guard = StepGuard(model, max_skipped_steps, self._guarded_state)
        super().__init__(model, loss, parameters, {"lr": lr, "weight_decay": weight_decay})

    def _begin(self) -> None:
        trained = {id(p) for p in self._parameters}
        self._blocks = [
            _Block(module, layer, self._decay)
            for module, layer in layers_of(self.model, self._max_dimension)
            if all(id(p) in trained for p in layer.parameters)
        ]
        in_blocks = {id(p) for block in self._blocks for p in block.layer.parameters}
        self._others = [p for p in self._parameters if id(p) not in in_blocks]
        self._diagonal = RunningMean(self._decay)
        self._velocity: list[Tensor] | None = None
        self._generator = torch.Generator().manual_seed(self._seed)
        self._steps = 0

    def _guarded_state(self) -> list[object]:
        blocks = [b for block in self._blocks for b in (block, block.factors)]
        return [self, self._diagonal, self._generator, *blocks]

    @property
    def skipped_steps(self) -> int:
        """How many steps were skipped so far, because they were not finite."""
        return self._guard.skipped_steps

    def _step_on_batch(self, x: Any, y: Any, batch_size: float | None) -> StepResult:
        return self._guard.run(self._guarded_step, x, y)

    def _layers(self) -> list[LayerCalls]:
        return [block.calls for block in self._blocks]

    def _layers_due(self) -> bool:
        return self._steps % self._factors_every == 0

    def _step_on(self, passes: Sequence[Pass], gradients: Gradients) -> StepResult:
        return self._guard.run(
            lambda *_: self._step_on_recorded(passes, gradients),
            [each.call and each.call[:2] for each in passes],
            [each.target for each in passes],
        )

    def _step_on_recorded(self, passes: Sequence[Pass], gradients: Gradients) -> StepResult:
        recorded = next((each for each in passes if each.calls is not None), None)
        loss = sum_of(passes, gradients).loss
        if recorded is not None and recorded.calls is not None and self._layers_due():
            for block, calls in zip(self._blocks, recorded.calls, strict=True):
                block.calls.put(calls)
            matrix, y = recorded.matrix, recorded.target
            _refuse_unless_one(matrix.output)
            (z,) = matrix.outputs
            with full_precision(z.device):
                empirical = self._fisher == "empirical"
                found = matrix.gradient, matrix.edge_gradients
                by_label = self._of_data(z, y, *found) if empirical else self._of_labels(z, y)
                self._update(z, by_label)
        with torch.no_grad(), full_precision(loss.device):
            scale = self._update_parameters([upcast(g).clone() for g in gradients.values], loss)
        self._steps += 1
        return StepResult(loss, {"step_scale": scale})

    def _guarded_step(self, x: Any, y: Any) -> StepResult:
        with recording([block.calls for block in self._blocks]):
            z = plain_forward_pass(self.model, x)
        _refuse_unless_one(z)
        graph_outputs(z)
        with full_precision(self._parameters[0].device):
            with torch.enable_grad():
                loss = loss_of(self.loss_function, z, y)
            due = self._steps % self._factors_every == 0
            gradient = [upcast(g) for g in self._differentiate(z, y, loss, due)]
            with torch.no_grad():
                scale = self._update_parameters(gradient, loss)
        self._steps += 1
        return StepResult(loss.detach(), {"step_scale": scale})

    def _update_parameters(self, gradient: list[Tensor], loss: Tensor) -> Tensor:
        """Take the step; return ν."""
        lr, decay = self._option("lr"), self._option("weight_decay")
        if isinstance(decay, list):
            theta = [d * upcast(p) for d, p in zip(decay, self._parameters, strict=True)]
            torch._foreach_add_(gradient, theta)
        elif decay:
            theta = [upcast(p) for p in self._parameters]
            torch._foreach_add_(gradient, theta, alpha=decay)
        direction = self._precondition(gradient, decay)
        scale = self._scale(direction, gradient, lr)
        torch._foreach_mul_(direction, scale)
        velocity = direction
        if self._velocity is not None:
            velocity = list(torch._foreach_mul(self._velocity, self._momentum))
            torch._foreach_add_(velocity, direction)
        self._velocity = velocity
        _, size = check(loss, {"gradient": gradient, "direction": velocity})
        step = [v.to(p.dtype) for v, p in zip(velocity, self._parameters, strict=True)]
        if isinstance(lr, list):
            step, size, lr = list(torch._foreach_mul(step, lr)), size * max(lr), 1.0
        add(self._parameters, step, -lr, size, loss)
        return scale

    def _state(self) -> State:
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

    def _load(self, state: State) -> None:
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
        empirical = due and self._fisher == "empirical"
        by_label = self._of_labels(z, y) if due and not empirical else None
        edges = self._edges if empirical else []
        parameters: list[Tensor | GradientEdge] = list(self._parameters)
        gradients = _grad(loss, parameters + edges, None)
        refuse_reentrant(gradients[: len(parameters)], [loss])
        gradient = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(self._parameters, gradients, strict=False)
        ]
        if empirical:
            by_label = self._of_data(z, y, gradient, gradients[len(parameters) :])
        self._update(z, by_label)
        return gradient

    @property
    def _edges(self) -> list[Tensor | GradientEdge]:
        """The recorded outputs of the layers."""
        return [edge for block in self._blocks for edge in block.calls.edges]

    def _of_labels(self, z: Tensor, y: Tensor) -> "_ByLabel":
        """Return gradients for labels of the network's own."""
        edges, exact = self._edges, self._fisher == "exact"
        matrix = fisher.as_rows(self.loss_function, z)
        weights = fisher.row_weights(self.loss_function, matrix, y)
        at_edges: list[list[Tensor | None]] = []
        of_others: list[Tensor | None] = []
        if exact:
            labels = fisher.exact(self.loss_function, matrix.detach(), y)
            at_edges = [_grad(matrix, edges, _weighted(g, weights)) for g in labels]
        if not exact or self._others:
            g = fisher.sampled(self.loss_function, matrix.detach(), self._generator, y)
            g = _weighted(g, weights)
            both = _grad(matrix, [*([] if exact else edges), *self._others], g)
            of_others = both[len(both) - len(self._others) :]
            if not exact:
                at_edges = [both[: len(edges)]]
        return _ByLabel(at_edges, of_others)

    def _of_data(
        self,
        z: Tensor,
        y: Tensor,
        gradient: Sequence[Tensor],
        at_edges: Sequence[Tensor | None],
    ) -> "_ByLabel":
        """Return gradients for the data's labels, from those of the mean loss."""
        matrix = fisher.as_rows(self.loss_function, z)
        weights = fisher.row_weights(self.loss_function, matrix, y)
        rows = fisher.rows_of(self.loss_function, z)
        # Only n of the N rows count; their gradients are N/n times as large as without a mask.
        scale = rows if weights is None else rows * weights.max().rsqrt()
        by_id = {id(p): g for p, g in zip(self._parameters, gradient, strict=True)}
        return _ByLabel(
            [[None if g is None else g * scale for g in at_edges]],
            [by_id[id(p)] * scale for p in self._others],
        )

    @torch.no_grad()
    def _update(self, z: Tensor, by_label: "_ByLabel | None") -> None:
        """Update the running means, and forget the recorded calls."""
        if by_label is not None:
            self._update_means(by_label, fisher.rows_of(self.loss_function, z))
        for block in self._blocks:
            block.calls.clear()  # else the graph would live on

    def _update_means(self, by_label: "_ByLabel", rows: int) -> None:
        at_edges, of_others = by_label
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

    def _precondition(self, gradient: list[Tensor], decay: float | list[float]) -> list[Tensor]:
        """Return (F̂ + λI)⁻¹ times the gradient; for a block not seen so far the gradient itself."""
        decays = decay if isinstance(decay, list) else [decay] * len(self._parameters)
        damping = {id(p): self._damping + d for p, d in zip(self._parameters, decays, strict=True)}
        due = self._steps % self._inverse_every == 0
        by_id = {id(p): g for p, g in zip(self._parameters, gradient, strict=True)}
        result = dict(by_id)
        for block in self._blocks:
            factors = block.factors.values
            if factors is None:
                continue
            parameters = block.layer.parameters
            if due or block.inverses is None:
                # A block has one λ: that of its weight.
                block.inverses = block.layer.invert(factors, damping[id(parameters[0])])
            directions = block.layer.apply(block.inverses, [by_id[id(p)] for p in parameters])
            for p, direction in zip(parameters, directions, strict=True):
                result[id(p)] = direction
        for p, v in zip(self._others, self._diagonal.values or [], strict=False):
            result[id(p)] = by_id[id(p)] / (v + damping[id(p)])
        return [result[id(p)].clone() for p in self._parameters]

    def _scale(
        self, direction: list[Tensor], gradient: list[Tensor], lr: float | list[float]
    ) -> Tensor:
        """Return ν."""
        tiny = torch.finfo(direction[0].dtype).tiny
        scale = torch.ones((), dtype=direction[0].dtype, device=direction[0].device)
        if self._kl_clip is not None:
            terms = [(d * g).sum() for d, g in zip(direction, gradient, strict=True)]
            if isinstance(lr, list):
                terms, lr = [t * r**2 for t, r in zip(terms, lr, strict=True)], 1.0
            length = torch.as_tensor(sum(terms) * lr**2).clamp_min(tiny)
            scale = torch.minimum(scale, (self._kl_clip / length).sqrt())
        if self._norm_clip is not None:
            norms = torch.stack(torch._foreach_norm(direction))
            norm = torch.linalg.vector_norm(norms).clamp_min(tiny)
            scale = torch.minimum(scale, self._norm_clip / norm)
        return scale


class _ByLabel(NamedTuple):
    """Gradients for some labels.

    Attributes:
        at_edges: At the layers' outputs, by edge, for each set of labels.
        of_others: Of the parameters without a block, summed over rows.
    """

    at_edges: list[list[Tensor | None]]
    of_others: list[Tensor | None]


class _Block:
    """A layer of the model, its calls in this step, and its state."""

    def __init__(self, module: nn.Module, layer: Layer, decay: float) -> None:
        self.layer = layer
        self.calls = LayerCalls(module)
        self.factors = RunningMean(decay)
        self.inverses: list[Tensor] | None = None


def _refuse_unless_one(z: Any) -> None:
    if not isinstance(z, Tensor) or not z.ndim:
        what = "a single number" if isinstance(z, Tensor) else f"a {type(z).__name__}"
        raise CurvatureError(f"K-FAC needs a model that returns one tensor of outputs, not {what}")


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
