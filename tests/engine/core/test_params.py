"""Pointers of the shared parameter check."""

from typing import Annotated

import pytest
from pydantic import Field

from mlhf.core.config import Strict
from mlhf.core.errors import SpecError
from mlhf.core.params import parse_params


class Inner(Strict):
    size: int


class Params(Strict):
    count: Annotated[int, Field(ge=1)] = 1
    inner: list[Inner] = Field(default_factory=list)
    either: int | list[int] = 0


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
        parse_params(Params, params)
    assert caught.value.pointer == pointer


def test_what_is_right_is_returned():
    assert parse_params(Params, {"inner": [{"size": 3}]}) == Params(inner=[Inner(size=3)])


def test_deep_nesting_is_refused_without_recursion():
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(SpecError, match="nested deeper") as caught:
        parse_params(Params, {"either": value})
    assert caught.value.pointer == "/params"
    while value:  # taken apart by hand: freeing it at once would recurse
        value = value[0]
