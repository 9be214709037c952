"""From a user's module to its graph, on the user's machine.

The module is run on its example inputs in batches of several sizes, in evaluation and in
training mode, and each run is recorded. Numbers that differ with the size become multiples of
it; where the modes differ, the graph says how. In the end the graph is rebuilt and compared.
"""

import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.core.errors import SpecError
from mlhf.models.graph.checks import examine
from mlhf.models.graph.errors import TraceError
from mlhf.models.graph.merging import DiffersError, merge_batches, merge_modes, pruned
from mlhf.models.graph.network import Network
from mlhf.models.graph.recorder import Recorder
from mlhf.models.graph.spec import Graph, references
from mlhf.models.graph.user_module import UserModule
from mlhf.models.graph.values import encode_tensor

_SIZES = (2, 3, 5)
_TOLERANCE = 1e-5


def trace(module: nn.Module, example: Any) -> Network:
    """Return a module as data: a graph, and its present weights.

    Nothing of the module's code travels with it. The module is left as it was.

    Args:
        module: On the CPU. Its forward may branch on shapes, settings and the mode, but not on
            values that are computed from its inputs.
        example: Inputs, of which the first axis is the batch: a tensor, a tuple of positional
            arguments, or a mapping of arguments by their names. What is no tensor is a setting
            that stays as it is.

    Raises:
        TraceError: the module does what a graph cannot; says what, where in its code, and what
            to write instead.

    Example:
        >>> network = mlhf.trace(model, torch.randn(2, 3, 32, 32))
        >>> network.save("network")  # network.json, network.safetensors
    """
    call = _Call.of(module, example)
    user = UserModule(module)
    with _left_as_it_was(module):
        graph = _graph(user, call)
        network = Network(graph, {k: v.detach().cpu() for k, v in module.state_dict().items()})
        _compare(module, network, call)
    try:
        examine(graph)
    except SpecError as error:
        raise TraceError(
            f"what a graph cannot hold: {error.message} ({error.pointer})", "", "a simpler form"
        ) from None
    return network


@dataclass(frozen=True)
class _Call:
    """Arguments of a module's forward by name: tensors, and settings."""

    tensors: dict[str, Tensor]
    settings: dict[str, Any]

    @classmethod
    def of(cls, module: nn.Module, example: Any) -> "_Call":
        try:
            signature = inspect.signature(module.forward)
            if isinstance(example, Mapping):
                bound = signature.bind(**example)
            else:
                bound = signature.bind(
                    *(example if isinstance(example, tuple | list) else [example])
                )
        except TypeError as error:
            raise TraceError(
                f"inputs that its forward does not take: {error}", "", "example inputs for it"
            ) from None
        flat: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                flat |= value
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                raise TraceError("*args in its forward", "", "inputs with names")
            else:
                flat[name] = value
        tensors = {name: value for name, value in flat.items() if isinstance(value, Tensor)}
        sizes = {value.shape[0] if value.ndim else 0 for value in tensors.values()}
        if len(sizes) != 1 or 0 in sizes:
            raise TraceError(
                f"inputs of batches of {sorted(sizes) or 'no tensors'}",
                "",
                "example inputs whose first axis is the same number of samples",
            )
        return cls(tensors, {k: v for k, v in flat.items() if k not in tensors})

    def batch(self, size: int) -> dict[str, Tensor]:
        """The example in a batch of this size; of odd sizes in another order of its last axis."""
        rows = {n: t[torch.arange(size) % t.shape[0]].clone() for n, t in self.tensors.items()}
        if size % 2:
            rows = {n: t.flip(-1) if t.ndim > 1 else t for n, t in rows.items()}
        return rows

    def __call__(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> Any:
        return module(**tensors, **self.settings)


def _graph(user: UserModule, call: _Call) -> Graph:
    evaluated, constants = _recorded(user, call, training=False)
    trained, more = _recorded(user, call, training=True)
    merged = merge_modes(evaluated, trained)
    constants |= {name: more[name] for name in more if name not in constants}
    if merged is None and any(
        name in constants and not _same(constants[name], more[name]) for name in more
    ):
        # Names of one mode's constants are taken by others in the other mode.
        renamed = {name: f"training_{name}" for name in more}
        trained = _renamed(trained, renamed)
        constants |= {renamed[name]: value for name, value in more.items()}
    nodes, outputs = evaluated if merged is None else merged
    training = None if merged is not None else trained
    lists = [nodes, *([training[0]] if training else [])]
    used = {each for nodes in lists for node in nodes for each in references(list(node.values()))}
    used |= {node["layer"] for nodes in lists for node in nodes if "layer" in node}
    fields = user.to_json(used | {user.tied.get(name, name) for name in used})
    for name in used & set(constants):
        value = constants[name]
        fields["buffers"][name] = {
            "shape": list(value.shape),
            "dtype": str(value.dtype)[6:],
            "persistent": False,
            "data": encode_tensor(value),
        }
    inputs = [
        {"name": name, "shape": list(value.shape[1:]), "dtype": str(value.dtype)[6:]}
        for name, value in call.tensors.items()
    ]
    described = {"inputs": inputs, **fields, "nodes": nodes, "outputs": outputs}
    if training is not None:
        described |= {"training_nodes": training[0], "training_outputs": training[1]}
    try:
        return Graph.model_validate(described)
    except ValueError as error:
        raise TraceError(f"what a graph cannot hold: {error}", "", "a smaller network") from None


_Recorded = tuple[list[dict[str, Any]], Any]


def _recorded(user: UserModule, call: _Call, training: bool) -> tuple[_Recorded, dict[str, Tensor]]:
    records, outputs, lines = [], [], []
    constants: list[dict[str, Tensor]] = []
    for size in _SIZES:
        user.module.train(training)
        tensors = call.batch(size)
        with _restored(user), Recorder(user.tensors, user.layers, tensors) as recorder:
            result = call(user.module, tensors)
        records.append(recorder.nodes)
        outputs.append(_encode_outputs(recorder, result))
        lines.append(recorder.lines)
        constants.append(recorder.constants)
    try:
        nodes = merge_batches(records, _SIZES)
        merged = merge_batches(outputs, _SIZES)
    except DiffersError as difference:
        at = difference.path[0] if difference.path else 0
        line = lines[0][at] if isinstance(at, int) and at < len(lines[0]) else ""
        raise TraceError(
            "other operations, or numbers that are no multiple of the batch, for another number "
            f"of samples or other inputs ({difference})",
            line,
            "a forward that does the same for each sample, whatever the batch",
        ) from None
    rows = []
    for name, value in list(constants[0].items()):
        found = [each[name] for each in constants]
        if not all(_same(value, other) for other in found) and _of_batch(found):
            # The same for each sample: a single row, which is repeated.
            constants[0][f"{name}_row"] = value[:1].clone()
            sizes = [{"batch": 1}, *([-1] * (value.ndim - 1))]
            rows.append({"name": name, "op": "tensor.expand", "args": [f"%{name}_row", *sizes]})
            del constants[0][name]
        elif any(not _same(value, other) for other in found):
            raise TraceError(
                f"a tensor ({name}) that differs with the inputs but was not computed by functions "
                "of torch",
                "",
                "the same by functions of torch",
            )
    return (pruned([*rows, *nodes], merged), merged), constants[0]


def _of_batch(values: list[Tensor]) -> bool:
    """Whether constants have a row for each sample, all alike."""
    row = values[0][:1]
    return all(
        value.ndim > 0 and value.shape[0] == size and _same(value, row.expand_as(value))
        for size, value in zip(_SIZES, values, strict=True)
        if value.shape[1:] == row.shape[1:]
    ) and all(value.shape[1:] == row.shape[1:] for value in values)


def _encode_outputs(recorder: Recorder, value: Any) -> Any:
    if isinstance(value, Tensor):
        return recorder.encode(value)
    if isinstance(value, Mapping):
        return {k: _encode_outputs(recorder, v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_encode_outputs(recorder, each) for each in value if each is not None]
    raise TraceError(
        f"an output of type {type(value).__name__}",
        "",
        "outputs that are tensors, or their lists and mappings (of a transformers model: "
        "use_cache=False beside the example inputs)",
    )


def _renamed(recorded: _Recorded, names: Mapping[str, str]) -> _Recorded:
    def walk(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("%"):
            return "%" + names.get(value[1:], value[1:])
        if isinstance(value, list):
            return [walk(each) for each in value]
        return {k: walk(v) for k, v in value.items()} if isinstance(value, dict) else value

    return walk(recorded[0]), walk(recorded[1])


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())


@contextmanager
def _left_as_it_was(module: nn.Module) -> Iterator[None]:
    modes = {each: each.training for each in module.modules()}
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
        for each, training in modes.items():
            each.training = training


@contextmanager
def _restored(user: UserModule) -> Iterator[None]:
    """Undo what one run does to buffers; refuse what puts other tensors in their place."""
    kept = {name: tensor.detach().clone() for name, tensor in user.tensors.items()}
    torch.default_generator.manual_seed(0)
    random.seed(0)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in user.tensors.items():
                if tensor._version or not isinstance(tensor, nn.Parameter):
                    tensor.copy_(kept[name])
    now = dict([*user.module.named_parameters(), *user.module.named_buffers()])
    for name, tensor in user.tensors.items():
        if now.get(name) is not tensor:
            raise TraceError(
                f"a new tensor in the place of {name} in each forward",
                "",
                f"self.{name}.copy_(…), which changes it in place",
            )


def _compare(module: nn.Module, network: Network, call: _Call) -> None:
    """Check that the graph gives what the module gives, and the same gradients."""
    try:
        rebuilt = network.module()
    except SpecError as error:
        raise TraceError(
            f"what a graph cannot hold: {error.message} ({error.pointer})", "", "a simpler form"
        ) from None
    for training, size in ((False, _SIZES[1]), (True, _SIZES[0])):
        tensors = call.batch(size)
        theirs = _results(module, call, tensors, training)
        ours = _results(rebuilt, _plain, tensors, training)
        for what, a, b in zip(("outputs", "gradients"), theirs, ours, strict=True):
            if not _agree(a, b):
                raise TraceError(
                    f"something that its graph does not follow: their {what} differ in "
                    f"{'training' if training else 'evaluation'} mode",
                    "",
                    "its forward without state of its own, random numbers of Python, or a backward "
                    "of its own",
                )


def _results(
    module: nn.Module, run: Callable[..., Any], tensors: Mapping[str, Tensor], training: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the outputs, and in training the gradients of their sum by name."""
    module.train(training)
    with _restored(UserModule(module)):
        outputs = _flat(run(module, {k: t.clone() for k, t in tensors.items()}))
        graphed = [each.sum() for each in outputs if each.requires_grad]
        if not training or not graphed:
            return [each.detach() for each in outputs], []
        named = sorted(module.named_parameters(remove_duplicate=False), key=itemgetter(0))
        found = list({id(p): p for _, p in named if p.requires_grad}.values())
        try:
            gradients = torch.autograd.grad(graphed, found, allow_unused=True)
        except RuntimeError as error:
            raise TraceError(
                f"what has no gradient: {' '.join(str(error).split())[:300]}",
                "",
                "a forward that can be trained",
            ) from None
        by_id = dict(zip(map(id, found), gradients, strict=True))
    kept = [by_id.get(id(p)) for _, p in named]
    return [each.detach() for each in outputs], [torch.zeros(0) if g is None else g for g in kept]


def _plain(module: nn.Module, tensors: Mapping[str, Tensor]) -> Any:
    return module(**tensors)


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value
    return [each for part in parts if part is not None for each in _flat(part)]


def _agree(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape
        and torch.allclose(
            x.double(),
            y.double(),
            rtol=_TOLERANCE,
            atol=_TOLERANCE * max(1.0, float(x.double().nan_to_num().abs().amax()))
            if x.numel()
            else 0,
            equal_nan=True,
        )
        for x, y in zip(a, b, strict=True)
    )
