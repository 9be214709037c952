"""Records the passes of the user's own loop between two steps."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.forward_pass import forget_casts
from mlhf.curvature.forward_replay import ForwardReplay
from mlhf.curvature.ggn import GGN
from mlhf.curvature.hooks import hook_count, register_reading
from mlhf.curvature.kernels import Kernels
from mlhf.curvature.protocol import Loss
from mlhf.curvature.pytree_loss import loss_of
from mlhf.curvature.recorded_pass import PassGraph, RecordedPass
from mlhf.curvature.switches import together
from mlhf.optimizers.kfac.calls import LayerCalls
from mlhf.optimizers.torch_api.hooks import WeakHook

_MOST_WAITING = 8  # calls of the model whose layers' calls are kept for a loss

# From outputs, targets and whether hooks may have been registered to a matrix without gradient.
MakeMatrix = Callable[[Any, Any, bool], GGN]


class ModelCall(NamedTuple):
    """A call of the model.

    Attributes:
        args: Its arguments.
        kwargs: Those by name.
        hooked: Whether hooks were registered in it.
        replay: The state it started from, where steps need that.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    hooked: bool
    replay: ForwardReplay | None


class Pass(RecordedPass):
    """A recorded pass, with what an optimizer reads beside its matrix.

    Attributes:
        target: The loss's target.
        size: How much data it has, where the user told.
        call: The model's call that it came from; None where the model was not called, or more
            than once.
        calls: The inputs and edges of the layers' calls, by layer; None where they were not
            recorded.
    """

    target: Any = None
    size: float | None = None
    call: ModelCall | None = None
    calls: list[LayerCalls] | None = None

    @torch.no_grad()
    def loss_again(self, loss: Loss, model: nn.Module) -> Tensor:
        """Return the loss at the present parameters, of a pass run again in the same state.

        Raises:
            CurvatureError: where it is not known what was run.
        """
        call = self.call
        if call is None or call.replay is None:
            raise CurvatureError(
                "this damping needs the loss of the same batch after the step, so that the pass "
                "has to be one call of the model itself: loss(model(x), y)"
            )
        forget_casts()
        with call.replay.restored_state():
            return loss_of(loss, model(*call.args, **call.kwargs), self.target)


class Recorder:
    """Notes what steps need of the passes that run between them.

    While a pass of the model runs with a graph, kernels whose backward cannot be differentiated
    are off. Calls of layers are recorded only while that is due. Both are done by hooks, which
    cost microseconds where there is nothing to do.

    Args:
        model: The model.
        make_matrix: Makes the matrix of a pass.
        layers: Whose calls are recorded.
        device: Of the parameters.
        replayed: Whether passes are to be run again, in the state they started from.

    Attributes:
        passes: Those that went backward since the last step.
        layers_due: Whether the layers' calls are wanted of the next pass.
    """

    def __init__(
        self,
        model: nn.Module,
        make_matrix: MakeMatrix,
        layers: Sequence[LayerCalls] = (),
        *,
        device: torch.device,
        replayed: bool = False,
    ) -> None:
        self._model, self._make_matrix, self._layers = model, make_matrix, list(layers)
        self._device, self._replayed = device, replayed
        self._kernels = Kernels.of(model)
        self._paused = 0
        self._open: list[tuple[ExitStack, int, ModelCall] | None] = []
        self._calls: list[ModelCall] = []  # since the last loss
        self._waiting = 0  # calls of the model since then
        self.passes: list[Pass] = []
        self.layers_due = bool(layers)
        me = weakref.ref(self)
        self._layer_hooks: list[RemovableHandle] = []
        self._hooks = register_reading(
            [
                partial(model.register_forward_pre_hook, WeakHook(me, "before"), with_kwargs=True),
                partial(model.register_forward_hook, WeakHook(me, "after"), always_call=True),
            ]
        )
        for hooks in (self._hooks, self._layer_hooks):
            weakref.finalize(self, _remove, hooks).atexit = False
        self.watch_layers()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record nothing within: the optimizer runs the model itself."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def record(self, z: Any, y: Any, size: float | None = None) -> Pass:
        """Return a pass that ended in the outputs z."""
        calls, self._calls, self._waiting = self._calls, [], 0
        hooked = len(calls) != 1 or calls[0].hooked
        matrix = self._make_matrix(z, y, hooked)
        graph = PassGraph(matrix.outputs)
        recorded = Pass(matrix, graph.leaves)
        recorded.target, recorded.size = y, size
        recorded.call = calls[0] if len(calls) == 1 else None
        if self.layers_due and any(layer.edges for layer in self._layers):
            recorded.calls = [layer.taken(graph.nodes) for layer in self._layers]
        return recorded

    def loss(self, z: Any, y: Any, size: float | None = None) -> Tensor:
        """Return the loss of a pass; its backward pass adds it to ``passes``."""
        recorded = self.record(z, y, size)
        return recorded.loss(partial(self.add, recorded))

    def add(self, recorded: Pass) -> None:
        """Add a pass whose gradient is about to be computed, unless it is there."""
        if any(each is recorded for each in self.passes):
            return
        if recorded.calls is not None:
            if any(each.calls is not None for each in self.passes):
                recorded.calls = None  # one pass's are enough
            else:
                recorded.edges = [edge for layer in recorded.calls for edge in layer.edges]
                self.layers_due = False
        self.passes.append(recorded)

    def take(self) -> list[Pass]:
        """Return the passes since the last step, and forget them."""
        passes, self.passes = self.passes, []
        self._forget_calls()
        return passes

    def clear(self) -> None:
        """Forget the passes that went backward; those that did not so far may do so later."""
        recorded = any(each.calls is not None for each in self.passes)
        for each in self.passes:
            each.release()
        self.passes = []
        self.layers_due = self.layers_due or recorded

    def watch_layers(self, watch: bool = True) -> None:
        """Have hooks on the layers if their calls are due; without ``watch`` have none."""
        if not (watch and self.layers_due):
            _remove(self._layer_hooks)
            self._layer_hooks.clear()
        elif not self._layer_hooks:
            me = weakref.ref(self)
            self._layer_hooks += register_reading(
                partial(
                    layer.module.register_forward_hook,
                    WeakHook(me, "layer", k),
                    with_kwargs=True,
                )
                for k, layer in enumerate(self._layers)
            )

    def before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a call of the model."""
        if self._paused or not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            self._open.append(None)
            return
        if not self._layer_hooks and self.layers_due:
            self.watch_layers()
        self._waiting += 1
        if self._waiting > _MOST_WAITING:  # an evaluation, without torch.no_grad()
            self._forget_calls()
        forget_casts()
        replay = ForwardReplay(model, self._device) if self._replayed else None
        switches = ExitStack()
        # A generator, which puts them back also where nobody is told of the call's end: torch
        # runs no hook after a KeyboardInterrupt.
        switches.enter_context(together(self._kernels.of_pass(self._device)))
        call = ModelCall(args, kwargs, False, replay)
        self._open.append((switches, hook_count(), call))

    def after(self, model: nn.Module, args: Any, output: Any) -> None:
        """After a call of the model, also one that failed."""
        opened = self._open.pop() if self._open else None
        if opened is not None:
            switches, before, call = opened
            switches.close()
            if output is not None:
                self._calls = [*self._calls[-1:], call._replace(hooked=hook_count() != before)]

    def layer(self, k: int, *args: Any) -> None:
        """After a call of a layer."""
        if self.layers_due and not self._paused and torch.is_grad_enabled():
            self._layers[k].record(*args)

    def _forget_calls(self) -> None:
        self._calls, self._waiting = [], 0
        for layer in self._layers:
            layer.clear()


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
