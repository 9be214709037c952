"""The Jacobian of a network's outputs, from the graph its forward pass left behind.

Jᵀw is autograd's own backward. Jv is a walk over the same graph from the parameters to the
output, each node giving the tangent of its output from what it saved in the forward pass:
no second forward pass, no other dropout mask, no touched buffers.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, _engine_run_backward, get_gradient_edge

from mlhf.curvature.consistency import disagree, normal_like
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.hooks import CHANGED, UNKNOWN, any_on
from mlhf.curvature.nested_backward import in_backward, run_nested_backward
from mlhf.curvature.rules import RULES, Tangent, Tangents
from mlhf.curvature.view_ops import VIEW_RULES

_Outputs = tuple[Tensor | None, ...]
# From directions v to Jv for each.
_Jacobian = Callable[[Sequence[Sequence[Tensor]]], list[list[Tensor]]]


class Linearization:
    """z(θ) near the θ of the forward pass that made ``z``.

    Args:
        z: The outputs, each with its graph; they must stay alive and unchanged.
        parameters: The leaves θ. Those that z does not depend on have zero derivatives.
        hooked: Whether hooks may have been registered in that forward pass.
    """

    def __init__(
        self, z: Sequence[Tensor], parameters: Sequence[Tensor], *, hooked: bool = False
    ) -> None:
        self._z = list(z)
        self._parameters = list(parameters)
        self._hooked = hooked
        self._jvps: _Jacobian | None = None

    def vjp(self, w: Sequence[Tensor]) -> list[Tensor]:
        """Return Jᵀw, one tensor per parameter, for one tensor per output."""
        return vjp(self._z, self._parameters, w)

    def gradients(
        self, w: Sequence[Tensor], edges: Sequence[GradientEdge]
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return Jᵀw, and wᵀ∂z/∂(edges of the graph), None where z does not depend on one."""
        count = len(self._parameters)
        found = backward(self._z, [*self._parameters, *edges], w)
        return _dense(found[:count], self._parameters), list(found[count:])

    def jvp(self, v: Sequence[Tensor]) -> list[Tensor]:
        """Return Jv, one tensor per output, for one tensor per parameter."""
        return self.jvps([v])[0]

    def jvps(self, vs: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Return Jv for each v, which may cost less together."""
        return (
            run_nested_backward(lambda: self._tangents(vs)) if in_backward() else self._tangents(vs)
        )

    def _tangents(self, vs: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        if self._jvps is not None:
            return self._jvps(vs)
        hooked = self._hooked or any_on(self._parameters)
        jvps: _Jacobian
        try:
            jvps = _Walk(self._z, self._parameters)
            us = jvps(vs)
        except _NoWalk:
            if hooked:  # both of its sides would run them
                raise CurvatureError(UNKNOWN) from None
            jvps = _DoubleBackward(self._z, self._parameters)
            us = jvps(vs)
        else:
            # Gradients that are large, where that is in range, so that a clip shows.
            scale = 1.0 if any(t.dtype == torch.float16 for t in self._z) else 1024.0
            if hooked and not _adjoint(jvps, self._z, self._parameters, scale):
                raise CurvatureError(CHANGED)
        self._jvps = jvps
        return us


def vjp(z: list[Tensor], parameters: list[Tensor], w: Sequence[Tensor]) -> list[Tensor]:
    """Return Jᵀw for J = ∂z/∂(parameters), dense; the graph stays."""
    return _dense(backward(z, parameters, w), parameters)


def _dense(found: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor]:
    return [
        torch.zeros_like(p) if t is None else t if t.layout is torch.strided else t.to_dense()
        for t, p in zip(found, parameters, strict=True)
    ]


def backward(
    z: Sequence[Tensor], at: Sequence[Tensor | GradientEdge], w: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return wᵀ∂z/∂(leaves, or edges of the graph), None where z does not depend on one.

    What ``torch.autograd.grad`` calls. Its checks of types and shapes, which must hold here,
    take a third of the call in a small network, and import half a second's worth of modules.
    """
    found: tuple[Tensor | None, ...] = _engine_run_backward(
        tuple(z), tuple(w), True, False, tuple(at), True, accumulate_grad=False
    )
    return found


def _adjoint(
    jvps: _Jacobian,
    z: list[Tensor],
    parameters: list[Tensor],
    scale: float = 1.0,
) -> bool:
    """Whether ⟨w, Jv⟩ = ⟨Jᵀw, v⟩ for some w and v; the scale is w's."""
    w = [scale * t for t in normal_like(z, 0)]
    v = normal_like(parameters, 1)
    left = list(zip(w, jvps([v])[0], strict=True))
    right = list(zip(vjp(z, parameters, w), v, strict=True))
    return not disagree(left, right, topological([get_gradient_edge(t).node for t in z]))


class _NoWalk(Exception):  # noqa: N818
    """The graph has a node whose tangent the walk cannot give."""


_NOWHERE = -1  # the last place of a walk


class _Step(NamedTuple):
    """One node of a walk."""

    tangent: Callable[[Tangents], Any]
    together: Callable[[Sequence[Tangents]], list[Any]] | None  # for several directions
    sources: tuple[int, ...]  # where its inputs are
    place: int  # where its first output goes
    outputs: int  # how many it has


class _Walk:
    """Jv node by node. Each node's part is prepared once and used by every product.

    Every output of a node has a place in a list of tangents, None where it is zero; the last
    place stands for all that does not depend on a parameter.
    """

    def __init__(self, z: list[Tensor], parameters: list[Tensor]) -> None:
        leaves = {id(p): i for i, p in enumerate(parameters)}
        self._steps: list[_Step] = []
        self._leaves: list[tuple[int, int]] = []  # (place, index of the parameter)
        # The nodes are kept: Python's handle of a node is the same object only while it lives.
        ends = [get_gradient_edge(t) for t in z]
        self._nodes = topological([end.node for end in ends])
        places: dict[Any, int] = {}  # of each node's first output
        size = 0
        for node in self._nodes:
            if node.name() == "torch::autograd::AccumulateGrad":
                index = leaves.get(id(node.variable))
                if index is not None:
                    places[node] = size
                    self._leaves.append((size, index))
                    size += 1
                continue
            sources = tuple(
                places[source] + nr if source in places else _NOWHERE
                for source, nr in node.next_functions
            )
            if all(source == _NOWHERE for source in sources):
                continue
            tangent, outputs = _tangent_of(node)
            places[node] = size
            together = getattr(tangent, "together", None)
            self._steps.append(_Step(tangent, together, sources, size, outputs))
            size += outputs
        self._size = size + 1
        self._out = [
            places[end.node] + end.output_nr if end.node in places else _NOWHERE for end in ends
        ]
        self._like = z

    def __call__(self, vs: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        values: list[list[Any]] = [[None] * self._size for _ in vs]
        for own, v in zip(values, vs, strict=True):
            for place, index in self._leaves:
                own[place] = v[index]
        with torch.no_grad():
            for tangent, together, sources, place, outputs in self._steps:
                inputs = [tuple([own[source] for source in sources]) for own in values]
                for t in inputs[0]:  # a tangent that is zero is so in all directions
                    if t is not None:
                        break
                else:
                    continue
                if together is not None and len(inputs) > 1:
                    found = together(inputs)
                else:
                    found = [tangent(each) for each in inputs]
                for own, out in zip(values, found, strict=True):
                    if outputs == 1:
                        own[place] = out
                    else:
                        own[place : place + outputs] = out
        return [
            [
                torch.zeros_like(z) if own[place] is None else own[place]
                for place, z in zip(self._out, self._like, strict=True)
            ]
            for own in values
        ]


def topological(roots: list[Any]) -> list[Any]:
    """All nodes the roots depend on, sources first (iterative: graphs get deep)."""
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
    """One node above all outputs."""

    next_functions: tuple[tuple[Any, int], ...]


def _tangent_of(node: Any) -> tuple[Callable[[Tangents], Any], int]:
    """Return the node's tangent function and how many outputs it gives: a tuple if several."""
    shaping = VIEW_RULES.get(node.name())
    if shaping is not None:
        return shaping(node), len(node._input_metadata)
    rule = RULES.get(node.name())
    if rule is not None:
        tangent: Tangent | None = rule(node)
        if tangent is not None:
            return tangent, 1
    return _NodeTwice(node), len(node._input_metadata)


class _NodeTwice:
    """A node's tangent by differentiating its backward, u ↦ Jᵀu, with respect to u.

    The backward is linear in u, so its derivative in the direction v is Jv whatever u is.
    """

    def __init__(self, node: Any) -> None:
        if not callable(node):  # a torch.autograd.Function in Python
            raise _NoWalk
        self._us = [
            torch.zeros(m.shape, dtype=m.dtype, device=m.device, requires_grad=True)
            for m in node._input_metadata
        ]
        with torch.enable_grad():
            try:
                pulled = node(*self._us)
            except (RuntimeError, TypeError) as error:
                raise _NoWalk from error
        self._pulled: _Outputs = pulled if isinstance(pulled, tuple) else (pulled,)

    def __call__(self, inputs: Tangents) -> Any:
        pairs = [
            (pulled, v)
            for pulled, v in zip(self._pulled, inputs, strict=True)
            if pulled is not None and v is not None
        ]
        if any(not pulled.requires_grad for pulled, _ in pairs):
            raise _NoWalk
        if not pairs:
            return tuple(None for _ in self._us) if len(self._us) > 1 else None
        try:
            out = vjp([pulled for pulled, _ in pairs], self._us, [v for _, v in pairs])
        except RuntimeError as error:
            raise _NoWalk from error
        return out if len(out) > 1 else out[0]


class _DoubleBackward:
    """Jv by differentiating u ↦ Jᵀu of the whole network, for graphs the walk cannot do.

    Those have functions written in Python, whose backward may be cut off from autograd
    without a word. So a product is checked against the plain backward before any is given.
    """

    def __init__(self, z: list[Tensor], parameters: list[Tensor]) -> None:
        self._z, self._parameters = z, parameters
        self._u = [torch.zeros_like(t, requires_grad=True) for t in z]
        with torch.enable_grad():
            self._pulled = torch.autograd.grad(
                z, parameters, self._u, create_graph=True, allow_unused=True
            )
        if not _adjoint(self, z, parameters):
            raise CurvatureError(
                "a custom autograd function in this network has a backward that cannot be "
                "differentiated, so a Gauss-Newton product through it would be wrong"
            )

    def __call__(self, vs: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        return [self._one(v) for v in vs]

    def _one(self, v: Sequence[Tensor]) -> list[Tensor]:
        pairs = [
            (p, t)
            for p, t in zip(self._pulled, v, strict=True)
            if p is not None and p.requires_grad
        ]
        out = [torch.zeros_like(t) for t in self._z]
        if pairs:
            try:
                out = vjp([p for p, _ in pairs], self._u, [t for _, t in pairs])
            except RuntimeError as error:
                raise CurvatureError(str(error)) from error
        return out
