"""The one registry: what it lists, what it refuses, and that it imports nothing early."""

from typing import Annotated

import pytest
from pydantic import Field

from mlhf.core.config import Strict
from mlhf.core.errors import SpecError
from mlhf.core.registry import Registry, Spec
from mlhf.data.specs import DATASETS
from mlhf.models.specs import MODELS
from mlhf.optimizers.specs import OPTIMIZERS

SPECS = [*DATASETS.values(), *MODELS.values(), *OPTIMIZERS.values()]

THINGS = Registry("thing", [Spec(n, "A thing.", Strict, "json:dumps") for n in ("b", "a")])


def test_it_is_a_mapping_in_the_order_given():
    assert list(THINGS) == ["b", "a"]
    assert len(THINGS) == 2
    assert THINGS.find("a") is THINGS["a"]


def test_an_unknown_name_lists_the_known():
    with pytest.raises(SpecError, match=r"unknown thing 'c'; known: a, b") as caught:
        THINGS.find("c")
    assert caught.value.pointer == "/name"


def test_the_implementation_is_imported_when_it_is_asked_for():
    missing = Spec("c", "A thing.", Strict, "mlhf.no_such_module:build")
    with pytest.raises(ModuleNotFoundError):
        missing.load()
    assert THINGS["a"].load()([1]) == "[1]"


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_every_target_is_there(spec):
    assert spec.load() is not None


class Inner(Strict):
    size: int


class Params(Strict):
    count: Annotated[int, Field(ge=1)] = 1
    inner: list[Inner] = Field(default_factory=list)
    either: int | list[int] = 0


PARAMETERS = Registry("thing", [Spec("a", "A thing.", Params, "json:dumps")])


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"count": 0}, "/params/count"),
        ({"cuont": 1}, "/params/cuont"),
        ({"a/b~c": 1}, "/params/a~1b~0c"),
        ({"inner": [{"size": 1}, {}]}, "/params/inner/1/size"),
        ({"inner": [{"size": 1}, {"size": "x"}]}, "/params/inner/1/size"),
        ({"inner": {"size": 1}}, "/params/inner"),
        ({"either": "x"}, "/params/either"),
        ({"count": float("nan")}, "/params/count"),
    ],
)
def test_the_pointer_leads_to_the_mistake(params, pointer):
    with pytest.raises(SpecError) as caught:
        PARAMETERS.parse("a", params)
    assert caught.value.pointer == pointer


def test_what_is_right_is_returned():
    assert PARAMETERS.parse("a", {"inner": [{"size": 3}]}) == Params(inner=[Inner(size=3)])


def test_deep_nesting_is_refused_without_recursion():
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(SpecError, match="nested deeper") as caught:
        PARAMETERS.parse("a", {"either": value})
    assert caught.value.pointer == "/params"
    while value:  # taken apart by hand: freeing it at once would recurse
        value = value[0]
