"""The generalized Gauss-Newton matrix of a network's loss on one batch."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from mlhf.curvature.entrywise import entrywise_nodes
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.forward_pass import (
    Unchanged,
    detached,
    forward_pass,
    full_precision,
    select_parameters,
)
from mlhf.curvature.hooks import hook_count
from mlhf.curvature.kernels import Kernels
from mlhf.curvature.linearize import Linearization, backward
from mlhf.curvature.positive_part import Product, positive_part
from mlhf.curvature.protocol import Loss
from mlhf.curvature.pytree_loss import dot, graph_outputs, pytree_loss
from mlhf.curvature.recomputation import UnmovedBuffers
from mlhf.curvature.switches import NOTHING, together
from mlhf.curvature.symmetric import symmetric
from mlhf.curvature.uses import Uses

Indefinite = Literal["positive_part", "magnitude", "exact"]


class GGN:
    """The generalized Gauss-Newton matrix of a loss at a model's parameters.

        G = Jᵀ H_ℓ J with J = ∂z/∂θ and H_ℓ = ∂²ℓ/∂z², for outputs z = model(x),

    with the loss and its gradient (Schraudolph 2002; Martens 2010). G is positive
    semi-definite where the loss is convex in z.

    One forward pass serves all. It is run here, as in a plain training step: batch norm's
    statistics move once, dropout draws one mask, and every product uses the same ones. The
    parameters must not change while the object is in use. Hooks that change gradients are
    refused; hooks that only read them are allowed.

    Args:
        model: Any module that returns a tensor, or a tuple, list or dict of tensors.
        loss: ``"cross_entropy"``, ``"mse"`` or ``"binary_cross_entropy"``, for one tensor;
            or a function (z, y) ↦ scalar of all that the model returns, twice
            differentiable in it.
        x: The model's input.
        y: The loss's target.
        parameters: θ, any leaves; by default all of the model's that require a gradient.
            Gradients and products are zero where the output does not depend on one.
        autocast: The dtype of a forward pass under autocast, such as ``torch.bfloat16``.
            Gradients and products then have the parameters' dtype.
        indefinite: What stands for H_ℓ where the loss is not convex in the outputs: its
            ``"positive_part"`` or ``"magnitude"`` (``positive_part.py``), for which G is
            positive semi-definite, or ``"exact"``. For a loss that is not known to be convex
            the first two take some products with H_ℓ alone.
        edges: Called after the forward pass with what the model returned; returns edges of its
            graph, such as a layer's output, at which the gradient is wanted too. That costs
            nothing.

    Attributes:
        loss: ℓ(z, y), a scalar without graph.
        loss_function: ℓ, as it was given.
        gradient: ∇θℓ, one tensor like each parameter.
        edge_gradients: The loss's gradient at those edges, None at one that it does not
            depend on.
        output: What the model returned, without graph.

    Raises:
        CurvatureError: where products cannot be computed correctly.
    """

    gradient: list[Tensor]
    edge_gradients: list[Tensor | None]

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        x: Any,
        y: Any,
        parameters: Sequence[Tensor] | None = None,
        *,
        autocast: torch.dtype | None = None,
        indefinite: Indefinite = "positive_part",
        edges: Callable[[Any], Sequence[GradientEdge]] | None = None,
    ) -> None:
        self._configure(model, loss, parameters, indefinite, autocast)
        before = hook_count()
        kernels = self._kernels.of_pass(self._device)
        z = forward_pass(model, x, self.parameters, autocast, kernels=kernels)
        hooked = hook_count() != before
        self._outputs = graph_outputs(z)
        watched = edges(z) if edges else []
        self._linearize(model, z, y, hooked)
        with self._using_graph():
            self.gradient, self.edge_gradients = self._linear.gradients(self._at.gradient, watched)

    @classmethod
    def at_outputs(
        cls,
        model: nn.Module,
        loss: Loss,
        z: Any,
        y: Any,
        parameters: Sequence[Tensor] | None = None,
        *,
        indefinite: Indefinite = "positive_part",
        hooked: bool = True,
    ) -> "GGN":
        """Return the matrix at the outputs z of a forward pass that the caller ran.

        Its gradient is not computed (``backward``): ``gradient`` and ``edge_gradients`` are to be
        set by the caller. Nothing may have changed since the pass.

        Args:
            model: The model.
            loss: As for ``GGN``.
            z: What the model returned, or what was made of it, with its graph.
            y: The loss's target.
            parameters: θ.
            indefinite: As for ``GGN``.
            hooked: Whether the pass may have registered hooks.

        Raises:
            CurvatureError: as ``GGN`` does.
        """
        self = cls.__new__(cls)
        self._configure(model, loss, parameters, indefinite)
        self._outputs = graph_outputs(z)
        self._linearize(model, z, y, hooked)
        return self

    @property
    def outputs(self) -> list[Tensor]:
        """The outputs that have a graph; ``jvp`` returns a tensor for each."""
        return self._outputs

    def backward(
        self, factor: Tensor, at: Sequence[Tensor | GradientEdge]
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of ``factor`` times the loss; the graph is kept.

        Args:
            factor: A scalar.
            at: Leaves or edges of the graph.

        Returns:
            One for each of them, None at one that the loss does not depend on.
        """
        with self._using_graph():
            w = [g * factor.to(g) for g in self._at.gradient]
            return backward(self._outputs, at, w)

    def _configure(
        self,
        model: nn.Module,
        loss: Loss,
        parameters: Sequence[Tensor] | None,
        indefinite: Indefinite,
        autocast: torch.dtype | None = None,
    ) -> None:
        if indefinite not in get_args(Indefinite):
            raise ValueError(
                f"indefinite={indefinite!r} is not allowed: it should be one of "
                f"{', '.join(map(repr, get_args(Indefinite)))}"
            )
        self.parameters = select_parameters(model, parameters)
        self._device = self.parameters[0].device
        self._kernels = Kernels.of(model, autocast)
        self.loss_function = loss
        self._indefinite = indefinite
        self._output_hessian: Product | None = None

    def _linearize(self, model: nn.Module, z: Any, y: Any, hooked: bool) -> None:
        self.output: Any = detached(z)
        self._buffers = UnmovedBuffers(model)
        self._unchanged = Unchanged(self.parameters)
        # A loss may hold a network; the named ones need no switch, which is all threads'.
        named = isinstance(self.loss_function, str)
        with full_precision(self._device), NOTHING if named else self._kernels.twice():
            self._at = pytree_loss(self.loss_function, z, y)
            self._check_loss(model)
            self._linear = Linearization(self._outputs, self.parameters, hooked=hooked)
            self.loss = self._at.value

    def product(self, v: Sequence[Tensor]) -> list[Tensor]:
        """Return Gv = Jᵀ H_ℓ J v.

        Args:
            v: One tensor like each parameter.

        Returns:
            One tensor like each parameter; differentiable in v, with G a constant.
        """
        return symmetric(self._product, v)

    def quadratic(self, v: Sequence[Tensor]) -> Tensor:
        """Return vᵀGv = ⟨Jv, H_ℓJv⟩, a scalar without graph, for half the cost of a product."""
        with torch.no_grad(), self._using_graph():
            u = self._linear.jvp(v)
            w = self._apply_output_hessian(u)
            return sum((dot(a, b) for a, b in zip(u[1:], w[1:], strict=True)), dot(u[0], w[0]))

    def jvp(self, v: Sequence[Tensor]) -> list[Tensor]:
        """Return u = Jv, one tensor like each output, without graph."""
        with torch.no_grad(), self._using_graph():
            return self._linear.jvp(v)

    def jvps(self, vs: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Return ``jvp`` of each v; where layers are narrow, several cost less than one by one.

        On a CPU, convolutions compute whole blocks of channels, which directions can share.
        """
        with torch.no_grad(), self._using_graph():
            return self._linear.jvps(vs)

    def output_hessian(self, u: list[Tensor]) -> list[Tensor]:
        """Return w = H_ℓu, one tensor like each output."""
        with torch.no_grad(), self._using_graph():
            return self._apply_output_hessian(u)

    def vjp(self, w: Sequence[Tensor]) -> list[Tensor]:
        """Return Jᵀw, one tensor like each parameter: Gv is ``vjp(output_hessian(jvp(v)))``."""
        with self._using_graph():
            return self._linear.vjp(w)

    def uses(self) -> Uses:
        """Return how the pass uses its parameters. Walks the graph: milliseconds."""
        with self._using_graph():
            return Uses(self._outputs)

    def diagonal_root_at(self, edges: Sequence[GradientEdge]) -> list[Tensor | None]:
        """Return ‖∂z/∂e D^½‖ for each entry e of values at edges, D the diagonal matrix H_ℓ.

        Its square is the diagonal of the Gauss-Newton matrix in such a value, which is diagonal.

        Args:
            edges: Of values that the outputs are computed from entry by entry
                (``entrywise_nodes``).

        Returns:
            One tensor like each value; None where the outputs do not depend on it. The sign of
            an entry is of no account. Only right where H_ℓ is diagonal.
        """
        ones = [torch.ones_like(g) for g in self._at.gradient]
        roots = [d.clamp_min(0).sqrt() for d in self.output_hessian(ones)]
        with self._using_graph():
            return self._linear.vjp_at(roots, edges)

    def entrywise_nodes(self) -> set[Any]:
        """Return the graph's nodes whose values the outputs are computed from entry by entry."""
        return entrywise_nodes(self._outputs)

    def output_trace(self, generator: torch.Generator) -> Tensor:
        """Return an estimate of tr H_ℓ, a scalar of at least 0.

        It is uᵀH_ℓu for random signs u (Hutchinson 1990). Where the data are fitted, rounding
        could make it negative; it is clamped.

        Args:
            generator: On the CPU, wherever the model is.
        """
        signs = self._signs(generator)
        pairs = list(zip(signs, self.output_hessian(signs), strict=True))
        return sum((dot(u, w) for u, w in pairs[1:]), dot(*pairs[0])).clamp_min(0)

    def output_hessian_is_diagonal(self) -> bool:
        """Whether H_ℓ is diagonal, as far as two products with it can tell.

        A diagonal D is u · Du for every vector u of signs; any other matrix is not. Entries that
        are 0 to rounding beside the others are 0 here.
        """
        generator = torch.Generator().manual_seed(0)
        first, second = (
            [s * w for s, w in zip(signs, self.output_hessian(signs), strict=True)]
            for signs in (self._signs(generator), self._signs(generator))
        )
        scale = max((float(d.abs().max()) for d in first if d.numel()), default=0.0)
        return scale > 0 and all(
            torch.allclose(a, b, rtol=1e-4, atol=1e-6 * scale)
            for a, b in zip(first, second, strict=True)
        )

    def output_gradient_square(self) -> Tensor:
        """Return ‖∂ℓ/∂z‖², over all outputs, a scalar."""
        first, *others = self._at.gradient
        return sum((dot(g, g) for g in others), dot(first, first))

    def _signs(self, generator: torch.Generator) -> list[Tensor]:
        """Return random signs, one tensor like each output."""
        return [
            torch.randint(2, g.shape, generator=generator).mul_(2).sub_(1).to(g)
            for g in self._at.gradient
        ]

    def _check_loss(self, model: nn.Module) -> None:
        """Refuse losses of which JᵀH_ℓJ and Jᵀ∂ℓ/∂z would miss a part, or all.

        Raises:
            CurvatureError: for a loss that depends on parameters beside the outputs, and for a
                model that returns its own loss.
        """
        if self._at.leaves:
            trained = {id(p) for p in self.parameters}
            beside = {id(t) for t in self._at.leaves} & trained
            names = [name for name, p in model.named_parameters() if id(p) in beside]
            if beside:
                raise CurvatureError(
                    f"the loss depends on parameters beside the model's outputs: "
                    f"{', '.join(names) or 'those given'}. Its gradient would miss that part. Take "
                    "weight_decay for an L2 penalty, or let the model return what the loss needs"
                )
        if self._at.of_numbers:
            raise CurvatureError(
                "the model returns a single number and the loss is linear in it, as where a model "
                "computes its own loss: then there is no Gauss-Newton matrix. Let the model return "
                "its outputs, such as logits, and give the loss as a function of them and y"
            )

    def _using_graph(self) -> AbstractContextManager[Any]:
        self._unchanged.check()
        # Checkpointed activations are computed again here, by the kernels of the forward pass.
        kernels = self._kernels.with_tangents(self._device)
        precise, kept = full_precision(self._device), self._buffers.kept()
        return kernels if precise is kept is NOTHING else together(precise, kernels, kept)

    def _product(self, v: Sequence[Tensor]) -> list[Tensor]:
        with self._using_graph():
            u = self._linear.jvp(v)  # v → Jv
            w = self._apply_output_hessian(u)  # Jv → H_ℓ Jv
            return self._linear.vjp(w)  # H_ℓ Jv → Jᵀ H_ℓ Jv

    def _apply_output_hessian(self, u: list[Tensor]) -> list[Tensor]:
        """Return the matrix between Jᵀ and J, here H_ℓ or its positive part, times u."""
        if self._output_hessian is None:
            exact = self._at.hessian_product
            kept = self._at.convex or self._indefinite == "exact"
            self._output_hessian = (
                exact
                if kept
                else positive_part(
                    exact, self._at.gradient, magnitude=self._indefinite == "magnitude"
                )
            )
        return self._output_hessian(u)
