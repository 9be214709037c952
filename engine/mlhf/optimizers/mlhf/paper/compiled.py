"""MLHF's whole step as one compiled graph, for each shape of batch.

The code of the eager step is traced with fake tensors: the forward pass, the gradient, every
product's tangents and backward pass, both networks and the solve become one list of operations
on flat inputs. Inductor compiles it; on a GPU it is then recorded as a CUDA graph. Where any of
this is not possible, or gives other results than the eager operations on its first batch, steps
stay eager, and ``Execution`` says why.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from mlhf.curvature.hooks import any_on
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.mlhf.paper.networks import CoordinateNetwork
from mlhf.optimizers.mlhf.paper.solve import Buffers, MLHFState, PaperGGN, SolveStats, solve
from mlhf.optimizers.step_guard import all_finite
from mlhf.optimizers.torch_api.hooks import WeakHook

_log = logging.getLogger(__name__)
_MAX_GRAPHS = 4  # kept at once
_MAX_SHAPES = 1000  # whose steps are counted
_PATIENCE = 20  # steps of a further shape before it is compiled
_TOLERANCE = 1e-2  # relative, after one step: rounding errors stay below it, bugs do not

Run = Callable[..., Tensor]


@dataclass(frozen=True)
class Execution:
    """How the last step ran, and why not faster.

    Attributes:
        path: How.
        reason: Why not faster; empty where nothing prevents it.
    """

    path: Literal["eager", "compiled", "cuda_graph"]
    reason: str = ""


class Settings(NamedTuple):
    """The optimizer's settings that are constants of a graph."""

    iterations: int
    weight_decay: float
    tolerance: float


class CannotCompile(Exception):  # noqa: N818
    """This step has to stay eager; the message says why."""


class CompiledSteps:
    """The compiled steps of one optimizer.

    A graph repeats what the model's Python code did while it was traced, so ``forward`` may
    depend only on its input, parameters, buffers and modes. Models that visibly depend on more
    (hooks, random numbers, two traces that differ, control flow that depends on values) are not
    compiled.

    Args:
        model: The model.
        loss: As for ``GGN``.
        parameters: θ, in the order of the flat vectors.
        damping: RNN_s.
        preconditioner: RNN_p.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        parameters: Sequence[Tensor],
        damping: CoordinateNetwork,
        preconditioner: CoordinateNetwork,
    ) -> None:
        self._model, self._loss = model, loss
        self._parameters = list(parameters)
        self._networks = damping, preconditioner
        self._graphs: dict[Any, _Graph | str] = {}  # a graph, or why there is none
        self._step_counts: dict[Any, int] = {}
        self._logged: set[Execution] = set()
        self.execution = Execution("eager", "no step yet")

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the graphs: they belong to this process, and to these tensors' memory."""
        return {**vars(self), "_graphs": {}, "_step_counts": {}}

    def step(
        self, x: Any, y: Any, state: MLHFState, settings: Settings
    ) -> tuple[Tensor, SolveStats] | None:
        """Update the state by one step; return the loss and statistics, or None: step eagerly."""
        try:
            inputs = self._inputs(x, y, state)
            graph = self._graph(inputs, settings)
        except CannotCompile as error:
            self._set_execution(Execution("eager", str(error)))
            return None
        self._set_execution(graph.execution)
        with torch.no_grad():
            loss, *stats = graph(inputs.tensors).unbind()
        return loss, SolveStats(*stats)

    def _set_execution(self, execution: Execution) -> None:
        self.execution = execution
        if execution not in self._logged:  # once each, not again at every odd batch
            self._logged.add(execution)
            parts = filter(None, (execution.path, execution.reason))
            _log.info("MLHF steps run %s", ": ".join(parts))

    def _graph(self, inputs: "_Inputs", settings: Settings) -> "_Graph":
        key = (inputs.key, settings, self._loss, torch.get_num_threads())
        found = self._graphs.get(key)
        if isinstance(found, _Graph) and found.fits(inputs.tensors):
            return found
        if isinstance(found, str):
            raise CannotCompile(found)
        if found is None:
            if len(self._graphs) >= _MAX_GRAPHS:
                raise CannotCompile(f"{_MAX_GRAPHS} shapes of batch are compiled already")
            if len(self._step_counts) > _MAX_SHAPES:
                self._step_counts.clear()
            self._step_counts[key] = self._step_counts.get(key, 0) + 1
            if self._graphs and self._step_counts[key] < _PATIENCE:
                raise CannotCompile("this shape of batch is rare so far")
        if not all_finite(inputs.tensors):
            raise CannotCompile("on numbers that are not finite, results cannot be compared")
        try:
            graph = self._build(inputs, settings)
        except CannotCompile as error:
            self._graphs[key] = str(error)
            raise
        self._graphs[key] = graph
        return graph

    def _inputs(self, x: Any, y: Any, state: MLHFState) -> "_Inputs":
        (xs, x_spec), (ys, y_spec) = pytree.tree_flatten(x), pytree.tree_flatten(y)
        if not all(isinstance(t, Tensor) for t in (*xs, *ys)):
            raise CannotCompile("the batch has something else than tensors in it")
        named = dict(self._model.named_parameters()) | dict(self._model.named_buffers())
        packed = [network.weights.packed() for network in self._networks]
        groups = (
            list(named.values()),
            [state.d, state.r, state.damping, state.preconditioner],
            packed,
            xs,
            ys,
        )
        tensors = [t.detach() for group in groups for t in group]
        described = tuple((t.shape, t.stride(), t.dtype, t.device) for t in tensors)
        modes = tuple(m.training for m in self._model.modules())
        key = (described, tuple(named), modes, str(x_spec), str(y_spec))
        return _Inputs(tensors, list(named), [len(g) for g in groups], (x_spec, y_spec), key)

    def _build(self, inputs: "_Inputs", settings: Settings) -> "_Graph":
        if any(_hooked(m) for m in self._model.modules()):
            raise CannotCompile("the model has hooks, which a graph would leave out")
        body = self._body(inputs, settings)
        try:
            traced, second = (make_fx(body, tracing_mode="fake")(*inputs.tensors) for _ in range(2))
        except Exception as error:
            raise CannotCompile(f"the step cannot be traced: {_short(error)}") from error
        if traced.code != second.code:
            raise CannotCompile("the model does not do the same each time")
        for node in traced.graph.nodes:
            tags = getattr(node.target, "tags", ())
            if torch.Tag.nondeterministic_seeded in tags:
                raise CannotCompile(f"the model draws random numbers ({node.target})")
        try:
            run = _inductor(traced, inputs.tensors)  # changes what it is given
            _compare(second, run, inputs.tensors)
        except CannotCompile:
            raise
        except Exception as error:
            raise CannotCompile(f"the step cannot be compiled: {_short(error)}") from error
        return _Graph(run, inputs)

    def _body(self, inputs: "_Inputs", settings: Settings) -> Run:
        """Return the step as a function of flat inputs; it overwrites state and buffers.

        Where the direction is not finite, d and r stay.
        """
        names = {id(p): name for name, p in self._model.named_parameters()}
        try:
            trained = [names[id(p)] for p in self._parameters]
        except KeyError:
            raise CannotCompile("a parameter was replaced in the model") from None

        def body(*tensors: Tensor) -> Tensor:
            tensors_of_model, (d, r, s, p), packed, xs, ys = _groups(tensors, inputs.sizes)
            rnn_s, rnn_p = (
                functools.partial(network.traced, w)
                for network, w in zip(self._networks, packed, strict=True)
            )
            named = dict(zip(inputs.names, tensors_of_model, strict=True))
            for name in trained:
                named[name] = named[name].detach().requires_grad_()
            leaves = [named[name] for name in trained]
            x, y = (
                pytree.tree_unflatten(list(leaf), spec)
                for leaf, spec in zip((xs, ys), inputs.specs, strict=True)
            )
            ggn = PaperGGN(_WithTensors(self._model, named), self._loss, x, y, leaves)
            with torch.no_grad():
                state = MLHFState(d, r, s, p)
                buffers = Buffers(d, leaves, fused=False, traced=True)
                before = d.clone()
                stats = solve(ggn, rnn_s, rnn_p, state, buffers, **settings._asdict())
                finite = torch.isfinite(stats.direction)
                d.copy_(torch.where(finite, d, before))
                r.copy_(torch.where(finite, state.r, r))
            return torch.stack([t.to(d.dtype) for t in (ggn.loss, *stats)])

        return body


class _WithTensors(nn.Module):
    """The model, with other parameters and buffers than its own."""

    def __init__(self, model: nn.Module, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.inner = model
        self._tensors = tensors

    def forward(self, x: Any) -> Any:
        return torch.func.functional_call(self.inner, self._tensors, (x,))


class _Inputs(NamedTuple):
    """A step's tensors in one list: parameters and buffers, state, networks' weights, x, y."""

    tensors: list[Tensor]
    names: list[str]
    sizes: list[int]
    specs: tuple[Any, Any]
    key: Any


class _Graph:
    """A compiled step; on a GPU recorded as a CUDA graph."""

    def __init__(self, run: Run, inputs: _Inputs) -> None:
        self._run = run
        self.execution = Execution("compiled")
        self._fixed = sum(inputs.sizes[:2])  # parameters, buffers, state: their memory stays
        self._graph: torch.cuda.CUDAGraph | None = None
        if inputs.tensors[0].is_cuda:
            try:
                self._record(inputs.tensors)
            except RuntimeError as error:
                self.execution = Execution("compiled", f"no CUDA graph: {_short(error)}")

    def _record(self, tensors: list[Tensor]) -> None:
        copies = [t.clone() for t in tensors]  # a warm-up must not change the state
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(3):
                self._run(*copies)
        torch.cuda.current_stream().wait_stream(stream)
        self._static = [*tensors[: self._fixed], *(t.clone() for t in tensors[self._fixed :])]
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph):
            self._out = self._run(*self._static)
        self._addresses = [t.data_ptr() for t in tensors[: self._fixed]]
        self._graph = graph
        self.execution = Execution("cuda_graph")

    def fits(self, tensors: list[Tensor]) -> bool:
        """Whether parameters, buffers and state are at the addresses that were recorded."""
        return self._graph is None or self._addresses == [
            t.data_ptr() for t in tensors[: self._fixed]
        ]

    def __call__(self, tensors: list[Tensor]) -> Tensor:
        if self._graph is None:
            return self._run(*tensors)
        torch._foreach_copy_(self._static[self._fixed :], tensors[self._fixed :])
        self._graph.replay()
        return self._out.clone()


def _inductor(traced: torch.fx.GraphModule, tensors: list[Tensor]) -> Run:
    options = {"deterministic": torch.are_deterministic_algorithms_enabled()}
    if not tensors[0].is_cuda:
        # Inductor moves convolutions and pools to a layout in which they are slower on a CPU.
        options["layout_optimization"] = False
    compiled: Any = torch._inductor.compile(traced, list(tensors), options=options)

    def run(*tensors: Tensor) -> Tensor:
        out = compiled(*tensors)
        first: Tensor = out[0] if isinstance(out, list | tuple) else out
        return first

    return run


def _groups(tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[Sequence[Tensor]]:
    groups, at = [], 0
    for size in sizes:
        groups.append(tensors[at : at + size])
        at += size
    return groups


def _compare(traced: Run, run: Run, tensors: Sequence[Tensor]) -> None:
    """Check that both have the same effect on copies of the inputs."""
    of_traced, of_run = ([t.clone() for t in tensors] for _ in range(2))
    with torch.no_grad():
        outputs = traced(*of_traced), run(*of_run)
    for a, b in zip([outputs[0], *of_traced], [outputs[1], *of_run], strict=True):
        if a.is_floating_point():
            difference = torch.linalg.vector_norm(a - b)
            if bool(difference > _TOLERANCE * torch.linalg.vector_norm(a)):
                raise CannotCompile("the compiled step gives other numbers than the eager one")
        elif not torch.equal(a, b):
            raise CannotCompile("the compiled step gives other numbers than the eager one")


def _hooked(module: nn.Module) -> bool:
    """Whether a module has hooks; those of our optimizers do nothing in their own steps."""
    forward = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return bool(
        any(not isinstance(hook, WeakHook) for hook in forward)
        or module._backward_hooks
        or module._backward_pre_hooks
        or any_on(module.parameters(recurse=False))
    )


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
