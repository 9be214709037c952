"""A graph that names what is not there is refused at the place where it does."""

import json
from typing import Any

import pytest

from mlhf.core.errors import SpecError
from mlhf.models.graph import checks
from mlhf.models.graph.checks import examine
from mlhf.models.graph.examination import read_graph
from mlhf.models.specs import MODELS


def _graph(**changed: Any) -> dict[str, Any]:
    return {
        "inputs": [{"name": "x", "shape": [4]}],
        "layers": {"head": {"type": "Linear", "args": {"in_features": 4, "out_features": 3}}},
        "nodes": [{"name": "y", "layer": "head", "args": ["%x"]}],
        "outputs": "%y",
        **changed,
    }


@pytest.mark.parametrize(
    ("changed", "pointer", "message"),
    [
        ({"nodes": [{"name": "y", "layer": "tail"}]}, "/nodes/0/layer", "no layer 'tail'"),
        ({"nodes": [{"name": "y", "layer": "head", "args": ["%z"]}]}, "/nodes/0", "y: %z is not"),
        ({"nodes": [{"name": "x", "layer": "head"}]}, "/nodes/0/name", "x is taken"),
        ({"outputs": []}, "/outputs", "no reference"),
        ({"outputs": "%z"}, "/outputs", "%z is not"),
        ({"training_nodes": [], "training_outputs": "%y"}, "/training_outputs", "%y is not"),
        ({"training_outputs": "%y"}, "/training_outputs", "need training_nodes"),
        ({"inputs": [{"name": "x", "shape": [4]}] * 2}, "/inputs", "one name"),
        ({"layers": {"a.b": {"type": "no such"}}}, "/layers/a.b/type", "Input should be"),
    ],
)
def test_the_pointer_is_into_the_graph(changed: dict[str, Any], pointer: str, message: str) -> None:
    graph = _graph(**changed)
    with pytest.raises(SpecError, match=message) as refused:
        read_graph(json.dumps(graph).encode())
    assert refused.value.pointer == pointer
    with pytest.raises(SpecError) as refused:
        MODELS.parse("graph", {"graph": graph})
    assert refused.value.pointer == f"/params/graph{pointer}"


@pytest.mark.parametrize(
    ("outputs", "message"),
    [({"tuple": ["%y", "%y"]}, "is not there"), ("%x", r"has the shape \(4,\)")],
)
def test_training_mode_must_give_the_same_outputs(outputs: Any, message: str) -> None:
    graph = _graph()
    graph |= {"training_nodes": graph["nodes"], "training_outputs": "%y"}
    assert examine(read_graph(json.dumps(graph).encode())).outputs[""].shape == [3]
    wrong = read_graph(json.dumps({**graph, "training_outputs": outputs}).encode())
    with pytest.raises(SpecError, match=message) as refused:
        examine(wrong)
    assert refused.value.pointer == "/training_outputs"


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_long_sequence_is_sized_by_a_short_one(
    kind: str, batch_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a whole it would take a second for each 200 steps."""
    sizes = {"input_size": 3, "hidden_size": 5, "num_layers": 2, "bidirectional": True}
    layers = {"rnn": {"type": kind, "args": {**sizes, "batch_first": batch_first}}}
    turned = {"name": "t", "op": "tensor.transpose", "args": ["%x", 0, 1]}
    whole = {"name": "r", "layer": "rnn", "args": ["%x" if batch_first else "%t"]}
    nodes = [turned, whole, {"name": "y", "op": "part", "args": ["%r", 0]}]
    nodes.append({"name": "z", "op": "tensor.transpose", "args": ["%y", 0, 1]})

    def found(steps: int) -> Any:
        inputs = [{"name": "x", "shape": [steps, 3]}]
        outputs = "%y" if batch_first else "%z"
        graph = _graph(inputs=inputs, layers=layers, nodes=nodes, outputs=outputs)
        return examine(read_graph(json.dumps(graph).encode()))

    assert found(100_000).outputs[""].shape == [100_000, 10]
    short = found(9)
    monkeypatch.setattr(checks, "_SHORT", (9, 9))
    assert found(9) == short
