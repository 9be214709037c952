"""K-FAC (Martens & Grosse 2015): natural gradient with a factored Fisher matrix."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from mlhf.curvature.forward_pass import trainable
from mlhf.curvature.losses import autograd_loss
from mlhf.optimizers.kfac import fisher
from mlhf.optimizers.kfac.fisher import Loss
from mlhf.optimizers.kfac.layers import Call, Layer, layer_of
from mlhf.optimizers.protocol import State, StepResult


class Kfac:
    """θ ← θ − lr·m, with m the momentum of ν(F̂ + λI)⁻¹∇ℓ.

    F̂ has a block for each linear layer, convolution and batch norm (``kfac_layers.py``), from
    running means. Parameters of other kinds (embedding, recurrent, attention's inner ones,
    layer norm, grouped convolutions, weights that several modules share) have the diagonal of
    F̂ as their block, estimated as N·ĝ², with ĝ the mean gradient over N rows for the same
    labels (Gauss-Newton-Bartlett: Liu et al. 2023).

    Args:
        model: Any module that returns one tensor.
        loss: A loss's name; or a function (z, y) ↦ scalar, for ``fisher="empirical"``.
        lr: Learning rate.
        momentum: Part of m that is kept.
        weight_decay: L2 penalty, part of the gradient and of λ.
        damping: λ, split between a layer's factors by their mean eigenvalues.
        decay: Of the running means; the first few updates are means of all there were.
        fisher: Which labels the Fisher matrix is for: ``"sampled"`` from the network,
            ``"empirical"`` (the data's; costs no backward pass of its own), or ``"exact"``,
            the mean over all (a backward pass per output).
        factors_every: Steps between two updates of the factors.
        inverse_every: Steps between two inversions.
        kl_clip: ν is at most such that lr²·ν²·dᵀ∇ℓ ≤ this, for d the preconditioned gradient.
        norm_clip: ν is at most such that ν‖d‖ ≤ this.
        max_dimension: A larger factor keeps only its diagonal.
        seed: Of the drawn labels.
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
    ) -> None:
        self.model = model
        self.lr = lr
        self.loss = loss
        self._function = autograd_loss(loss)
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._damping = damping
        self._decay = decay
        self._fisher = fisher
        self._factors_every = factors_every
        self._inverse_every = inverse_every
        self._kl_clip = kl_clip
        self._norm_clip = norm_clip
        self._parameters = trainable(model)
        self._blocks = _blocks(model, max_dimension)
        owned = {id(p) for block in self._blocks for p in block.layer.parameters}
        self._others = [p for p in self._parameters if id(p) not in owned]
        self._diagonal = _Mean()
        self._velocity: list[Tensor] | None = None
        self._generator = torch.Generator().manual_seed(seed)
        self._steps = 0

    def step(self, x: Tensor, y: Tensor) -> StepResult:
        with torch.enable_grad(), self._watched():
            z = self.model(x)
        with torch.enable_grad():
            loss = self._function(z, y)
        due = self._steps % self._factors_every == 0
        gradient = self._differentiate(z, loss, due)
        with torch.no_grad():
            if self._weight_decay:
                torch._foreach_add_(gradient, self._parameters, alpha=self._weight_decay)
            direction = self._precondition(gradient)
            scale = self._scale(direction, gradient)
            torch._foreach_mul_(direction, scale)
            if self._velocity is None:
                self._velocity = direction
            else:
                torch._foreach_mul_(self._velocity, self._momentum)
                torch._foreach_add_(self._velocity, direction)
            torch._foreach_add_(self._parameters, self._velocity, alpha=-self.lr)
        self._steps += 1
        return StepResult(loss.detach(), {"step_scale": scale})

    def state_dict(self) -> State:
        return {
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
        like = self._parameters[0]
        self._steps = int(state["steps"])
        self._generator.set_state(state["generator"])
        self._velocity = _copied(state["velocity"], like)
        self._diagonal.load_state_dict(state["diagonal"], like)
        for block, saved in zip(self._blocks, state["blocks"], strict=True):
            block.factors.load_state_dict(saved["factors"], like)
            block.inverses = _copied(saved["inverses"], like)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Note every block's inputs, and where the gradients of its outputs will pass."""
        for block in self._blocks:
            block.calls.clear()
        hooks = [block.module.register_forward_hook(block.note) for block in self._blocks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _differentiate(self, z: Tensor, loss: Tensor, due: bool) -> list[Tensor]:
        """Return ∇ℓ; update the factors where due."""
        edges = [edge for block in self._blocks for _, edge in block.calls]
        rows = fisher.rows(z)
        found: list[list[Tensor | None]] = []  # gradients by edge, for each set of labels
        own: list[Tensor | None] = []  # those of the other parameters, summed over rows
        if due and self._fisher != "empirical":
            exact = self._fisher == "exact"
            if exact:
                found = [_grad(z, edges, g) for g in fisher.exact(self.loss, z.detach())]
            if not exact or self._others:
                g = fisher.sampled(self.loss, z.detach(), self._generator)
                both = _grad(z, [*([] if exact else edges), *self._others], g)
                own = both[len(both) - len(self._others) :]
                if not exact:
                    found = [both[: len(edges)]]
        wanted: list[Tensor | GradientEdge] = list(self._parameters)
        empirical = due and self._fisher == "empirical"
        gradients = _grad(loss, wanted + (edges if empirical else []), None)
        gradient = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(self._parameters, gradients, strict=False)
        ]
        if empirical:
            found = [[None if g is None else g * rows for g in gradients[len(wanted) :]]]
            by_id = {id(p): g for p, g in zip(self._parameters, gradient, strict=True)}
            own = [by_id[id(p)] * rows for p in self._others]
        if due:
            self._update(found, own, rows)
        for block in self._blocks:
            block.calls.clear()  # else the graph would live on
        return gradient

    @torch.no_grad()
    def _update(
        self, found: list[list[Tensor | None]], own: list[Tensor | None], rows: int
    ) -> None:
        at = 0
        for block in self._blocks:
            calls: list[Call] = []
            for x, _ in block.calls:
                gradients = [g for labels in found if (g := labels[at]) is not None]
                at += 1
                if gradients:
                    calls.append((x, gradients))
            if calls:
                block.factors.add(block.layer.factors(calls, rows), self._decay)
        if own:
            squares = [
                torch.zeros_like(p) if g is None else g.square() / rows
                for p, g in zip(self._others, own, strict=True)
            ]
            self._diagonal.add(squares, self._decay)

    def _precondition(self, gradient: list[Tensor]) -> list[Tensor]:
        """Return (F̂ + λI)⁻¹ times the gradient; a block never reached leaves it as it is."""
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
            own = [by_id[id(p)] for p in block.layer.parameters]
            for p, d in zip(block.layer.parameters, block.layer.apply(block.inverses, own),
                            strict=True):  # fmt: skip
                result[id(p)] = d
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


class _Mean:
    """A running mean of a list of tensors."""

    def __init__(self) -> None:
        self.values: list[Tensor] | None = None
        self._count = 0

    def add(self, new: list[Tensor], decay: float) -> None:
        self._count += 1
        if self.values is None:
            self.values = new
        else:
            torch._foreach_lerp_(self.values, new, 1 - min(decay, 1 - 1 / self._count))

    def state_dict(self) -> State:
        return {"count": self._count, "values": self.values}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self._count = int(state["count"])
        self.values = _copied(state["values"], like)


class _Block:
    """A layer in a model, what it has seen in this step, and its state."""

    def __init__(self, module: nn.Module, layer: Layer) -> None:
        self.module = module
        self.layer = layer
        self.calls: list[tuple[Tensor, GradientEdge]] = []
        self.factors = _Mean()
        self.inverses: list[Tensor] | None = None

    def note(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        # The edge, not the output: a later operation in place would make that another value.
        if output.requires_grad:
            self.calls.append((inputs[0].detach(), get_gradient_edge(output)))


def _blocks(model: nn.Module, max_dimension: int) -> list[_Block]:
    """Return a block for each module that has one and shares no parameter with another."""
    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                users[id(parameter)] = users.get(id(parameter), 0) + 1
    blocks = []
    for module in model.modules():
        layer = layer_of(module, max_dimension)
        if layer is not None and all(users[id(p)] == 1 for p in layer.parameters):
            blocks.append(_Block(module, layer))
    return blocks


def _grad(output: Tensor, inputs: Any, weights: Tensor | None) -> list[Tensor | None]:
    if not inputs:
        return []
    return list(torch.autograd.grad(output, inputs, weights, retain_graph=True, allow_unused=True))


def _copied(saved: list[Tensor] | None, like: Tensor) -> list[Tensor] | None:
    return None if saved is None else [t.to(like, copy=True) for t in saved]
