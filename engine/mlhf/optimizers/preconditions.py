"""What an optimizer needs of a model, checked when it is made and before each step."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.forward_pass import select_parameters
from mlhf.curvature.switches import within_compiled_function
from mlhf.optimizers.protocol import State

# Wrappers that spread a model over processes or devices, by class name: the classes need not
# be imported, nor exist in this torch.
_REPLICAS = (
    "replicas would drift apart: steps take gradients and products themselves, which the wrapper "
    "does not see and so does not exchange. Train in one process, with the module inside "
    "(model.module)"
)
_WRAPPERS = {
    "DataParallel": "it splits batches over devices within the forward pass, and curvature needs "
    "the pass of one module. Use the module inside (model.module)",
    "DistributedDataParallel": _REPLICAS,
    "FullyShardedDataParallel": _REPLICAS,
    "FSDPModule": "fully_shard leaves each process a part of the parameters, and steps take "
    "gradients and products of whole ones. Train in one process, without fully_shard",
}


class Stateful(Protocol):
    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


class TrainedModel:
    """The model and parameters that an optimizer was made for.

    Args:
        model: The model.
        parameters: Which of its parameters are trained, by default all that require a gradient.

    Attributes:
        parameters: Those, in the order given or that of ``model.parameters()``.

    Raises:
        CurvatureError: where steps on this model, or of these parameters, would be wrong.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[Tensor] | None = None) -> None:
        _refuse_wrappers(model)
        self._model = model
        self._chosen = parameters is not None
        if parameters is not None:
            parameters = list(parameters)  # may be a generator
        self.parameters = select_parameters(model, parameters)
        names = dict(_named(model))
        if strangers := [p for p in self.parameters if id(p) not in names]:
            raise CurvatureError(
                f"{len(strangers)} of the parameters given, the first of shape "
                f"{tuple(strangers[0].shape)}, belong to no module of the model"
            )
        _refuse_kinds(model, self.parameters)
        self._placed = _placement(self.parameters)

    def check(self, optimizer: Stateful) -> None:
        """Check that the model has the parameters it had; move the state where they moved to.

        Args:
            optimizer: Whose state is on the device, and in the precision, of the parameters.

        Raises:
            CurvatureError: within a compiled function; and where a parameter was frozen, unfrozen,
                added, replaced or removed.
        """
        if within_compiled_function():
            raise CurvatureError(
                "a step is taken within a function that torch.compile compiles, which it cannot "
                "be: compile the model alone, and call step() outside"
            )
        # Half the time of ``parameters()``, which makes each one's name.
        now = {
            id(p)
            for module in self._model.modules()
            for p in module._parameters.values()
            if p is not None and p.requires_grad
        }
        before = {id(p) for p in self.parameters}
        if not before <= now if self._chosen else before != now:
            self._refuse_change()
        placed = _placement(self.parameters)
        if placed != self._placed:
            _refuse_kinds(self._model, self.parameters)
            self._placed = placed
            optimizer.load_state_dict(optimizer.state_dict())

    def _refuse_change(self) -> None:
        """Raise an error that names the first parameter that is not as it was."""
        names = dict(_named(self._model))
        remedy = (
            "Its state belongs to the parameters it was made for: after such a change make a new "
            "optimizer"
        )
        for p in self.parameters:
            if id(p) not in names:
                raise CurvatureError(
                    f"a parameter of shape {tuple(p.shape)} was replaced in the model, or removed, "
                    f"since the optimizer was made. {remedy}."
                )
            if not p.requires_grad:
                raise CurvatureError(
                    f"{names[id(p)]} no longer requires a gradient: it was frozen since the "
                    f"optimizer was made. {remedy}."
                )
        known = {id(p) for p in self.parameters}
        new = next(
            names[id(p)] for p in self._model.parameters() if p.requires_grad and id(p) not in known
        )
        raise CurvatureError(
            f"{new} requires a gradient but would not be trained: it was added or unfrozen since "
            f"the optimizer was made. {remedy}, or choose its parameters by parameters=... where "
            "it has that option."
        )


def _named(model: nn.Module) -> Iterator[tuple[int, str]]:
    for name, parameter in model.named_parameters():
        yield id(parameter), name


def _placement(parameters: Sequence[Tensor]) -> list[tuple[torch.device, torch.dtype]]:
    return [(p.device, p.dtype) for p in parameters]


def _refuse_wrappers(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise CurvatureError(
            "the model is a ScriptModule, on which torch registers no hooks, and steps need some: "
            "give the module as it was written, or one of your own that calls the scripted one"
        )
    for module in model.modules():
        for cls in type(module).__mro__:
            if cls.__name__ in _WRAPPERS and cls.__module__.startswith("torch."):
                raise CurvatureError(
                    f"the model is wrapped in {cls.__name__}: {_WRAPPERS[cls.__name__]}"
                )


def _refuse_kinds(model: nn.Module, parameters: Sequence[Tensor]) -> None:
    names = dict(_named(model))
    first = parameters[0]
    for p in parameters:
        name = names[id(p)]
        if p.is_complex():
            raise CurvatureError(
                f"{name} is complex, and steps are for real parameters: hold it as a real one with "
                "a last dimension of 2, and use torch.view_as_complex in forward()"
            )
        if p.is_inference():
            raise CurvatureError(
                f"{name} was made under torch.inference_mode(), so it can never be updated: make "
                "or load the model outside"
            )
        if p.device != first.device:
            raise CurvatureError(
                f"the parameters are on several devices ({names[id(first)]} on {first.device}, "
                f"{name} on {p.device}): move the model to one"
            )
        if p.is_meta:
            raise CurvatureError(
                f"{name} is on the meta device and has no values: give it some "
                "(model.to_empty(device=...), then load or initialise) before training"
            )
        if p.layout is not torch.strided:
            raise CurvatureError(f"{name} is stored as {p.layout}: make it dense")
