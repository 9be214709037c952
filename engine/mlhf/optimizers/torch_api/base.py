"""The base class of our optimizers, which makes them ones of ``torch.optim``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.forward_pass import forget_casts
from mlhf.curvature.ggn import GGN
from mlhf.curvature.protocol import Loss
from mlhf.curvature.pytree_loss import loss_of
from mlhf.curvature.weighted_sum import WeightedSum
from mlhf.optimizers.kfac.calls import LayerCalls
from mlhf.optimizers.options import check_model
from mlhf.optimizers.preconditions import TrainedModel
from mlhf.optimizers.protocol import State, StepResult
from mlhf.optimizers.state import tensors_copied
from mlhf.optimizers.torch_api import param_groups
from mlhf.optimizers.torch_api.gradients import Gradients, gradients_of, pass_weights
from mlhf.optimizers.torch_api.recorder import Pass, Recorder
from mlhf.optimizers.torch_api.step_hooks import hooked

# What a copy or a pickle of an optimizer leaves out, beside torch's hooks: graphs of passes, and
# what schedulers and trainers put on the instance.
_NOT_COPIED = frozenset({"_recorder", "last_result", "step", "grad_scale", "found_inf"})


class TorchOptimizer(torch.optim.Optimizer):
    """An optimizer of a model, with three forms of a step.

    - ``step(x, y)`` runs the model itself.
    - ``step(closure)``, where the closure returns the model's outputs and the targets.
    - ``loss(model(x), y).backward()`` fills ``.grad``; then ``step()`` reads it, and takes the
      curvature from the graph of that same pass. Several passes before a step add up.

    It has the groups, schedulers, hooks and states of torch's optimizers. What it knows is of
    all parameters together: ``state`` stays empty, ``state_dict()`` has all.

    Args:
        model: The model.
        loss: A loss's name, or a function (z, y) ↦ scalar.
        parameters: What is trained: tensors, pairs of a name and a tensor, or groups; by default
            all that require a gradient.
        defaults: Options of groups that lack them.

    Attributes:
        model: The model that is trained.
        loss_function: Its loss, as it was given.
        last_result: The result of the last step.

    Raises:
        CurvatureError: where no parameter requires a gradient.
        ValueError: for an option of a group that is out of range.
    """

    _step_supports_amp_scaling = True  # so that ``GradScaler`` tells the scale
    _by_passes = True  # whether a step needs the graphs of passes, not the gradient alone

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        parameters: "param_groups.Parameters | None",
        defaults: Mapping[str, Any],
    ) -> None:
        check_model(model)
        self.model, self.loss_function = model, loss
        self.last_result: StepResult | None = None
        self._chosen = parameters is not None
        self._parameters: list[Tensor] = []
        found = (
            [{"params": TrainedModel(model).parameters}]
            if parameters is None
            else param_groups.groups_of(parameters)
        )
        super().__init__(found, dict(defaults))
        self._take_parameters()

    @property
    def lr(self) -> float:
        """Factor of the step: the first group's. Set, it is that of all groups."""
        return float(self.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.param_groups:
            group["lr"] = value

    @property
    def weight_decay(self) -> float:
        """L2 penalty: the first group's. Set, it is that of all groups."""
        return float(self.param_groups[0]["weight_decay"])

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        for group in self.param_groups:
            group["weight_decay"] = value

    def loss(self, z: Any, y: Any, *, batch_size: float | None = None) -> Tensor:
        """Return the loss of the model's outputs, whose ``backward`` fills ``.grad``.

        The graph stays until ``step()`` or ``zero_grad()``.

        Args:
            z: What the model returned, or what the loss takes of it, with its graph.
            y: The target.
            batch_size: As for ``step``.

        Returns:
            A scalar. It may be multiplied, and added to others, before ``backward``.

        Raises:
            CurvatureError: where products with the matrix of this pass would be wrong.
        """
        if not torch.is_grad_enabled():
            return loss_of(self.loss_function, z, y)
        _check_size(batch_size)
        return self._recorder.loss(z, y, batch_size)

    @overload  # type: ignore[override]
    def step(self, x: Any, y: Any, *, batch_size: float | None = ...) -> StepResult: ...

    @overload
    def step(self, closure: Callable[[], Any]) -> Any: ...

    @overload
    def step(self, closure: None = ...) -> StepResult: ...

    @hooked
    def step(
        self,
        *args: Any,
        closure: Callable[[], Any] | None = None,
        batch_size: float | None = None,
        **batch: Any,
    ) -> Any:
        """Take one step: on a batch, by a closure, or by the passes since the last step.

        Args:
            args: ``x, y``, the model's input and the loss's target; or a closure; or nothing.
            closure: A function without arguments, which is run with gradients enabled. It returns
                a tuple of outputs and targets; or, as for torch's optimizers, it calls
                ``loss(…).backward()`` and returns the loss.
            batch_size: With a batch: how much data it has, in any unit, to tell smaller batches
                from the usual ones. By default it is counted.
            batch: ``x`` and ``y`` by name.

        Returns:
            The step's result; with a closure the loss, as torch's optimizers do.

        Raises:
            CurvatureError: where the step cannot be computed correctly.
        """
        if len(args) == 2 or batch:
            _check_size(batch_size)
            self._check()
            with self._recorder.paused():
                x, y = _batch(*args, **batch)
                result = self._step_on_batch(x, y, batch_size)
            return self._finish(result, watch=False)
        if len(args) > 2:
            raise TypeError(f"step takes x and y, or a closure, not {len(args)} arguments")
        if batch_size is not None:
            raise TypeError("batch_size goes with x and y, or with optimizer.loss(z, y)")
        closure = args[0] if args and closure is None else closure
        if closure is None:
            return self._step_on_gradients()
        if not callable(closure):
            raise TypeError(f"step needs a target beside the {type(closure).__name__}: step(x, y)")
        with torch.enable_grad():
            found = closure()
        if isinstance(found, tuple):
            return self._step_on_outputs(found)
        if found is not None or any(p.grad is not None for p in self._parameters):
            self._step_on_gradients()  # else the closure left its batch out
        return found

    def _step_on_outputs(self, found: tuple[Any, ...]) -> Tensor:
        """Take a step on the outputs and targets that a closure returned; return the loss."""
        if len(found) != 2:
            raise TypeError(
                f"the closure returned {len(found)} values: it should return outputs and targets, "
                "or call backward() and return the loss"
            )
        self._check()
        self._recorder.clear()
        recorded = self._recorder.record(*found)
        self._recorder.add(recorded)
        return self._step_on_passes(Gradients(recorded.gradient())).loss

    def _step_on_gradients(self) -> StepResult:
        """Take a step by what is in ``.grad``."""
        self._check()
        if self._by_passes and not self._recorder.passes:
            raise CurvatureError(
                "step() needs the pass that the gradients are of, and there was none since the "
                "last step: compute the loss by optimizer.loss(model(x), y) and call its "
                "backward(), or give the batch to the step: step(x, y)"
            )
        return self._step_on_passes(gradients_of(self, self._parameters))

    def _step_on_passes(self, gradients: Gradients) -> StepResult:
        passes = self._recorder.take()
        try:
            with self._recorder.paused():
                result = self._step_on(passes, gradients)
            return self._finish(result, watch=True)
        finally:
            for each in passes:
                each.release()

    def _finish(self, result: StepResult, *, watch: bool) -> StepResult:
        forget_casts()
        self.last_result = result
        self._recorder.layers_due = self._layers_due()
        self._recorder.watch_layers(watch)
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, and the passes since the last step."""
        self._recorder.clear()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if set_to_none:
                    p.grad = None
                else:
                    p.grad = p.grad.detach().zero_()

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group. After the first step, what was learned of the network begins anew.

        That is not known parameter by parameter: bases, running means and the last step are of
        all. Options of groups stay.

        Raises:
            CurvatureError: where it has parameters that are trained already, or none of the
                model's; in ``eval_mode``.
            ValueError: for an option out of range.
        """
        group = param_groups.tensors_of(param_group)
        group = param_groups.complete(group, self.defaults, self.model)
        if not self._parameters:
            self.param_groups.append(group)
            return
        self._refuse_eval_mode("a new group")
        trained = [p for g in [*self.param_groups, group] for p in g["params"]]
        TrainedModel(self.model, trained)  # checks them
        self.param_groups.append(group)
        self._chosen = True
        self._take_parameters()

    def state_dict(self) -> State:
        """Return a copy of the state; see ``Optimizer.state_dict`` in the protocol.

        ``param_groups`` has the groups' options, and their parameters by index and by name.
        """
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        groups = param_groups.saved(self.param_groups)
        state = tensors_copied({**self._state(), "param_groups": groups})
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, state)
            state = state if changed is None else changed
        return state

    def load_state_dict(self, state: State) -> None:
        """Restore what ``state_dict`` returned, the options of groups too.

        Raises:
            DataError: where it is of another optimizer, network or order of parameters; then
                nothing has changed.
        """
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, state)
            state = state if changed is None else changed
        groups = state.get("param_groups") if isinstance(state, Mapping) else None
        if groups is not None:
            param_groups.check(self.param_groups, groups)
        self._load(state)
        if groups is not None:  # states of earlier versions have none
            param_groups.restore(self.param_groups, groups)
        self._recorder.layers_due = self._layers_due()
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return all but graphs and hooks."""
        return {
            name: value
            for name, value in vars(self).items()
            if name not in _NOT_COPIED and not name.startswith("_optimizer_")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)
        self.last_result = None
        self._recorder = self._new_recorder()

    def _take_parameters(self) -> None:
        """Begin with the groups' parameters."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        self._trained = TrainedModel(self.model, parameters if self._chosen else None)
        self._parameters = self._trained.parameters if self._chosen else parameters
        self._begin()
        self._recorder = self._new_recorder()

    def _new_recorder(self) -> Recorder:
        recorder = Recorder(
            self.model,
            self._matrix_at,
            self._layers(),
            device=self._parameters[0].device,
            replayed=self._replays(),
        )
        recorder.layers_due = self._layers_due()
        return recorder

    def _check(self) -> None:
        """Refuse a step that would be lost or wrong."""
        self._refuse_eval_mode("a step")
        grouped = {id(p) for group in self.param_groups for p in group["params"]}
        if grouped != {id(p) for p in self._parameters}:
            raise CurvatureError(
                "param_groups has other parameters than the optimizer was made for: use "
                "add_param_group, or make a new optimizer"
            )
        self._trained.check(self)

    def _option(self, name: str) -> float | list[float]:
        """Return an option: a number, or one for each parameter where groups differ."""
        return param_groups.option(self.param_groups, name, self._parameters)

    # What an optimizer has of its own

    def _begin(self) -> None:
        """Make the state for ``self._parameters`` and what else depends on them."""
        raise NotImplementedError

    def _step_on_batch(self, x: Any, y: Any, batch_size: float | None) -> StepResult:
        """Take a step on a batch."""
        raise NotImplementedError

    def _step_on(self, passes: Sequence[Pass], gradients: Gradients) -> StepResult:
        """Take a step by recorded passes and these gradients."""
        raise NotImplementedError

    def _state(self) -> State:
        """Return what ``_load`` restores."""
        raise NotImplementedError

    def _load(self, state: State) -> None:
        raise NotImplementedError

    def _matrix_at(self, z: Any, y: Any, hooked: bool) -> GGN:
        """Return the matrix of a pass that ended in z."""
        return GGN.at_outputs(self.model, self.loss_function, z, y, self._parameters, hooked=hooked)

    def _layers(self) -> Sequence[LayerCalls]:
        """Return the layers whose calls are recorded."""
        return ()

    def _layers_due(self) -> bool:
        """Whether the next step uses the layers' calls."""
        return False

    def _replays(self) -> bool:
        """Whether a step runs its pass again."""
        return False

    def _refuse_eval_mode(self, what: str) -> None:
        """Raise where the model holds weights that steps do not start from."""


def sum_of(passes: Sequence[Pass], gradients: Gradients) -> WeightedSum:
    """Return the matrix and the loss of several passes, and the gradient to step by."""
    weights = pass_weights([each.factors for each in passes], gradients.scale)
    return WeightedSum([each.matrix for each in passes], weights, gradients.values)


def _batch(x: Any, y: Any) -> tuple[Any, Any]:
    """Return the batch, given by position or by name."""
    return x, y


def _check_size(batch_size: float | None) -> None:
    if batch_size is not None and not batch_size > 0:
        raise ValueError(f"batch_size={batch_size!r} must be positive")
