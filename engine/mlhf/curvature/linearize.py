"""The Jacobian J of a network's outputs, from the graph of its forward pass.

Jᵀw is autograd's backward. Jv is computed by walking the same graph from the parameters to
the outputs: each node gives the tangent of its output from what it saved in the forward pass.
So there is no second forward pass, no other dropout mask, and buffers are not touched.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, _engine_run_backward, get_gradient_edge

from mlhf.curvature.consistency import disagree, normal_like
from mlhf.curvature.errors import REENTRANT, CurvatureError, explained
from mlhf.curvature.fused_rules import FUSED_RULES
from mlhf.curvature.hooks import CHANGED, UNKNOWN, any_on
from mlhf.curvature.nested_backward import in_backward, run_nested_backward
from mlhf.curvature.rules import RULES, Tangent, Tangents
from mlhf.curvature.view_ops import VIEW_RULES

_Outputs = tuple[Tensor | None, ...]
# From directions v to Jv for each.
_Jacobian = Callable[[Sequence[Sequence[Tensor]]], list[list[Tensor]]]


class Linearization:
    """The outputs z(θ) of a forward pass, linearized at its θ.

    Args:
        z: The outputs, each with its graph; they must not change.
        parameters: The leaves θ. Derivatives in those that z does not depend on are zero.
        hooked: Whether the forward pass may have registered hooks.

    Raises:
        CurvatureError: by products, where they cannot be computed correctly.
    """

    def __init__(
        self, z: Sequence[Tensor], parameters: Sequence[Tensor], *, hooked: bool = False
    ) -> None:
        self._z = list(z)
        self._parameters = list(parameters)
        self._hooked = hooked
        self._jvps: _Jacobian | None = None

    def vjp(self, w: Sequence[Tensor]) -> list[Tensor]:
        """Return Jᵀw, one tensor like each parameter, for w like the outputs."""
        return vjp(self._z, self._parameters, w)

    def gradients(
        self, w: Sequence[Tensor], edges: Sequence[GradientEdge]
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return Jᵀw, and wᵀ∂z/∂e for edges e of the graph, None where z does not depend on e."""
        count = len(self._parameters)
        found = backward(self._z, [*self._parameters, *edges], w)
        refuse_reentrant(found[:count], self._z)
        return dense(found[:count], self._parameters), list(found[count:])

    def vjp_at(self, w: Sequence[Tensor], edges: Sequence[GradientEdge]) -> list[Tensor | None]:
        """Return wᵀ∂z/∂e for edges e of the graph, None where z does not depend on e."""
        return list(backward(self._z, edges, w))

    def jvp(self, v: Sequence[Tensor]) -> list[Tensor]:
        """Return Jv, one tensor like each output, for v like the parameters."""
        return self.jvps([v])[0]

    def jvps(self, vs: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Return Jv for each v, which can cost less than one by one."""
        if in_backward():
            return run_nested_backward(lambda: self._tangents(vs))
        return self._tangents(vs)

    def _tangents(self, vs: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        if self._jvps is not None:
            return self._jvps(vs)
        hooked = self._hooked or any_on(self._parameters)
        jvps: _Jacobian
        try:
            jvps = _Walk(self._z, self._parameters)
            if jvps.through_functions and hooked:
                raise _NoTangentError
            us = jvps(vs)
            if jvps.through_functions and not _is_adjoint(jvps, self._z, self._parameters):
                raise CurvatureError(_CUT_OFF)
        except _NoTangentError:
            if hooked:  # both sides of the check would run the hooks
                raise CurvatureError(UNKNOWN) from None
            jvps = _DoubleBackward(self._z, self._parameters)
            us = jvps(vs)
        else:
            # Gradients that are large (within the dtype's range), so that clipping shows.
            scale = 1.0 if any(t.dtype == torch.float16 for t in self._z) else 1024.0
            if hooked and not _is_adjoint(jvps, self._z, self._parameters, scale):
                raise CurvatureError(CHANGED)
        self._jvps = jvps
        return us


def vjp(z: list[Tensor], parameters: list[Tensor], w: Sequence[Tensor]) -> list[Tensor]:
    """Return Jᵀw for J = ∂z/∂(parameters), dense tensors; the graph is kept."""
    return dense(backward(z, parameters, w), parameters)


def dense(found: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return gradients as strided tensors, zero where there is none."""
    return [
        torch.zeros_like(p) if t is None else t if t.layout is torch.strided else t.to_dense()
        for t, p in zip(found, parameters, strict=True)
    ]


def backward(
    z: Sequence[Tensor], at: Sequence[Tensor | GradientEdge], w: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return wᵀ∂z/∂a for each leaf or edge a of the graph, None where z does not depend on a.

    This is what ``torch.autograd.grad`` calls. Its checks of dtypes and shapes, which hold
    here, take a third of the call in a small network, and import modules for half a second.
    """
    with explained():
        found: tuple[Tensor | None, ...] = _engine_run_backward(
            tuple(z), tuple(w), True, False, tuple(at), True, accumulate_grad=False
        )
    return found


def refuse_reentrant(gradients: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> None:
    """Refuse a graph that hides parameters behind a checkpoint with ``use_reentrant=True``.

    Their gradients would be None, as if nothing depended on them. Torch itself raises only where
    other parameters come before the checkpoint.

    Args:
        gradients: Those of all parameters.
        outputs: What was differentiated.

    Raises:
        CurvatureError: where there is such a checkpoint, and a gradient is None.
    """
    if any(g is None for g in gradients):
        nodes = topological([get_gradient_edge(t).node for t in outputs])
        if any(node.name() == "CheckpointFunctionBackward" for node in nodes):
            raise CurvatureError(REENTRANT)


def _is_adjoint(
    jvps: _Jacobian,
    z: list[Tensor],
    parameters: list[Tensor],
    scale: float = 1.0,
) -> bool:
    """Whether ⟨w, Jv⟩ = ⟨Jᵀw, v⟩ for a random v, and a random w of that scale."""
    w = [scale * t for t in normal_like(z, 0)]
    v = normal_like(parameters, 1)
    left = list(zip(w, jvps([v])[0], strict=True))
    right = list(zip(vjp(z, parameters, w), v, strict=True))
    return not disagree(left, right, topological([get_gradient_edge(t).node for t in z]))


class _NoTangentError(Exception):
    """The graph has a node whose tangent the walk cannot compute."""


_CUT_OFF = (
    "a custom autograd function in this network has a backward that cannot be differentiated, so "
    "a Gauss-Newton product through it would be wrong"
)
_ZERO = -1  # the last slot of a walk, which is always None


class _Step(NamedTuple):
    """One node of a walk."""

    tangent: Callable[[Tangents], Any]
    batched: Callable[[Sequence[Tangents]], list[Any]] | None  # for several directions
    sources: tuple[int, ...]  # the slots of its inputs
    slot: int  # of its first output
    outputs: int  # their number


class _Walk:
    """Jv node by node. The tangent function of each node is made once, for all products.

    Every output of a node has a slot in a list of tangents, None where the tangent is zero.
    The last slot stands for all that does not depend on a parameter.

    Attributes:
        through_functions: Whether a node is a function written in Python, whose backward may
            silently be cut off from autograd: then a product has to be checked.
    """

    def __init__(self, z: list[Tensor], parameters: list[Tensor]) -> None:
        leaves = {id(p): i for i, p in enumerate(parameters)}
        self._steps: list[_Step] = []
        self._leaves: list[tuple[int, int]] = []  # (slot, index of the parameter)
        # The nodes are kept: a node's Python object is the same one only while it is alive.
        ends = [get_gradient_edge(t) for t in z]
        self._nodes = topological([end.node for end in ends])
        slots: dict[Any, int] = {}  # of each node's first output
        size = 0
        for node in self._nodes:
            if node.name() == "torch::autograd::AccumulateGrad":
                index = leaves.get(id(node.variable))
                if index is not None:
                    slots[node] = size
                    self._leaves.append((size, index))
                    size += 1
                continue
            sources = tuple(
                slots[source] + nr if source in slots else _ZERO
                for source, nr in node.next_functions
            )
            if all(source == _ZERO for source in sources):
                continue
            tangent, outputs = _tangent_of(node)
            slots[node] = size
            batched = getattr(tangent, "batched", None)
            self._steps.append(_Step(tangent, batched, sources, size, outputs))
            size += outputs
        self._size = size + 1
        self.through_functions = any(
            isinstance(step.tangent, _NodeDoubleBackward) and step.tangent.of_function
            for step in self._steps
        )
        self._out = [
            slots[end.node] + end.output_nr if end.node in slots else _ZERO for end in ends
        ]
        self._like = z

    def __call__(self, vs: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        values: list[list[Any]] = [[None] * self._size for _ in vs]
        for tangents, v in zip(values, vs, strict=True):
            for slot, index in self._leaves:
                tangents[slot] = v[index]
        with torch.no_grad():
            for tangent, batched, sources, slot, outputs in self._steps:
                inputs = [tuple([tangents[source] for source in sources]) for tangents in values]
                for t in inputs[0]:  # a tangent that is zero is zero in all directions
                    if t is not None:
                        break
                else:
                    continue
                if batched is not None and len(inputs) > 1:
                    found = batched(inputs)
                else:
                    found = [tangent(each) for each in inputs]
                for tangents, out in zip(values, found, strict=True):
                    if outputs == 1:
                        tangents[slot] = out
                    else:
                        tangents[slot : slot + outputs] = out
        return [
            [
                torch.zeros_like(z) if tangents[slot] is None else tangents[slot]
                for slot, z in zip(self._out, self._like, strict=True)
            ]
            for tangents in values
        ]


def topological(roots: list[Any]) -> list[Any]:
    """Return all nodes that the roots depend on, sources first. Iterative: graphs get deep."""
    order: list[Any] = []
    top = _Top(tuple((root, 0) for root in roots))
    seen: set[Any] = set()
    stack: list[tuple[Any, Any]] = [(top, iter(top.next_functions))]
    while stack:
        node, rest = stack[-1]
        for child, _ in rest:
            if child is not None and child not in seen:
                seen.add(child)
                stack.append((child, iter(child.next_functions)))
                break
        else:
            order.append(node)
            stack.pop()
    return order[:-1]


class _Top(NamedTuple):
    """A node above all outputs."""

    next_functions: tuple[tuple[Any, int], ...]


def _tangent_of(node: Any) -> tuple[Callable[[Tangents], Any], int]:
    """Return the node's tangent function, and for how many outputs (a tuple if several)."""
    view_rule = VIEW_RULES.get(node.name())
    if view_rule is not None:
        return view_rule(node), len(node._input_metadata)
    fused_rule = FUSED_RULES.get(getattr(node, "_forward_cls", node.name()))
    if fused_rule is not None:
        of_all = fused_rule(node)
        if of_all is not None:
            return of_all, len(node._input_metadata)
    rule = RULES.get(node.name())
    if rule is not None:
        tangent: Tangent | None = rule(node)
        if tangent is not None:
            return tangent, 1
    return _NodeDoubleBackward(node), len(node._input_metadata)


class _NodeDoubleBackward:
    """A node's tangent by differentiating its backward, u ↦ Jᵀu, in u.

    The backward is linear in u, so the transpose of its derivative applied to v is Jv, for
    any u ("double backward trick").

    Attributes:
        of_function: Whether the node's backward was written in Python.
    """

    def __init__(self, node: Any) -> None:
        self._us = [
            torch.zeros(m.shape, dtype=m.dtype, device=m.device, requires_grad=True)
            for m in node._input_metadata
        ]
        self.of_function = not callable(node)
        with torch.enable_grad():
            try:
                vjps = _backward_of(node, self._us) if self.of_function else node(*self._us)
            except (RuntimeError, TypeError) as error:
                raise _NoTangentError from error
        self._vjps: _Outputs = vjps if isinstance(vjps, tuple) else (vjps,)

    def __call__(self, inputs: Tangents) -> Any:
        # A node called by hand leaves it to autograd to sum what was spread over a shape.
        pairs = [
            (g, v if v.shape == g.shape else v.expand(g.shape))
            for g, v in zip(self._vjps, inputs, strict=True)
            if g is not None and v is not None
        ]
        if any(not g.requires_grad for g, _ in pairs):
            raise _NoTangentError
        if not pairs:
            return tuple(None for _ in self._us) if len(self._us) > 1 else None
        try:
            out = vjp([g for g, _ in pairs], self._us, [v for _, v in pairs])
        except RuntimeError as error:
            raise _NoTangentError from error
        return out if len(out) > 1 else out[0]


def _backward_of(node: Any, us: Sequence[Tensor]) -> _Outputs:
    """Return what the backward of one node gives; for ``torch.autograd.Function``s in Python.

    These cannot be called by hand. Their graph ends where their inputs begin.
    """
    sources = [GradientEdge(*source) if source[0] else None for source in node.next_functions]
    found = iter(
        _engine_run_backward(
            tuple(GradientEdge(node, i) for i in range(len(us))),
            *(tuple(us), True, True),
            tuple(edge for edge in sources if edge is not None),
            True,
            accumulate_grad=False,
        )
    )
    return tuple(None if edge is None else next(found) for edge in sources)


class _DoubleBackward:
    """Jv by differentiating u ↦ Jᵀu of the whole network, for graphs that cannot be walked.

    One product is checked against the plain backward before any is returned: a backward that was
    written in Python may silently be cut off from autograd.
    """

    def __init__(self, z: list[Tensor], parameters: list[Tensor]) -> None:
        self._z, self._parameters = z, parameters
        self._u = [torch.zeros_like(t, requires_grad=True) for t in z]
        with torch.enable_grad():
            self._vjps = torch.autograd.grad(
                z, parameters, self._u, create_graph=True, allow_unused=True
            )
        if not _is_adjoint(self, z, parameters):
            raise CurvatureError(_CUT_OFF)

    def __call__(self, vs: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        return [self._one(v) for v in vs]

    def _one(self, v: Sequence[Tensor]) -> list[Tensor]:
        pairs = [
            (p, t) for p, t in zip(self._vjps, v, strict=True) if p is not None and p.requires_grad
        ]
        out = [torch.zeros_like(t) for t in self._z]
        if pairs:
            try:
                out = vjp([p for p, _ in pairs], self._u, [t for _, t in pairs])
            except RuntimeError as error:
                raise CurvatureError(str(error)) from error
        return out
